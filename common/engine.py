"""The one training loop, for every family.

What is random is a function of (seed, step, shard), where a shard is the part of a step's batch that one process
takes in one accumulation step. So a run that was killed goes on exactly, and two processes compute what one process
does that accumulates twice.
"""

from __future__ import annotations

import math
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast
from torch import Tensor, nn

from common.checkpoint import (
    BEST,
    STATE,
    WEIGHTS,
    Ema,
    averaged_weights,
    bare_state_dict,
    load_bare_state_dict,
    parameter_count,
    read_state,
    save_state,
    save_weights,
)  # fmt: skip
from common.colorizer import Colorizer, build_colorizer
from common.config import OptimConfig, TrainConfig, seconds
from common.data import TrainingData, derived_seed, training_packs
from common.device import pick_device, pick_precision
from common.errors import UserError
from common.evaluation import TRAINING_METRICS, evaluate, model_predictor
from common.grids import colour_columns, sheet, spread_rows
from common.meter import Meter
from common.packing import Pack
from common.progress import Progress, clock
from common.rundir import make_card, prepare_run_dir
from common.schedule import Plateau, lr_factor
from common.signals import StopRequest
from common.tracking import Tracker

COLLAPSE_RATIO, COLLAPSE_PATIENCE = 0.25, 3


def train(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Train one colorizer, or go on with its training; returns the run folder.

    Raises UserError where the configuration and the machine, the data or the run folder do not go together, and
    NonFiniteLoss where the training diverged. Interrupted by SIGINT or SIGTERM it saves and raises `Interrupted`.
    """
    # ---- the machine
    loop, run_dir = config.loop, Path(config.loop.run)
    device = pick_device(loop.device)
    precision = pick_precision(loop.precision, device)
    AcceleratorState._reset_state()  # it is global: another run of this process may have set another precision
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="bf16" if precision == "bf16" else "no",
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )
    main, shards = accelerator.is_main_process, accelerator.num_processes * loop.accumulate
    if loop.batch_size % shards:
        raise UserError(f"batch_size is {loop.batch_size}: it takes a multiple of processes x accumulate, {shards}")
    progress = progress or Progress(quiet=not main)

    # ---- run folder, data, networks
    if main:
        prepare_run_dir(config, run_dir)
    accelerator.wait_for_everyone()
    train_pack, val_pack = training_packs(config.data, progress)
    data = TrainingData(train_pack, config.data.size, loop.batch_size, loop.seed, config.augment, accelerator.device)
    limits = [loop.steps, loop.epochs and math.ceil(loop.epochs * len(data.rows) / loop.batch_size)]
    last_step = min((n for n in limits if n), default=None)
    budget = seconds(loop.budget)
    if not (last_step or budget):
        raise UserError("the run has no end: give steps, epochs or budget")

    torch.manual_seed(loop.seed)
    colorizer = build_colorizer(config.family, **config.model).to(memory_format=torch.channels_last)
    colorizer.to(accelerator.device)
    if config.data.size % colorizer.multiple:
        raise UserError(f"data.size is {config.data.size}: this network takes multiples of {colorizer.multiple}")
    ema = Ema(colorizer, config.optim.ema)
    optimizers = {name: make_optimizer(name, net, config.optim) for name, net in colorizer.networks().items()}
    compiled = loop.compile if loop.compile is not None else accelerator.device.type == "cuda"
    for name, network in colorizer.networks().items():
        if compiled:
            network.compile()
        setattr(colorizer, name, accelerator.prepare(network))
    plateau = Plateau(config.higher_is_better)

    # ---- go on where the run was
    step, spent, low_colour = 0, 0.0, 0
    state = read_state(run_dir, accelerator.device)
    if state:
        step, spent, low_colour = state["step"], state["seconds"], state["low_colour"]
        load_bare_state_dict(colorizer, state["weights"])
        ema.average = state["ema"]
        plateau = Plateau(config.higher_is_better, **state["plateau"])
        for name, optimizer in optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
    tracker = Tracker(run_dir if main else None, step, config.to_dict(), progress)
    parameters = ", ".join(f"{n} {parameter_count(net) / 1e6:.2f} M" for n, net in colorizer.networks().items())
    tracker.say(train_pack.said() + "\n" + val_pack.said())
    tracker.say(f"{config.family}: {parameters}; {accelerator.device}, {precision}, batch {loop.batch_size}")
    if state:
        tracker.say(f"{run_dir} goes on at step {step}, after {clock(spent)}")

    def snapshot() -> dict:
        return {
            "step": step, "seconds": spent, "low_colour": low_colour, "weights": bare_state_dict(colorizer),
            "ema": ema.average, "optimizers": {n: o.state_dict() for n, o in optimizers.items()},
            "plateau": {"best": plateau.best, "since_best": plateau.since_best, "since_cut": plateau.since_cut,
                        "factor": plateau.factor},
        }  # fmt: skip

    def publish(name: str) -> None:
        card = make_card(config, train_pack, colorizer, step, spent, precision, scores)
        save_weights(run_dir / name, ema.state(colorizer), colorizer.training_only, card)

    def done_share() -> float:
        share = max(step / last_step if last_step else 0.0, spent / budget if budget else 0.0)
        if loop.early_stop and plateau.since_best >= loop.early_stop:
            share = 1.0
        if accelerator.num_processes > 1:  # clocks and signals differ: the first process decides for all
            words = torch.tensor([share, float(stop.asked)], dtype=torch.float64, device=accelerator.device)
            share, asked = broadcast(words).tolist()
            stop.asked = int(asked)
        return min(share, 1.0)

    # ---- the loop
    meter = Meter(loop.log_every if accelerator.device.type == "cuda" else 1)
    scores: dict[str, float] = state["scores"] if state else {}
    colorizer.train()
    with StopRequest() as stop, progress.task(run_dir.name) as report:
        started = time.perf_counter() - spent
        share = done_share()
        while share < 1 and not stop.asked:
            for name, optimizer in optimizers.items():
                rate = config.optim.lr * config.optim.lr_ratio.get(name, 1.0)
                for group in optimizer.param_groups:
                    group["lr"] = rate * lr_factor(config.optim, share) * plateau.factor
                optimizer.zero_grad(set_to_none=True)

            for part in range(loop.accumulate):
                shard = accelerator.process_index * loop.accumulate + part
                last = part == loop.accumulate - 1
                torch.manual_seed(derived_seed(loop.seed, step, shard))
                with ExitStack() as unsynced:
                    if not last:
                        for network in colorizer.networks().values():
                            unsynced.enter_context(accelerator.no_sync(network))
                    for objective in colorizer.training_step(data.batch(step, shard, shards)):
                        meter.add(step, objective.optimizer, objective.loss, objective.terms)
                        accelerator.backward(objective.loss / loop.accumulate)
                        if last:
                            network = colorizer.networks()[objective.optimizer]
                            meter.add_norm(objective.optimizer, clip_gradients(network, config.optim.clip))
                            optimizers[objective.optimizer].step()
            meter.check(step, optimizers)
            ema.update(colorizer, step)
            step += 1
            meter.images += loop.batch_size
            spent = time.perf_counter() - started
            share = done_share()
            final = share >= 1 or stop.asked

            if step % loop.log_every == 0 or final:
                train_scalars = meter.means(optimizers)
                tracker.scalars("train", step, train_scalars)
                report(share, 1.0, f"step {step}  {Meter.short(train_scalars)}")
            if step % loop.eval_every == 0 or share >= 1:
                with averaged_weights(colorizer, ema) as average:
                    scores = validate(average, val_pack, config.data.val_limit, accelerator.device)
                low_colour = low_colour + 1 if scores["colorfulness_ratio"] < COLLAPSE_RATIO else 0
                if low_colour == COLLAPSE_PATIENCE:
                    tracker.say(
                        f"warning: predictions have {scores['colorfulness_ratio']:.2f} of the true colourfulness for"
                        f" {COLLAPSE_PATIENCE} validations: they are turning grey-brown (see README, Collapse)"
                    )
                tracker.scalars("val", step, scores)
                tracker.say(f"step {step}: validation " + ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
                if plateau.update(scores[loop.monitor], config.optim) and main:
                    publish(BEST)
            if loop.sample_every and (step % loop.sample_every == 0 or share >= 1) and main:
                with averaged_weights(colorizer, ema) as average:
                    picture = sample_sheet(average, val_pack, loop.samples, config.family, accelerator.device)
                tracker.picture("samples", step, picture)
            if loop.keep_every and step % loop.keep_every == 0 and main:
                publish(f"weights-{step:08d}.safetensors")
            if (step % loop.save_every == 0 or final) and main:
                meter.check(step, optimizers, now=True)
                publish(WEIGHTS)
                save_state(run_dir, snapshot() | {"scores": scores, "config": config.to_dict()})

    if main and not (run_dir / STATE).exists():  # interrupted before the first step
        save_state(run_dir, snapshot() | {"scores": scores, "config": config.to_dict()})
    tracker.close()
    accelerator.wait_for_everyone()
    if stop.asked and share < 1:
        raise Interrupted(step, run_dir, stop.asked)
    rate = loop.batch_size * step / spent if spent else 0.0
    progress.say(f"{run_dir}: {step} steps in {clock(spent)}, {rate:.1f} images/s")
    return run_dir


class Interrupted(Exception):
    """The run was asked to stop, and has saved itself."""

    def __init__(self, step: int, run_dir: Path, signal: int) -> None:
        super().__init__(f"stopped at step {step}, saved in {run_dir}: the same command goes on from there")
        self.signal = signal


def make_optimizer(name: str, network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of one network. Raises UserError where `lr_ratio` names a network that is not there."""
    options: dict = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(network.parameters(), momentum=config.betas[0], **options)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(network.parameters(), betas=tuple(config.betas), foreach=True, **options)


def clip_gradients(network: nn.Module, limit: float) -> Tensor:
    """Scale the gradients of a network to a norm of at most `limit` (0: leave them); returns the norm before."""
    return nn.utils.clip_grad_norm_(network.parameters(), limit or math.inf, foreach=True)


def validate(colorizer: Colorizer, pack: Pack, limit: int, device: torch.device) -> dict[str, float]:
    """The cheap metrics on the first photographs of a pack, without intervals."""
    result = evaluate(
        {"model": model_predictor(colorizer)},
        pack,
        TRAINING_METRICS,
        limit=limit,
        device=device,
        intervals=False,
    )
    return {name: value["mean"] for name, value in result.table["model"].items()}


def sample_sheet(colorizer: Colorizer, pack: Pack, count: int, title: str, device: torch.device) -> np.ndarray:
    """A sheet grey | model | original of a fixed choice of photographs."""
    predictors = {title: model_predictor(colorizer)}
    return sheet({"": colour_columns(predictors, pack, spread_rows(pack, count), device)})
