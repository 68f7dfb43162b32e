"""The training loop, for every family.

All random numbers are functions of (seed, step, shard), where a shard is the part of a step's batch that one process
takes in one accumulation step. A resumed run therefore continues exactly, and two processes compute what one process
computes with two accumulation steps.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from common.training.budget import plan
from common.training.config import TrainConfig
from common.training.meter import Meter
from common.training.run import Run
from common.training.signals import StopRequest
from common.training.step import train_step
from common.utils.clock import clock
from common.utils.errors import Stopped
from common.utils.progress import Progress


class Interrupted(Stopped):
    """A signal stopped the run, and its state was saved."""

    def __init__(self, step: int, run_dir: Path, signal: int) -> None:
        super().__init__(f"stopped at step {step} and saved in {run_dir}: the same command resumes the run", signal)


def train(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Train a colorizer, or resume its training; returns the run folder.

    Raises what `Run` raises, NonFiniteLoss where the training diverges, and Interrupted after SIGINT or SIGTERM.
    """
    with closing(Run(config, progress)) as run:
        return _loop(run)


def _loop(run: Run) -> Path:
    config = run.config.loop
    meter = Meter(check_every=config.log_every if run.device.type == "cuda" else 1)
    with StopRequest() as stop, run.progress.task(run.folder.name) as report:
        if run.step == 0:
            run.validate(initial=True)
        plan(run)
        stopped = 0
        if run.finished:
            run.logger.say("the run is finished: resume it with a larger --steps, --epochs or --budget")
        while not (run.finished or stopped):
            train_step(run, meter)
            report(run.step, run.last_step)
            if run.due(config.log_every):
                scalars = meter.means(run.optimizers)
                run.logger.scalars("train", run.step, scalars)
                report(run.step, run.last_step, f"step {run.step}  {Meter.short(scalars)}")
                stopped = run.any_process(stop.signal)
            elif run.processes.count == 1:
                stopped = stop.signal
            with meter.paused():
                if run.due(run.eval_every):
                    meter.check(run.step, run.optimizers, now=True)
                    run.validate()
                if run.due(config.sample_every):
                    run.draw_samples()
                if run.due(config.keep_every, last=False):
                    meter.check(run.step, run.optimizers, now=True)
                    run.publish(f"weights-{run.step:08d}.safetensors")
                if run.due(config.save_every) or stopped or run.finished:
                    meter.check(run.step, run.optimizers, now=True)
                    run.save()
    if stopped and not run.finished:
        raise Interrupted(run.step, run.folder, stopped)
    rate = config.batch_size * run.step / run.seconds if run.seconds else 0.0
    run.logger.say(f"{run.folder}: {run.step} steps in {clock(run.seconds)}, {rate:.1f} images/s")
    return run.folder
