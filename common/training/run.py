"""What a training run holds between two steps, how it is saved and found again, and its periodic work."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs, broadcast, gather_object
from torch import nn

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
)
from common.colorizer import Batch, Colorizer
from common.data.batches import TrainingData, grey_photographs, training_packs
from common.evaluation.evaluate import TRAINING_METRICS, evaluate, model_predictor
from common.evaluation.sheets import color_columns, sheet, spread_indices
from common.registry import build_colorizer, without_downloads
from common.training.config import OptimConfig, TrainConfig, seconds
from common.training.logger import Logger
from common.training.run_dir import check_photographs, check_run_dir, hold_run_dir, last_step, make_card
from common.training.schedule import Plateau, lr_factor
from common.utils.device import pick_device, pick_precision
from common.utils.errors import UserError
from common.utils.progress import Progress, clock

COLLAPSE_RATIO, COLLAPSE_PATIENCE = 0.25, 3
DIAGNOSED = 64  # validation photographs that a family's diagnosis sees


class Run:
    """One run: machine, photographs, networks, optimizers, log; new, or as it was saved.

    Raises UserError where the configuration and the machine, the photographs or the run folder do not go together.
    """

    def __init__(self, config: TrainConfig, progress: Progress | None) -> None:
        self.config, self.folder = config, Path(config.loop.run)
        loop = config.loop

        device = pick_device(loop.device)
        self.precision = pick_precision(loop.precision, device)
        AcceleratorState._reset_state()  # it is global: another run of this process may have set another precision
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="bf16" if self.precision == "bf16" else "no",
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
        )
        self.device, self.main = self.accelerator.device, self.accelerator.is_main_process
        self.shards = self.accelerator.num_processes * loop.accumulate
        if loop.batch_size % self.shards:
            raise UserError(
                f"batch_size is {loop.batch_size}: it takes a multiple of processes x accumulate, {self.shards}"
            )

        self.progress = progress or Progress(quiet=not self.main)
        check_run_dir(config, self.folder)
        self.colorizer = self._build()
        self.train_pack, self.val_pack = training_packs(config.data, self.progress)
        unpaired = (
            grey_photographs(config.data, self.train_pack, self.val_pack, self.progress)
            if self.colorizer.unpaired
            else None
        )
        self.data = TrainingData(
            self.train_pack, config.data.size, loop.batch_size, loop.seed, config.augment, self.device, unpaired
        )
        self.last_step = last_step(loop, len(self.data.indices))
        self.budget = seconds(loop.budget)
        if not (self.last_step or self.budget):
            raise UserError("the run has no end: give steps, epochs or budget")

        if not self._resumes:
            self.colorizer.prepare(self.train_pack)
        self.ema = Ema(self.colorizer, config.optim.ema)
        self.optimizers = {n: make_optimizer(n, net, config.optim) for n, net in self.colorizer.networks().items()}
        torch.backends.cudnn.deterministic = True  # a resumed run is to be the same run
        on_cuda = self.device.type == "cuda" and any(map(shutil.which, ("cc", "gcc", "clang")))  # triton calls one
        compiles = loop.compile if loop.compile is not None else on_cuda
        for name, network in self.colorizer.networks().items():
            if compiles:
                network.compile()
            # what a stage freezes gives no gradient, which other processes would wait for
            self.accelerator.ddp_handler.find_unused_parameters = name in self.colorizer.partly_trained
            setattr(self.colorizer, name, self.accelerator.prepare(network))

        self.step, self.seconds, self.low_color = 0, 0.0, 0
        self.scores: dict[str, float] = {}
        self.plateau = Plateau(config.higher_is_better)
        self._held = ExitStack()
        try:
            self._open()
        except BaseException:
            self._held.close()
            raise

    @property
    def _resumes(self) -> bool:
        return not self.config.loop.fresh and self.saved

    def _build(self) -> Colorizer:
        """The colorizer, new, on the device; every mistake in its options is told before a photograph is read."""
        config = self.config
        torch.manual_seed(config.loop.seed)
        model = without_downloads(config.model) if self._resumes else config.model
        colorizer = build_colorizer(config.family, **model)
        if config.data.size % colorizer.multiple:
            raise UserError(f"data.size is {config.data.size}: this network takes multiples of {colorizer.multiple}")
        for name in config.optim.lr_ratio:
            if name not in colorizer.networks():
                known = ", ".join(colorizer.networks())
                raise UserError(f"optim.lr_ratio names {name}, which {config.family} has not: it takes {known}")
        if colorizer.repeats and config.loop.accumulate > 1:
            raise UserError(
                f"accumulate is {config.loop.accumulate}: with several updates of one network a step it takes 1"
            )
        if config.data.grey and not colorizer.unpaired:
            raise UserError(f"data.grey is {config.data.grey}: this {config.family} learns from pairs, leave it out")
        colorizer.begin_training(self.device, self.precision)
        return colorizer.to(device=self.device, memory_format=torch.channels_last)

    def _open(self) -> None:
        """Take hold of the run folder, go on where it was, and begin to log."""
        config = self.config
        if self.main:
            self._held.enter_context(hold_run_dir(config, self.folder))
        self.accelerator.wait_for_everyone()
        found = read_state(self.folder)
        if found:
            self._restore(found)
        self.logger = Logger(self.folder if self.main else None, self.step, config.to_dict(), self.progress)
        self._held.callback(self.logger.close)
        self.logger.say(self.train_pack.describe() + "\n" + self.val_pack.describe())
        sizes = ", ".join(f"{n} {parameter_count(net) / 1e6:.2f} M" for n, net in self.colorizer.networks().items())
        batch = config.loop.batch_size
        self.logger.say(f"{config.family}: {sizes}; {self.device}, {self.precision}, batch {batch}")
        if found:
            self.logger.say(f"{self.folder} goes on at step {self.step}, after {clock(self.seconds)}")

    def close(self) -> None:
        """Flush the log and let others into the run folder."""
        self._held.close()

    def _restore(self, state: dict) -> None:
        check_photographs(self.config, state, self.data.content)
        self.step, self.seconds, self.low_color = state["step"], state["seconds"], state["low_color"]
        self.scores = state["scores"]
        load_bare_state_dict(self.colorizer, state["weights"])
        self.ema.average = {key: value.to(self.device) for key, value in state["ema"].items()}
        self.plateau = Plateau(self.config.higher_is_better, **state["plateau"])
        of_each = state["training"]
        own = self.accelerator.process_index if len(of_each) == self.accelerator.num_processes else 0
        self.colorizer.load_training_state(of_each[own], self.device)
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def save(self) -> None:
        """Publish the weights and save the exact state."""
        self._average_statistics()
        of_each = gather_object([self.colorizer.training_state()])
        if not self.main:
            return
        self.publish(WEIGHTS)
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "low_color": self.low_color,
            "scores": self.scores,
            "weights": bare_state_dict(self.colorizer),
            "ema": self.ema.average,
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "plateau": self.plateau.state(),
            "content": self.data.content,
            "training": of_each,
        }
        save_state(self.folder, state)

    def publish(self, name: str) -> None:
        """Write the weights for use, averaged where the run averages, under a name in the run folder."""
        if self.main:
            card = make_card(
                self.config, self.train_pack, self.colorizer, self.step, self.seconds, self.precision, self.scores
            )
            save_weights(self.folder / name, self.ema.state(self.colorizer), card)

    @property
    def saved(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.folder / STATE).exists()

    def share_done(self) -> float:
        """How much of the run is done, 0..1: by steps or by the clock, whichever is further."""
        if self.config.loop.early_stop and self.plateau.since_best >= self.config.loop.early_stop:
            return 1.0
        by_steps = self.step / self.last_step if self.last_step else 0.0
        by_clock = self.seconds / self.budget if self.budget else 0.0
        return min(1.0, max(by_steps, by_clock))

    def agree(self, share: float, asked: int) -> tuple[float, int]:
        """What the first process says of (share done, stop asked for): clocks and signals differ between them."""
        if self.accelerator.num_processes == 1:
            return share, asked
        words = torch.tensor([share, float(asked)], dtype=torch.float64, device=self.device)
        share, asked = broadcast(words).tolist()
        return share, int(asked)

    def set_learning_rates(self, share: float) -> None:
        """Set every optimizer's rate for this share of the run."""
        factor = lr_factor(self.config.optim, share) * self.plateau.factor
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = self.config.optim.lr * self.config.optim.lr_ratio.get(name, 1.0) * factor

    def _average_statistics(self) -> None:
        """Give all processes the mean of their running statistics (batch norm's): each has seen its own shards."""
        if self.accelerator.num_processes > 1:
            networks = self.colorizer.networks().values()
            for buffer in (buffer for network in networks for buffer in network.buffers()):
                if buffer.is_floating_point():
                    buffer.copy_(self.accelerator.reduce(buffer, reduction="mean"))

    def validate(self) -> None:
        """Measure the (averaged) weights on the validation photographs: log, best weights, collapse alarm."""
        self._average_statistics()
        with averaged_weights(self.colorizer, self.ema) as colorizer:
            result = evaluate(
                {"model": model_predictor(colorizer)},
                self.val_pack,
                TRAINING_METRICS,
                limit=self.config.data.val_limit,
                device=self.device,
                intervals=False,
            )
        # without psnr where every picture is exact
        scores = {n: value["mean"] for n, value in result.table["model"].items() if value["mean"] is not None}
        values = torch.tensor(list(scores.values()), dtype=torch.float64, device=self.device)
        if self.accelerator.num_processes > 1:  # each decides upon them, so they must not differ by a rounding
            values = broadcast(values)
        self.scores = dict(zip(scores, values.tolist(), strict=True))
        self.logger.scalars("val", self.step, self.scores)
        told = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        self.logger.say(f"step {self.step}: validation {told}")
        ratio = self.scores["colorfulness_ratio"]
        self.low_color = self.low_color + 1 if ratio < COLLAPSE_RATIO else 0
        if self.low_color == COLLAPSE_PATIENCE:
            self.logger.say(
                f"warning: for {COLLAPSE_PATIENCE} validations the predictions have had under {COLLAPSE_RATIO:.0%} of"
                f" the true colorfulness (now {ratio:.0%}): they are turning grey-brown; see Collapse in README.md"
            )
        for warning in self.colorizer.warnings():
            self.logger.say(f"step {self.step}: {warning}")
        if self.plateau.update(self.scores[self.config.loop.monitor], self.config.optim):
            self.publish(BEST)

    @torch.no_grad()
    def draw_samples(self) -> None:
        """Into the log: a sheet grey | model | original of a fixed choice of validation photographs; the diagnosis."""
        if not self.main:
            return
        with averaged_weights(self.colorizer, self.ema) as colorizer:
            predictors = {self.folder.name: model_predictor(colorizer)}
            rows = spread_indices(self.val_pack, self.config.loop.samples)
            picture: np.ndarray = sheet({"": color_columns(predictors, self.val_pack, rows, self.device)})
            more = self.val_pack.lab(np.array(spread_indices(self.val_pack, DIAGNOSED)))
            diagnosis = colorizer.diagnose(Batch(*(x.to(self.device) for x in more)))
        self.logger.picture("samples", self.step, picture)
        if diagnosis.scalars:
            self.logger.scalars("diagnosis", self.step, diagnosis.scalars)
        for name, draw in diagnosis.pictures.items():
            self.logger.picture(name, self.step, draw())


def make_optimizer(name: str, network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of the network of that name."""
    options: dict = {"weight_decay": config.weight_decay, "lr": config.lr * config.lr_ratio.get(name, 1.0)}
    if config.optimizer == "sgd":  # not fused: torch's then fails where a part of the weights was frozen at first
        return torch.optim.SGD(network.parameters(), momentum=config.betas[0], **options)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    options["fused"] = next(network.parameters()).device.type in ("cpu", "cuda")  # one pass: 4 times as fast
    return kind(network.parameters(), betas=tuple(config.betas), **options)
