"""The state of a training run between two steps, how it is saved and restored, and its periodic work."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from common.checkpoint import BEST, WEIGHTS, parameter_count, published_state, save_weights
from common.colorizer import Batch, Colorizer, Objective, predict_ab
from common.data.batches import TrainingData, grey_photographs, training_packs
from common.data.prefetch import Prefetcher
from common.evaluation.evaluate import Predict, evaluate
from common.evaluation.metrics import training_metrics
from common.evaluation.sheets import color_columns, sheet, spread_indices
from common.registry import build_colorizer, without_downloads
from common.training.config import OptimConfig, TrainConfig
from common.training.ema import MovingAverage
from common.training.logger import Logger
from common.training.run_dir import check_photographs, check_run_dir, hold_run_dir, make_card, validation_identity
from common.training.schedule import Plateau, lr_factor
from common.training.start import load_start, with_base
from common.training.state import STATE, check_optimizer, check_tensors, read_state, restoring, save_state
from common.utils.clock import clock
from common.utils.device import pick_device, pick_precision
from common.utils.distributed import average_buffers, join_processes
from common.utils.errors import UserError
from common.utils.progress import Progress

COLLAPSE_RATIO, COLLAPSE_PATIENCE = 0.25, 3
VALIDATIONS = 20  # in a run, where `eval_every` is not given
DIAGNOSED = 64  # validation photographs that `TrainingHooks.diagnose` gets


class Run:
    """One run: device, photographs, networks, optimizers and log; new, or restored from its folder.

    Raises UserError where the configuration does not fit the device, the photographs or the run folder.
    """

    def __init__(self, config: TrainConfig, progress: Progress | None = None) -> None:
        self.config, self.folder = config, Path(config.loop.run)
        loop = config.loop
        self.processes = join_processes()
        self.device = pick_device(loop.device)
        self.precision = pick_precision(loop.precision, self.device)
        self.progress = progress or Progress(quiet=not self.processes.main)
        self.shards = self.processes.count * loop.accumulate
        if loop.batch_size % self.shards:
            raise UserError(
                f"batch_size is {loop.batch_size}: expected a multiple of processes x accumulate ({self.shards})"
            )
        torch.backends.cudnn.deterministic = True  # a resumed run must repeat the same numbers

        check_run_dir(config, self.folder)
        self.colorizer = self._build()
        self.average = MovingAverage(self.colorizer, config.optim.ema) if config.optim.ema else None
        self.colorizer.hooks.load_networks(self.device)
        self._load_photographs()
        if not self._resumes:
            self.colorizer.hooks.prepare(self.train_pack)
        self.networks = self.colorizer.networks()
        self.optimizers = {name: make_optimizer(network, config.optim) for name, network in self.networks.items()}
        on_cuda = self.device.type == "cuda" and any(map(shutil.which, ("cc", "gcc", "clang")))  # Triton needs one
        if on_cuda if loop.compile is None else loop.compile:
            for network in self.networks.values():
                network.compile()
        self.replicas = {name: self._replicate(name) for name in self.networks} if self.processes.count > 1 else {}

        self.step, self.last_step, self.eval_every, self.low_color = 0, 0, loop.eval_every or 0, 0
        self.scores: dict[str, float] = {}
        self.plateau = Plateau(config.higher_is_better)
        self.planned_for: str | None = None
        self._seconds_before, self._start = 0.0, time.perf_counter()
        self._resources = ExitStack()
        self.batches: TrainingData | Prefetcher = self.data
        if self.device.type == "cuda":  # on a CPU, reading the photographs takes less than 0.1 % of a step
            self.batches = self._resources.enter_context(closing(Prefetcher(self.data)))
        try:
            self._open()
        except BaseException:
            self._resources.close()
            raise

    @property
    def _resumes(self) -> bool:
        return not self.config.loop.fresh and (self.folder / STATE).exists()

    def _build(self) -> Colorizer:
        """The colorizer on the device. Wrong options are reported here, before photographs are read."""
        config = self.config
        torch.manual_seed(config.loop.seed)
        model = without_downloads(config.model) if self._resumes or config.loop.init else config.model
        colorizer = build_colorizer(config.family, **model)
        if config.data.size % colorizer.multiple:
            raise UserError(f"data.size is {config.data.size}: this network takes multiples of {colorizer.multiple}")
        for name in config.optim.lr_ratio:
            if name not in colorizer.networks():
                known = ", ".join(colorizer.networks())
                raise UserError(f"optim.lr_ratio names {name}, no network of {config.family}: expected {known}")
        if colorizer.hooks.repeats and config.loop.accumulate > 1:
            raise UserError(
                f"accumulate is {config.loop.accumulate}: with several updates of one network a step, expected 1"
            )
        if config.data.grey and not colorizer.hooks.unpaired:
            raise UserError(f"data.grey is {config.data.grey}: this {config.family} learns from pairs, leave it out")
        self.base = load_start(colorizer, config) if config.loop.init and not self._resumes else None
        return colorizer.to(device=self.device, memory_format=torch.channels_last).train()

    def _load_photographs(self) -> None:
        config = self.config
        self.train_pack, self.val_pack = training_packs(config.data, self.progress)
        grey = None
        if self.colorizer.hooks.unpaired:
            grey = grey_photographs(config.data, self.train_pack, self.val_pack, self.progress)
        self.data = TrainingData(
            self.train_pack,
            config.data.size,
            config.loop.batch_size,
            config.loop.seed,
            config.augment,
            self.device,
            grey,
        )

    def _replicate(self, name: str) -> nn.parallel.DistributedDataParallel:
        return nn.parallel.DistributedDataParallel(
            self.networks[name],
            device_ids=[self.device] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=name in self.colorizer.hooks.partly_trained,
        )

    def _open(self) -> None:
        """Lock the run folder, restore its state, and open the log."""
        config = self.config
        if self.processes.main:
            self._resources.enter_context(hold_run_dir(config, self.folder))
        self.processes.gather(None)  # the folder exists now
        found = read_state(self.folder)
        if found:
            with restoring(self.folder):
                self.load_state_dict(found)
        self.logger = Logger(self.folder if self.processes.main else None, self.step, config.to_dict(), self.progress)
        self._resources.callback(self.logger.close)
        self.logger.say(self.train_pack.describe() + "\n" + self.val_pack.describe())
        sizes = ", ".join(f"{name} {parameter_count(net) / 1e6:.2f} M" for name, net in self.networks.items())
        batch = config.loop.batch_size
        self.logger.say(f"{config.family}: {sizes}; {self.device}, {self.precision}, batch {batch}")
        if found:
            self.logger.say(f"{self.folder} resumes at step {self.step}, after {clock(self.seconds)}")

    def close(self) -> None:
        """Flush the log and unlock the run folder."""
        self._resources.close()

    # --- length of the run

    @property
    def fraction_done(self) -> float:
        """Fraction of the planned steps that is done, 0..1."""
        return min(1.0, self.step / self.last_step) if self.last_step else 0.0

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the run stopped early."""
        early_stop = self.config.loop.early_stop
        return self.step >= self.last_step or 0 < early_stop <= self.plateau.since_best

    @property
    def seconds(self) -> float:
        """Time in the loop so far, validations included, over all parts of a resumed run."""
        return self._seconds_before + time.perf_counter() - self._start

    def due(self, every: int, last: bool = True) -> bool:
        """Whether something that happens every so many steps (0: never), and by default after the last, is due."""
        return bool(every) and (self.step % every == 0 or (last and self.finished))

    def any_process(self, signal: int) -> int:
        """The largest value over all processes, so that all stop at the same step."""
        return max(self.processes.gather(signal))

    # --- what a step needs

    def set_learning_rates(self) -> None:
        """Set the learning rate of every optimizer for the next step."""
        factor = lr_factor(self.config.optim, self.fraction_done) * self.plateau.factor
        for name, optimizer in self.optimizers.items():
            for group in optimizer.param_groups:
                ratio = self.config.optim.lr_ratio.get(name, 1.0) * group.get("lr_ratio", 1.0)
                group["lr"] = self.config.optim.lr * ratio * factor

    def autocast(self) -> torch.autocast:
        """Autocast context of forward passes."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def objectives(self, batch: Batch) -> Iterator[Objective]:
        """The family's objectives. Its code runs under autocast; the caller's, between two of them, does not."""
        objectives = self.colorizer.training_step(batch)
        while True:
            with self.autocast():
                objective = next(objectives, None)
            if objective is None:
                return
            yield objective

    @contextmanager
    def replicated(self, synchronize: bool) -> Iterator[None]:
        """Context in which the colorizer's networks average their gradients over the processes.

        synchronize: False where the gradients of a further sub-batch will be added first.
        """
        with ExitStack() as stack:
            for name, replica in self.replicas.items():
                setattr(self.colorizer, name, replica)
                stack.callback(setattr, self.colorizer, name, self.networks[name])
                if not synchronize:
                    stack.enter_context(replica.no_sync())
            yield

    # --- saving

    def state_dict(self) -> dict:
        """Everything that resuming needs. All processes must call it."""
        return {
            "step": self.step,
            "last_step": self.last_step,
            "planned_for": self.planned_for,
            "eval_every": self.eval_every,
            "seconds": self.seconds,
            "low_color": self.low_color,
            "scores": self.scores,
            "plateau": self.plateau.state(),
            "content": self.data.content,
            "validation": validation_identity(self.train_pack, self.val_pack),
            "base": self.base,
            "weights": self.colorizer.state_dict(),
            "ema": self.average.state_dict() if self.average else {},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            "training": self.processes.gather(self.colorizer.hooks.state_dict()),
        }

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned. Raises UserError where it was trained on other photographs."""
        check_photographs(self.config, state, self.data.content, self.train_pack, self.val_pack)
        self.step, self.last_step, self.low_color = state["step"], state["last_step"], state["low_color"]
        self.scores, self.planned_for, self.base = state["scores"], state["planned_for"], state.get("base")
        self.eval_every = self.config.loop.eval_every or state["eval_every"]
        self._seconds_before, self._start = state["seconds"], time.perf_counter()
        self.plateau = Plateau(self.config.higher_is_better, **state["plateau"])
        check_tensors(state["weights"], self.colorizer.state_dict())
        self.colorizer.load_state_dict(state["weights"])
        if self.average:
            check_tensors(state["ema"], self.average.state_dict())
            self.average.load_state_dict(state["ema"])
        for name, optimizer in self.optimizers.items():
            check_optimizer(state["optimizers"][name], optimizer)
            optimizer.load_state_dict(state["optimizers"][name])
        of_process = state["training"]
        rank = self.processes.rank if len(of_process) == self.processes.count else 0
        self.colorizer.hooks.load_state_dict(of_process[rank], self.device)

    def save(self) -> None:
        """Publish the weights and save the exact state. All processes must call it."""
        self._average_statistics()
        state = self.state_dict()
        if self.processes.main:
            self.publish(WEIGHTS)
            save_state(self.folder, state)

    def publish(self, name: str) -> None:
        """Write the weights, averaged where the run averages, into the run folder."""
        if self.processes.main:
            card = make_card(
                self.config,
                self.train_pack,
                self.published,
                self.step,
                self.last_step,
                self.seconds,
                self.precision,
                self.scores,
            )
            hooks = self.colorizer.hooks
            if self.base:
                card |= {"base": self.base["card"]}
                fingerprints = with_base(self.data.fingerprints, self.base)
            else:
                fingerprints = hooks.complete_fingerprints(self.data.fingerprints)
            save_weights(self.folder / name, published_state(self.published), hooks.complete_card(card), fingerprints)

    @property
    def published(self) -> Colorizer:
        """The colorizer that is validated and published: the average where there is one."""
        return self.average.module if self.average else self.colorizer

    def _average_statistics(self) -> None:
        """Average batch-norm statistics over the processes, each of which has seen only its own shards."""
        average_buffers(self.colorizer, self.processes)
        if self.average:
            average_buffers(self.average.module, self.processes)

    # --- periodic work

    @contextmanager
    def _predictor(self) -> Iterator[Predict]:
        """Predict with the published weights, in eval mode."""

        def predict(batch: Batch, indices: np.ndarray) -> Tensor:
            with self.autocast():
                return predict_ab(self.published, batch.L).float()

        self.colorizer.eval()
        try:
            yield predict
        finally:
            self.colorizer.train()

    def measure(self) -> dict[str, float]:
        """Metrics of the published weights on the validation photographs, which the processes share."""
        self._average_statistics()
        with self._predictor() as predict:
            result = evaluate(
                {"model": predict},
                self.val_pack,
                training_metrics(self.config.loop.monitor),
                limit=self.config.data.val_limit,
                device=self.device,
                intervals=False,
                processes=self.processes,
            )
        # psnr has no mean where every picture is exact
        return {n: cell["mean"] for n, cell in result.table["model"].items() if cell["mean"] is not None}

    def validate(self, initial: bool = False) -> None:
        """Validate, log, warn of collapse, save the best weights. initial: it is before the first step."""
        self.scores = self.measure()
        self.logger.scalars("val", self.step, self.scores)
        values = ", ".join(f"{name} {value:.4g}" for name, value in self.scores.items())
        self.logger.say(f"step {self.step}: validation {values}")
        if initial:
            return
        ratio = self.scores["colorfulness_ratio"]
        self.low_color = self.low_color + 1 if ratio < COLLAPSE_RATIO else 0
        if self.low_color == COLLAPSE_PATIENCE:
            self.logger.say(
                f"warning: in {COLLAPSE_PATIENCE} validations in a row, predictions had less than {COLLAPSE_RATIO:.0%}"
                f" of the true colorfulness (now {ratio:.0%}): they are turning grey-brown; see Collapse in README.md"
            )
        for warning in self.colorizer.hooks.warnings():
            self.logger.say(f"step {self.step}: {warning}")
        if self.plateau.update(self.scores[self.config.loop.monitor], self.config.optim):
            self.publish(BEST)

    @torch.no_grad()
    def draw_samples(self) -> None:
        """Log a sheet grey | model | original of fixed validation photographs, and the family's diagnosis."""
        if not self.processes.main:
            return
        with self._predictor() as predict:
            indices = spread_indices(self.val_pack, self.config.loop.samples)
            columns = color_columns({self.folder.name: predict}, self.val_pack, indices, self.device)
            more = self.val_pack.lab(np.array(spread_indices(self.val_pack, DIAGNOSED)))
            with self.autocast():
                diagnosis = self.colorizer.hooks.diagnose(Batch(*(x.to(self.device) for x in more)))
        self.logger.picture("samples", self.step, sheet({"": columns}))
        if diagnosis.scalars:
            self.logger.scalars("diagnosis", self.step, diagnosis.scalars)
        for name, draw in diagnosis.pictures.items():
            self.logger.picture(name, self.step, draw())


def make_optimizer(network: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer of a network.

    The parameters of a module with an attribute `lr_ratio` learn at this multiple of the network's rate.
    """
    ratios = {
        parameter: module.lr_ratio
        for module in network.modules() if hasattr(module, "lr_ratio") for parameter in module.parameters()
    }  # fmt: skip
    groups = [
        {"params": [p for p in network.parameters() if ratios.get(p, 1.0) == ratio], "lr_ratio": ratio}
        for ratio in sorted({ratios.get(p, 1.0) for p in network.parameters()}, reverse=True)
    ]
    options: dict = {"weight_decay": config.weight_decay, "lr": config.lr}
    if config.optimizer == "sgd":  # not fused: fused SGD fails where a stage had frozen a part of the weights
        return torch.optim.SGD(groups, momentum=config.betas[0], **options)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    options["fused"] = next(network.parameters()).device.type in ("cpu", "cuda")  # 4 times as fast
    return kind(groups, betas=tuple(config.betas), **options)
