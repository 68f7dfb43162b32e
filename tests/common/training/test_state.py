import random

import pytest
import torch

from common.training.loop import train
from common.training.parser import config_from_dict
from common.training.run import Run
from common.training.state import STATE, read_state, save_state
from common.utils.errors import UserError
from common.utils.progress import Progress

QUIET = Progress(quiet=True)


def test_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1, "weights": {"x": torch.ones(3)}})

    def torn(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.training.state.torch.save", torn)
    with pytest.raises(UserError, match="No space left"):
        save_state(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert read_state(tmp_path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_state_is_one_sentence_that_costs_no_run(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"damaged.* another --run") as error:
        read_state(tmp_path)
    assert "--fresh" not in str(error.value)


def test_every_flipped_bit_is_found(tmp_path):
    save_state(tmp_path, {"step": 1, "weights": {"x": torch.ones(300)}})
    whole, choose = (tmp_path / STATE).read_bytes(), random.Random(0)
    for _ in range(150):
        data = bytearray(whole)
        data[choose.randrange(len(data))] ^= 1 << choose.randrange(8)
        (tmp_path / STATE).write_bytes(data)
        with pytest.raises(UserError, match=r"damaged|not written by a run"):
            read_state(tmp_path)


def test_a_state_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1})

    def refuse(*args, **options):
        raise PermissionError(13, "Permission denied", str(tmp_path / STATE))

    for opens in ("builtins.open", "common.training.state.torch.load", "pathlib.Path.stat"):
        with monkeypatch.context() as patch:
            patch.setattr(opens, refuse)
            with pytest.raises(UserError, match=r"state.pt cannot be read \(Permission denied\)"):
                read_state(tmp_path)


@pytest.mark.parametrize(
    "state",
    [[1, 2], {}, 3, torch.ones(2), {"version": 4}, {"version": 3, "step": "x"}, {"version": 3, "step": -1}],
    ids=str,
)
def test_an_object_of_another_kind_is_one_sentence(tmp_path, state):
    torch.save(state, tmp_path / STATE)
    with pytest.raises(UserError, match=r"state.pt (was not written by a run|is damaged)"):
        read_state(tmp_path)


def config(run):
    return config_from_dict({
        "family": "baselines", "data": {"size": 32}, "batch_size": 4, "sample_every": 0, "device": "cpu", "steps": 2,
        "optim": {"ema": 0.9}, "run": str(run),
    })  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The state of a small run of two steps."""
    run = tmp_path_factory.mktemp("runs") / "a"
    train(config(run), QUIET)
    return run


def broken(state, path, change):
    """A state in which the value at a path of keys is changed, or removed if the change is None."""
    copy = dict(state) if isinstance(state, dict) else list(state)
    key, *rest = path
    if rest:
        copy[key] = broken(copy[key], rest, change)
    elif change is None:
        del copy[key]
    else:
        copy[key] = change(copy[key])
    return copy


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (["weights", 0], lambda x: x[:1]),
        (["weights", 0], lambda x: x.double()),
        (["weights", 0], lambda x: "words"),
        (["ema", 0], None),
        (["optimizers", "network", "state", 0, "exp_avg"], lambda x: x.flatten()[:1]),
        (["optimizers", "network", "state", 0, "exp_avg"], lambda x: x[:1]),
        (["optimizers", "network", "param_groups"], lambda x: []),
        (["optimizers", "network"], lambda x: 5),
        (["plateau"], lambda x: {"worst": 1}),
        (["training"], lambda x: []),
        (["step"], None),
        (["content"], None),
    ],
    ids=lambda x: "-".join(map(str, x)) if isinstance(x, list) else "",
)
def test_a_state_of_another_structure_or_shape_is_refused(trained, tmp_path, path, change):
    run = tmp_path / "a"
    run.mkdir()
    state = torch.load(trained / STATE, weights_only=True)
    first = {"weights": next(iter(state["weights"])), "ema": next(iter(state["ema"]))}
    save_state(
        run, broken(state, [first[path[0]] if key == 0 and i == 1 else key for i, key in enumerate(path)], change)
    )
    before = (run / STATE).read_bytes()
    with pytest.raises(UserError, match=r"state.pt does not fit this run"):
        Run(config(run), QUIET)
    assert (run / STATE).read_bytes() == before


def test_a_state_without_checksum_still_resumes(trained, tmp_path):
    state = torch.load(trained / STATE, weights_only=True)
    del state["validation"]
    torch.save(state | {"version": 3}, tmp_path / STATE)
    run = Run(config(tmp_path), QUIET)
    assert run.step == 2
    run.close()
