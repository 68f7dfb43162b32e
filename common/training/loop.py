"""The one training loop, for every family.

What is random is a function of (seed, step, shard), where a shard is the part of a step's batch that one process
takes in one accumulation step. So a run that was killed goes on exactly, and two processes compute what one process
computes that accumulates twice.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, closing
from pathlib import Path

import torch
from torch import Tensor, nn

from common.data.batches import derived_seed
from common.training.config import TrainConfig
from common.training.meter import Meter
from common.training.run import Run
from common.training.signals import StopRequest
from common.utils.errors import Stopped
from common.utils.progress import Progress, clock


def train(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Train one colorizer, or go on with its training; returns the run folder.

    Raises what `Run` raises, NonFiniteLoss where the training diverges (the last saved state is from before), and
    Interrupted where SIGINT or SIGTERM asked it to stop, after saving.
    """
    with closing(Run(config, progress)) as run:
        return _loop(run, config)


def _loop(run: Run, config: TrainConfig) -> Path:
    loop = config.loop
    colorizer, optimizers, accelerator = run.colorizer, run.optimizers, run.accelerator
    meter = Meter(every=loop.log_every if run.device.type == "cuda" else 1)
    colorizer.train()

    with StopRequest() as stop, run.progress.task(run.folder.name) as report:
        started = time.perf_counter() - run.seconds
        share, asked = run.agree(run.share_done(), stop.asked)
        if share >= 1:
            run.progress.say(
                "it is finished already: a larger --steps, --epochs or --budget goes on, --run begins another"
            )
        while share < 1 and not asked:
            run.set_learning_rates(share)

            for part in range(loop.accumulate):
                shard = accelerator.process_index * loop.accumulate + part
                last = part == loop.accumulate - 1
                torch.manual_seed(derived_seed(loop.seed, run.step, shard))  # dropout and the like
                batch = run.data.batch(run.step, shard, run.shards)
                with ExitStack() as unsynced:
                    if not last:  # processes average their gradients once a step
                        for network in colorizer.networks().values():
                            unsynced.enter_context(accelerator.no_sync(network))
                    for objective in colorizer.training_step(batch):
                        meter.add(run.step, objective)
                        accelerator.backward(objective.loss / loop.accumulate)
                        if last:
                            name = objective.optimizer
                            norm = clip_gradients(colorizer.networks()[name], config.optim.clip)
                            meter.add_norm(run.step, name, norm)
                            optimizers[name].step()
                            optimizers[name].zero_grad(set_to_none=True)
            meter.check(run.step, optimizers)
            run.ema.update(colorizer, run.step)

            run.step += 1
            run.seconds = time.perf_counter() - started
            meter.images += loop.batch_size
            share, asked = run.agree(run.share_done(), stop.asked)
            colorizer.after_step(share)

            if run.step % loop.log_every == 0 or share >= 1 or asked:
                scalars = meter.means(optimizers)
                run.logger.scalars("train", run.step, scalars)
                report(share, 1.0, f"step {run.step}  {Meter.short(scalars)}")
            if run.step % loop.eval_every == 0 or share >= 1:
                meter.check(run.step, optimizers, now=True)
                run.validate()
                share, asked = run.agree(run.share_done(), stop.asked)  # it may stop early
            ends = share >= 1
            if loop.sample_every and (run.step % loop.sample_every == 0 or ends):
                run.draw_samples()
            if loop.keep_every and run.step % loop.keep_every == 0:
                meter.check(run.step, optimizers, now=True)
                run.publish(f"weights-{run.step:08d}.safetensors")
            if run.step % loop.save_every == 0 or ends or asked:
                meter.check(run.step, optimizers, now=True)
                run.save()

    if asked and not run.saved:
        run.save()
    accelerator.wait_for_everyone()
    if asked and share < 1:
        raise Interrupted(run.step, run.folder, asked)
    rate = loop.batch_size * run.step / run.seconds if run.seconds else 0.0
    run.progress.say(f"{run.folder}: {run.step} steps in {clock(run.seconds)}, {rate:.1f} images/s")
    return run.folder


def clip_gradients(network: nn.Module, limit: float) -> Tensor:
    """Scale the gradients of a network to a norm of at most `limit` (0: leave them); returns the norm before."""
    return nn.utils.clip_grad_norm_(network.parameters(), limit or math.inf)


class Interrupted(Stopped):
    """The run was asked to stop, and has saved itself."""

    def __init__(self, step: int, run_dir: Path, signal: int) -> None:
        super().__init__(f"stopped at step {step}, saved in {run_dir}: the same command goes on from there", signal)
