"""The configuration of a training run: dataclasses, YAML in and out, flags, and one-line errors.

A family's model options are the typed keyword arguments of its `build` function, so they are checked and shown
by --help like all others. Nothing in a config is imported by path.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import jsonargparse
import yaml

from common.data.augment import AugmentConfig
from common.data.batches import DataConfig
from common.evaluation.metrics import METRICS, monitorable_metrics
from common.registry import families, family_builder
from common.utils.errors import UserError
from common.utils.files import write_atomically
from common.utils.options import option_names


@dataclass
class OptimConfig:
    """Optimizers, one for each network of the family, all made alike.

    Attributes:
        optimizer: which one.
        lr: peak learning rate.
        lr_ratio: factor on the learning rate of a network, by its name, as in {discriminator: 0.5}.
        betas: momentum and second-moment decay of Adam and AdamW; the first is SGD's momentum.
        weight_decay: decoupled for AdamW, L2 for Adam and SGD.
        clip: largest norm of the gradient of each network (0: no clipping).
        schedule: `linear` is constant for the first half of the run, then falls to 0 (pix2pix); `cosine` falls
            to 0 after the warm-up; `plateau` is multiplied by `plateau_factor` when `monitor` stops improving.
        warmup: share of the run over which the rate rises from 0.
        plateau_factor: what the rate is multiplied by.
        plateau_patience: validations without improvement before it is.
        ema: decay of the moving average of the weights, which is what is measured and published (0: none).
    """

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3
    lr_ratio: dict[str, float] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip: float = 0.0
    schedule: Literal["constant", "linear", "cosine", "plateau"] = "cosine"
    warmup: float = 0.02
    plateau_factor: float = 0.5
    plateau_patience: int = 3
    ema: float = 0.0

    def __post_init__(self) -> None:
        _check("optim.lr", self.lr, self.lr > 0, "a number above 0")
        _check("optim.betas", self.betas, all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        _check("optim.weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        _check("optim.clip", self.clip, self.clip >= 0, "0 or more")
        _check("optim.warmup", self.warmup, 0 <= self.warmup < 1, "a share in [0, 1)")
        _check("optim.ema", self.ema, 0 <= self.ema < 1, "a number in [0, 1)")
        _check("optim.plateau_factor", self.plateau_factor, 0 < self.plateau_factor < 1, "a number in (0, 1)")
        _check("optim.plateau_patience", self.plateau_patience, self.plateau_patience >= 1, "1 or more")


@dataclass
class RunConfig:
    """How long and how a run goes. It ends with the first of `steps`, `epochs` and `budget` that is given.

    Attributes:
        run: folder of the run; the same command goes on where it was.
        fresh: delete what is in the run folder and begin anew.
        steps: optimizer steps.
        epochs: passes over the training photographs.
        budget: time for training, as in 90s, 20m or 2h; schedules then follow the clock.
        batch_size: photographs a step, over all processes.
        accumulate: a step's batch goes through in so many parts, to save memory.
        seed: of everything that is random.
        device: auto takes a GPU where there is one.
        precision: auto is bf16 autocast where the processor is fast at it, else fp32.
        compile: torch.compile (default: on CUDA only).
        log_every: steps between two lines of the log.
        eval_every: steps between two validations.
        sample_every: steps between two sample sheets (0: none).
        samples: photographs on a sample sheet.
        save_every: steps between two saved states.
        keep_every: steps between two sets of weights kept for good (0: none).
        monitor: validation metric that `best.safetensors`, `plateau` and `early_stop` follow.
        early_stop: validations without improvement after which the run ends (0: never).
    """

    run: str = "runs/unnamed"
    fresh: bool = False
    steps: int | None = None
    epochs: float | None = None
    budget: str | None = None
    batch_size: int = 32
    accumulate: int = 1
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compile: bool | None = None
    log_every: int = 50
    eval_every: int = 500
    sample_every: int = 500
    samples: int = 8
    save_every: int = 500
    keep_every: int = 0
    monitor: str = "rmse_ab"
    early_stop: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "epochs"):
            value = getattr(self, name)
            _check(name, value, value is None or value > 0, "a number above 0")
        for name in ("batch_size", "accumulate", "log_every", "eval_every", "samples", "save_every"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("sample_every", "keep_every", "early_stop", "seed"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        _check(
            "precision",
            self.precision,
            self.precision != "fp16",
            "auto, bf16 or fp32 (fp16 overflows in Lab)",
        )
        _check("monitor", self.monitor, self.monitor in monitorable_metrics(), ", ".join(monitorable_metrics()))
        seconds(self.budget)


@dataclass
class TrainConfig:
    """Everything that defines a run."""

    family: str
    model: dict
    data: DataConfig
    augment: AugmentConfig
    optim: OptimConfig
    loop: RunConfig

    def __post_init__(self) -> None:
        if self.model.get("size", 0) is None:  # a network whose depth depends on the size follows the data
            self.model = self.model | {"size": self.data.size}

    def to_dict(self) -> dict:
        """As nested plain values: what `config.yaml` and the cards hold. The loop's fields stand at the top."""
        out = asdict(self)
        optim = out["optim"] | {"betas": list(out["optim"]["betas"])}
        return {"family": self.family, "model": out["model"], "data": out["data"], "augment": out["augment"],
                "optim": optim, **out["loop"], "fresh": False}  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the resolved config; running it again repeats the run."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        write_atomically(path, lambda p: p.write_text(text))

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of `monitor` is a better one."""
        return METRICS[self.loop.monitor].better != "lower"


def seconds(budget: str | None) -> float | None:
    """ "90s", "20m", "1.5h" -> seconds. Raises UserError for anything else."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    _check("budget", budget, match and float(match[1]) > 0, "a time such as 90s, 20m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _check(key: str, value: object, good: object, takes: str) -> None:
    if not good:
        raise UserError(f"{key} is {value}: it takes {takes}")


_GROUPS = {"data": DataConfig, "augment": AugmentConfig, "optim": OptimConfig}


def parse_config(argv: list[str], description: str, prog: str) -> TrainConfig:
    """Command line -> config. --config FILE gives values, later flags win.

    Raises UserError with one line that names the key, what it got and what it takes.
    """
    family, files = _first_look(argv)
    known = _known_keys(family)
    for file in files:
        for key in _keys(file):
            if key not in known:
                raise UserError(_unknown(key, known))
    parser = jsonargparse.ArgumentParser(
        prog=prog,
        description=description,
        exit_on_error=False,
        default_env=False,
        parser_mode="yaml",
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="YAML file of options")
    parser.add_argument("--family", type=str, default=family, help=f"one of {', '.join(families())}")
    parser.add_class_arguments(RunConfig, help="run")
    for group, config in _GROUPS.items():
        parser.add_class_arguments(config, group)
    if family:
        parser.add_function_arguments(family_builder(family), "model")
    try:
        args = parser.parse_args(argv)
    except jsonargparse.ArgumentError as error:
        raise UserError(_one_line(str(error), known)) from None
    if not family:
        raise UserError(f"no family is given: use --config FILE or --family with one of {', '.join(families())}")
    values = args.clone()
    loop = RunConfig(**{f.name: getattr(values, f.name) for f in fields(RunConfig)})
    groups = {name: cls(**_plain(getattr(values, name))) for name, cls in _GROUPS.items()}
    return TrainConfig(family=family, model=_plain(values.get("model") or {}), loop=loop, **groups)


def load_config(path: Path) -> dict:
    """A config file as a dict. Raises UserError where it is missing or no YAML mapping."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"config {path} cannot be read ({error.strerror}): check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {path} is no YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"config {path} holds no options: it takes lines such as 'steps: 1000'")
    return values


def _first_look(argv: list[str]) -> tuple[str | None, list[dict]]:
    """The family that the command line or its config files name, and those files, before the whole is parsed."""
    family, files = None, []
    for i, word in enumerate(argv):
        key, _, value = word.partition("=")
        value = value or (argv[i + 1] if i + 1 < len(argv) else "")
        if key == "--config":
            files.append(load_config(Path(value)))
            family = files[-1].get("family", family)
        elif key == "--family":
            family = value
    if family is not None:
        family_builder(str(family))
    return family, files


def _known_keys(family: str | None) -> list[str]:
    keys = ["family", *(f.name for f in fields(RunConfig))]
    keys += [f"{group}.{f.name}" for group, config in _GROUPS.items() for f in fields(config)]
    return keys + [f"model.{name}" for name in (option_names(family_builder(family)) if family else ())]


def _keys(values: dict, prefix: str = "") -> list[str]:
    """Dotted keys of a config file; groups, and groups of the model, are opened, other mappings are values."""
    keys = []
    for key, value in values.items():
        group = (key in (*_GROUPS, "model") and not prefix) or prefix == "model."
        keys += _keys(value, f"{prefix}{key}.") if group and isinstance(value, dict) else [f"{prefix}{key}"]
    return keys


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key.removeprefix("--"), known, 1)
    return f"unknown option {key}: " + (f"did you mean {close[0]}?" if close else "--help lists all")


def _plain(namespace: object) -> dict:
    return namespace.as_dict() if hasattr(namespace, "as_dict") else dict(namespace)


def _one_line(message: str, known: list[str]) -> str:
    """jsonargparse explains itself over many lines; keep the key, what it got, and what it takes."""
    text = " ".join(message.split())
    if match := re.search(r"[Uu]nrecognized arguments?: ([^\s=]+)", text):
        return _unknown(match[1], known)
    if match := re.search(
        r"Parser key \"([\w.]+)\":.* Problem with given class_path '[\w.]+': (.*?)(?: - | Given value)", text
    ):
        return f"{match[1]} has an entry that {_of_entry(match[2])}"
    key = re.search(r"[\"'](?:--)?([\w.]+)[\"']:", text)
    got = re.search(r"[Gg]iven value: (.*?)$|Got value: (.*?)(?: Given|$)", text)
    takes = re.findall(r"Expected an? (.+?)(?:\. Got| Given| -|$)", text)
    if key and takes and got:
        kinds = dict.fromkeys(_in_words(kind) for kind in takes)
        return f"{key[1]} is {(got[1] or got[2]).strip()}: it takes {' or '.join(kinds)}"
    return f"{key[1]}: {text}" if key else text


def _of_entry(problem: str) -> str:
    """What is wrong with one entry of a list of groups of options."""
    if match := re.search(r"Option '(\w+)' is not accepted", problem):
        return f"has the option {match[1]}: there is none of that name"
    if match := re.search(r"arguments are required: (.+)", problem):
        return f"lacks {match[1]}: give it"
    match = re.search(r"Parser key \"(\w+)\": Expected an? (.+?)\. Got value: (.*)", problem)
    return f"has the {match[1]} {match[3]}: it takes {_in_words(match[2])}" if match else f"cannot be read ({problem})"


def _in_words(kind: str) -> str:
    if "Literal[" in kind:
        return kind.split("[", 1)[1].rstrip("]").replace("'", "")
    name = re.sub(r"<class '(\w+)'>", r"\1", kind)
    words = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a word",
             "tuple": "a list of two numbers", "NoneType": "null", "dict": "a mapping", "list": "a list"}  # fmt: skip
    return words.get(name, name)


class _HelpFormatter(jsonargparse.DefaultHelpFormatter):
    """Keeps the line breaks of the description, where the examples are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in text.splitlines())
