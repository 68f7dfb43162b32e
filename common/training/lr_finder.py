"""Learning-rate range test (Smith 2017), as fastai does it, on the training step of any family."""

from __future__ import annotations

import tempfile
import warnings
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from common.training.config import OptimConfig, TrainConfig
from common.training.meter import Meter, NonFiniteLoss
from common.training.run import Run
from common.training.run_dir import check_run_dir, mark_run_dir
from common.training.step import train_step
from common.utils.distributed import join_processes
from common.utils.errors import UserError
from common.utils.files import user_path
from common.utils.progress import Progress

FOLDER, CURVE = "lr_find", "lr_find.png"
LOWEST, HIGHEST = 1e-7, 10.0  # learning rates; these, the smoothing and the parts left out are fastai's defaults
_SMOOTHING, _DIVERGED, _LEFT_OUT = 0.98, 4.0, 5


@dataclass(frozen=True)
class RangeTest:
    """Result of a range test.

    Attributes:
        optimizer: whose loss was recorded: the first that the family updates in a step (the generator in a GAN).
        lrs: values of `optim.lr`, one per step.
        losses: smoothed loss at each of them.
        valley, steep: fastai's suggestions for `optim.lr`.
        planned: steps of the whole test; it ends earlier if the loss diverges.
    """

    optimizer: str
    lrs: list[float]
    losses: list[float]
    valley: float
    steep: float
    planned: int

    def describe(self) -> str:
        """The suggestions, and how they were found, in two lines."""
        ended = "the loss diverged there" if len(self.lrs) < self.planned else "the loss did not diverge"
        return (
            f"loss of the {self.optimizer} over {len(self.lrs)} steps, optim.lr from {LOWEST:g} to {self.lrs[-1]:.2g}"
            f" ({ended})\nsuggestions for optim.lr: valley {self.valley:.2g}, steep {self.steep:.2g}"
        )


def find_lr(config: TrainConfig, steps: int = 100, progress: Progress | None = None) -> RangeTest:
    """Train from the start of a run while `optim.lr` grows exponentially, and record the loss.

    The steps are those of the run (batches, augmentation, clipping, `lr_ratio`), without schedule, warm-up and EMA.
    They run in a temporary folder: no state of the run is read, and only the curve is written into its folder, as
    a PNG and for TensorBoard, in a subfolder. Raises what `Run` raises, and UserError if the loss diverges at once.
    """
    if join_processes().count > 1:
        raise UserError("--find_lr does not support torchrun: run it in one process")
    progress, run_dir = progress or Progress(), Path(config.loop.run)
    config = replace(config, loop=replace(config.loop, fresh=False))
    check_run_dir(config, run_dir)
    with user_path(run_dir, "choose another --run"):
        mark_run_dir(run_dir)
    unused = {f"plateau_{name}": getattr(OptimConfig, f"plateau_{name}") for name in ("factor", "patience")}
    optim = replace(config.optim, schedule="constant", warmup=0.0, ema=0.0, **unused)
    with tempfile.TemporaryDirectory() as folder:
        loop = replace(config.loop, run=folder, compile=False)
        with closing(Run(replace(config, optim=optim, loop=loop), progress)) as run:
            optimizer, lrs, losses = _record(run, steps, progress)
    result = RangeTest(optimizer, lrs, losses, *_suggestions(lrs, losses, steps), steps)
    with user_path(run_dir, "choose another --run"):
        _write(result, run_dir / FOLDER)
    return result


def _record(run: Run, steps: int, progress: Progress) -> tuple[str, list[float], list[float]]:
    """(the optimizer of the first objective, learning rates, smoothed losses) until the loss diverges."""
    schedule, name = _fastai().SchedExp(LOWEST, HIGHEST), ""
    lrs: list[float] = []
    losses: list[float] = []
    mean = 0.0
    with progress.task("learning-rate range test") as report:
        for step in range(steps):
            run.config.optim.lr, meter = float(schedule(step / steps)), Meter(check_every=1)
            try:
                train_step(run, meter)
            except NonFiniteLoss:
                break
            name = next(key for key in meter.sums if key.startswith("loss/"))
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * float(meter.sums[name]) / meter.counts[name]
            lrs.append(run.config.optim.lr)
            losses.append(mean / (1 - _SMOOTHING ** (step + 1)))
            report(step + 1, steps, f"lr {lrs[-1]:.1e}  loss {losses[-1]:.4g}")
            if 0 < _DIVERGED * min(losses) < losses[-1]:
                break
    return name.removeprefix("loss/"), lrs, losses


def _suggestions(lrs: list[float], losses: list[float], steps: int) -> tuple[float, float]:
    """fastai's `valley` and `steep`, on the points that its `lr_find` uses."""
    used = slice(steps // 10, -_LEFT_OUT)
    points: tuple[Tensor, Tensor] = (torch.tensor(lrs[used]), torch.tensor(losses[used]))
    if len(points[0]) < 2:
        raise UserError(f"the loss diverged after {len(lrs)} steps, at optim.lr {lrs[-1] if lrs else LOWEST:.2g}: it is"
                        " unstable at any learning rate, so check the loss and the photographs")  # fmt: skip
    return _fastai().valley(*points, steps)[0], _fastai().steep(*points, steps)[0]


def _fastai() -> ModuleType:
    """The module of fastai with its schedules and suggestions. The first import takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch.jit, which fastai uses
        from fastai.callback import schedule
    return schedule


def _write(result: RangeTest, folder: Path) -> None:
    """Draw the curve, as a PNG and for TensorBoard, in place of an earlier one."""
    from torch.utils.tensorboard import SummaryWriter

    folder.mkdir(exist_ok=True)
    for earlier in folder.glob("events.out.tfevents.*"):
        earlier.unlink()
    _draw(result, folder / CURVE)
    with SummaryWriter(str(folder)) as writer:
        for step, (lr, loss) in enumerate(zip(result.lrs, result.losses, strict=True)):
            writer.add_scalar("lr_find/lr", lr, step)
            writer.add_scalar(f"lr_find/loss/{result.optimizer}", loss, step)
        writer.add_text("lr_find", result.describe())
        writer.add_image("lr_find", np.asarray(Image.open(folder / CURVE).convert("RGB")), dataformats="HWC")


def _draw(result: RangeTest, path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    shown = slice(None, -_LEFT_OUT)  # the last losses, which have diverged, would set the scale
    axis.semilogx(result.lrs[shown], result.losses[shown], linewidth=1.8, color="0.25")
    for name, color, marker in (("valley", "tab:blue", "o"), ("steep", "tab:orange", "s")):
        lr = getattr(result, name)
        at = int(np.abs(np.log(np.array(result.lrs) / lr)).argmin())
        axis.plot(lr, result.losses[at], marker, color=color, markersize=9, label=f"{name}: {lr:.2g}")
    axis.set_xlabel("optim.lr")
    axis.set_ylabel(f"loss of the {result.optimizer}, smoothed")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
