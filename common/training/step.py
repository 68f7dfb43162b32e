"""One training step."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from common.data.batches import derived_seed
from common.training.meter import Meter
from common.training.run import Run


def train_step(run: Run, meter: Meter) -> None:
    """One update for each objective that the family yields, on the batch of the run's step.

    Raises NonFiniteLoss where a loss or gradient is NaN or infinite.
    """
    config = run.config
    run.set_learning_rates()
    for part in range(config.loop.accumulate):
        shard = run.processes.rank * config.loop.accumulate + part
        torch.manual_seed(derived_seed(config.loop.seed, run.step, shard))  # dropout, for example
        batch = run.batches.batch(run.step, shard, run.shards)
        last = part == config.loop.accumulate - 1
        with run.replicated(synchronize=last):
            for objective in run.objectives(batch):
                meter.add(run.step, objective)
                (objective.loss / config.loop.accumulate).backward()
                if last:
                    optimizer = run.optimizers[objective.optimizer]
                    norm = clip_gradients(run.networks[objective.optimizer], config.optim.clip)
                    meter.add_norm(run.step, objective.optimizer, norm)
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
    meter.check(run.step, run.optimizers)
    if run.average:
        run.average.update_parameters(run.colorizer)
    run.step += 1
    meter.images += config.loop.batch_size
    run.colorizer.hooks.after_step(run.fraction_done)


def clip_gradients(network: nn.Module, limit: float) -> Tensor:
    """Scale the gradients of a network to a norm of at most `limit` (0: no limit). Returns the norm before."""
    return nn.utils.clip_grad_norm_(network.parameters(), limit or math.inf)
