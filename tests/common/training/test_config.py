import pytest
import yaml

from common.training.config import load_config, seconds
from common.training.parser import parse_config
from common.utils.errors import UserError
from tests.conftest import ROOT


def parse(*argv):
    return parse_config([str(a) for a in argv], "", "train")


def test_file_then_flags(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("family: gan\nmodel:\n  generator:\n    width: 8\noptim:\n  lr: 0.5\nsteps: 3\n")
    config = parse("--config", file, "--optim.lr", "0.25", "--data.size", "32", "--run", "runs/x")
    assert config.family == "gan"
    assert config.model["generator"]["width"] == 8
    assert config.model["size"] == 32  # follows the data
    assert config.optim.lr == 0.25
    assert config.loop.steps == 3


def test_the_saved_config_repeats_itself(tmp_path):
    config = parse("--family", "baselines", "--steps", "3", "--optim.betas", "[0.5, 0.9]", "--fresh", "true")
    config.save(tmp_path / "c.yaml")
    again = parse("--config", tmp_path / "c.yaml")
    assert again.to_dict() == config.to_dict()
    assert again.loop.fresh is False  # or repeating a run would delete it
    assert again.optim.betas == (0.5, 0.9)


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--data.size", "abc"], "data.size is abc: expected a whole number"),
        (["--data.siz", "32"], "unknown option --data.siz"),
        (["--optim.lr", "-1"], "optim.lr is -1.0: expected a number above 0"),
        (["--optim.lr", ".inf"], "optim.lr is inf: expected a number above 0"),
        (["--optim.lr_ratio", "{generator: -3}"], "optim.lr_ratio.generator is -3.0: expected a number above 0"),
        (["--epochs", ".inf"], "epochs is inf: expected a number above 0"),
        (["--model.loss.adversarial", "foo"], "model.loss.adversarial is foo: expected vanilla, lsgan, hinge, wgan-gp"),
        (["--model.generator.widht", "8"], "did you mean --model.generator.width?"),
        (["--lr", "0.1"], "unknown option --lr: did you mean --optim.lr?"),
        (["--size=64"], "unknown option --size: did you mean --data.size or --model.size?"),
        (["--batch-size", "8"], "unknown option --batch-size: did you mean --batch_size?"),
        (["--scheduel", "cosine"], "unknown option --scheduel: did you mean --optim.schedule?"),
        (["--zzz", "8"], "unknown option --zzz: --help lists all"),
        (["--model.generator.width", "wide"], "model.generator.width is wide: expected a whole number"),
        (
            ["--model.stages", "[{train: nobody, share: 1}]"],
            "that has the train nobody: expected generator, discriminator, both",
        ),
        (["--model.stages", "[{train: both, share: all}]"], "has the share all: expected a number"),
        (["--model.stages", "[{train: both, shore: 1}]"], "model.stages has an entry that has the option shore"),
        (["--model.stages", "[{train: both}]"], "model.stages has an entry that lacks share: give it"),
        (["--model.stages", "7"], "model.stages is 7: expected a list or null"),
        (["--model.foo", "1"], "unknown option --model.foo"),
        (["--precision", "fp16"], "precision is fp16: expected auto, fp32, bf16"),
        (["--optim.betas", "3"], "optim.betas is 3: expected a list of two numbers"),
        (["--budget", "5x"], "budget is 5x: expected a time"),
        (["--steps", "0"], "steps is 0: expected a number above 0"),
        (["--steps", "many"], "steps is many: expected a whole number"),
        (["--monitor", "fid"], "monitor is fid: expected rmse_ab"),
        (
            ["--monitor", "colorfulness_ratio"],
            "expected rmse_ab, mae_ab, psnr, auc",
        ),
        (["--batch_size", "0"], "batch_size is 0"),
        (["--optim.schedule", "step"], "optim.schedule is step: expected constant, linear, cosine, plateau"),
        (["--family", "gann"], "did you mean 'gan'"),
        (["--family", "os"], "family is 'os'"),
    ],
)
def test_bad_values_are_one_line(argv, says):
    with pytest.raises(UserError) as caught:
        parse("--family", "gan", *argv)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("family: gan\nfoo: 3\n", "unknown option foo"),
        ("family: gan\nmodel:\n  widht: 3\n", "unknown option model.widht"),
        ("family: gan\noptim:\n  rate: 3\n", "unknown option optim.rate"),
        ("family: nothing\n", "expected one of"),
        ("steps: 3\n", "no family"),
        ("just words", "holds no options"),
        ("a: [", "is not valid YAML"),
    ],
)
def test_bad_files_are_one_line(tmp_path, text, says):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse("--config", file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        load_config(tmp_path / "none.yaml")


def test_times():
    assert [seconds(t) for t in (None, "90s", "20m", "1.5h")] == [None, 90, 1200, 5400]


def test_experiments_open_with_what_they_are():
    for file in (ROOT / "experiments").rglob("*.yaml"):
        lines = file.read_text().splitlines()
        assert lines[0].startswith("# "), file
        assert any("Command:" in line for line in lines[:6]), file
        assert ("experiments" if file.parent.name == "suites" else "family") in yaml.safe_load(file.read_text()), file
