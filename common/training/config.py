"""The configuration of a training run: dataclasses, each of which checks its own values."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal

import yaml

from common.data.augment import AugmentConfig
from common.data.batches import DataConfig
from common.evaluation.metrics import METRICS, monitorable_metrics
from common.utils.errors import UserError
from common.utils.files import write_atomically
from common.utils.options import check_value, refuse_unused


@dataclass
class OptimConfig:
    """Optimizers, one for each network of the family, all with the same settings.

    Attributes:
        optimizer: algorithm.
        lr: peak learning rate.
        lr_ratio: factor on the learning rate per network, as in {discriminator: 0.5}.
        betas: decay of the first and second moment in Adam and AdamW; the first is SGD's momentum.
        weight_decay: decoupled in AdamW, L2 in Adam and SGD.
        clip: maximum gradient norm of each network (0: no clipping).
        schedule: of the learning rate. `linear`: constant for the first half of the run, then linear decay to 0
            (pix2pix); `cosine`: decay to 0 after the warm-up; `plateau`: multiplied by `plateau_factor` when `monitor`
            stops improving.
        warmup: fraction of the run over which the learning rate rises from 0.
        plateau_factor: factor of the schedule `plateau`.
        plateau_min: factor below which the schedule `plateau` does not fall.
        plateau_patience: validations without improvement before the schedule `plateau` applies its factor.
        ema: EMA decay of the weights. If above 0, the averaged weights are validated and saved.
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
    plateau_min: float = 0.0
    plateau_patience: int = 3
    ema: float = 0.0

    def __post_init__(self) -> None:
        check_value("optim.lr", self.lr, 0 < self.lr < math.inf, "a number above 0")
        for name, ratio in self.lr_ratio.items():
            check_value(f"optim.lr_ratio.{name}", ratio, 0 < ratio < math.inf, "a number above 0")
        check_value("optim.betas", self.betas, all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        check_value("optim.weight_decay", self.weight_decay, self.weight_decay >= 0, "0 or more")
        check_value("optim.clip", self.clip, self.clip >= 0, "0 or more")
        check_value("optim.warmup", self.warmup, 0 <= self.warmup < 1, "a number in [0, 1)")
        check_value("optim.ema", self.ema, 0 <= self.ema < 1, "a number in [0, 1)")
        check_value("optim.plateau_factor", self.plateau_factor, 0 < self.plateau_factor < 1, "a number in (0, 1)")
        check_value("optim.plateau_min", self.plateau_min, 0 <= self.plateau_min <= 1, "a factor in [0, 1]")
        check_value("optim.plateau_patience", self.plateau_patience, self.plateau_patience >= 1, "1 or more")
        if self.schedule != "plateau":
            refuse_unused(
                "optim", self, ("plateau_factor", "plateau_min", "plateau_patience"), f"the schedule {self.schedule}"
            )


@dataclass
class RunConfig:
    """Length and bookkeeping of a run. It stops as soon as one of `steps`, `epochs` and `budget` is reached.

    Attributes:
        run: folder of the run; the same command resumes it.
        init: published weights to start from (an installed name, a run folder or a .safetensors file). Their card gives
            the defaults of family, model, augment, optim, batch_size, data.size and data.margin, and 0.3 times its
            learning rate. The weights are read once: a resumed run does not need them.
        fresh: delete the files of the run in its folder, and no others, and start again.
        steps: optimizer steps.
        epochs: passes over the training photographs.
        budget: training time, as in 90s, 20m or 2h. The speed is measured at the start and the budget converted to a
            fixed number of steps, so a run can end earlier or later.
        batch_size: photographs per step, over all processes.
        accumulate: number of sub-batches that each process splits its part of a batch into, to save memory.
        seed: random seed.
        device: auto uses a GPU if available.
        precision: auto is bf16 autocast if the device has hardware support for bf16, else fp32.
        compile: torch.compile (default: on CUDA only).
        log_every: write a log entry every so many steps.
        eval_every: validate every so many steps (default: 20 times per run).
        sample_every: write a sample sheet every so many steps (0: never).
        samples: photographs on a sample sheet.
        save_every: save a checkpoint every so many steps.
        keep_every: keep a permanent copy of the weights every so many steps (0: never).
        monitor: validation metric that selects `best.safetensors`, for the schedule `plateau` and for `early_stop`.
        early_stop: number of validations without improvement after which the run stops (0: never).
    """

    run: str = "runs/unnamed"
    init: str | None = None
    fresh: bool = False
    steps: int | None = None
    epochs: float | None = None
    budget: str | None = None
    batch_size: int = 32
    accumulate: int = 1
    seed: int = 0
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool | None = None
    log_every: int = 50
    eval_every: int | None = None
    sample_every: int = 500
    samples: int = 8
    save_every: int = 500
    keep_every: int = 0
    monitor: str = "rmse_ab"
    early_stop: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "epochs", "eval_every"):
            value = getattr(self, name)
            check_value(name, value, value is None or 0 < value < math.inf, "a number above 0")
        for name in ("batch_size", "accumulate", "log_every", "samples", "save_every"):
            check_value(name, getattr(self, name), getattr(self, name) >= 1, "1 or more")
        for name in ("sample_every", "keep_every", "early_stop"):
            check_value(name, getattr(self, name), getattr(self, name) >= 0, "0 or more")
        check_value("seed", self.seed, 0 <= self.seed < 2**63, "a whole number from 0 to 2^63 - 1")
        check_value("monitor", self.monitor, self.monitor in monitorable_metrics(), ", ".join(monitorable_metrics()))
        seconds(self.budget)


@dataclass
class TrainConfig:
    """Everything that defines a run. `model` holds the options of the family's `build` function."""

    family: str
    model: dict
    data: DataConfig
    augment: AugmentConfig
    optim: OptimConfig
    loop: RunConfig

    def __post_init__(self) -> None:
        if self.model.get("size", 0) is None:  # the depth of some networks depends on the size of the data
            self.model = self.model | {"size": self.data.size}

    def to_dict(self) -> dict:
        """Convert to the nested dict of `config.yaml` and of cards. The fields of `loop` are at the top level."""
        out = asdict(self)
        optim = out["optim"] | {"betas": list(out["optim"]["betas"])}
        return {"family": self.family, "model": out["model"], "data": out["data"], "augment": out["augment"],
                "optim": optim, **out["loop"], "fresh": False}  # fmt: skip

    def save(self, path: Path) -> None:
        """Write the resolved config. Training with this file repeats the run."""
        text = yaml.safe_dump(self.to_dict(), sort_keys=False)
        write_atomically(path, lambda p: p.write_text(text))

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value of `monitor` is better."""
        return METRICS[self.loop.monitor].better != "lower"


GROUPS = {"data": DataConfig, "augment": AugmentConfig, "optim": OptimConfig}
RUN_OPTIONS = [f.name for f in fields(RunConfig)]


def seconds(budget: str | None) -> float | None:
    """ "90s", "20m", "1.5h" -> seconds. Raises UserError for anything else."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget.strip())
    check_value("budget", budget, match and float(match[1]) > 0, "a time such as 90s, 20m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def load_config(path: Path) -> dict:
    """A config file as a dict. Raises UserError where it cannot be read or is not a YAML mapping."""
    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"config {path} cannot be read ({error.strerror}): check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config {path} is not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(values, dict):
        raise UserError(f"config {path} holds no options: expected lines such as 'steps: 1000'")
    return values
