"""The checkpoints of one run over time: training loss, metrics and training time of each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from common.checkpoint import BEST, WEIGHTS, read_card
from common.comparison.paired import Comparison
from common.comparison.report.findings import headline, listed
from common.comparison.report.plots import panels, reach, save, title_of
from common.comparison.report.tables import ARROW, better_of, cell, number
from common.evaluation.metrics import METRICS
from common.evaluation.rows import run_folder
from common.training.logger import read_metrics
from common.training.run_dir import KEPT
from common.utils.clock import clock
from common.utils.errors import UserError

TABLE, CHART = "checkpoints.md", "checkpoints.png"


@dataclass(frozen=True)
class Checkpoint:
    """Weights of a run after some step.

    Attributes:
        title: of its row.
        path: of the weights.
        step: number of steps.
        epoch: passes over the training photographs.
        seconds: training time.
        loss: mean training loss since the checkpoint before; None if the log has no entry since then.
    """

    title: str
    path: Path
    step: int
    epoch: float
    seconds: float
    loss: float | None


def kept_checkpoints(folder: Path) -> list[Checkpoint]:
    """The kept, best and last weights of a run by step, without those of the same step.

    The loss is that of the network that is updated first (in a GAN, the generator). Raises UserError where the folder
    is not that of a run, or has weights of one step only.
    """
    if not folder.is_dir() or not run_folder(folder):
        raise UserError(f"--checkpoints is {folder}: expected the folder of a run")
    cards = {path: read_card(path) for path in [*sorted(folder.glob(KEPT)), folder / WEIGHTS, folder / BEST]
             if path.exists()}  # fmt: skip
    first = {card["steps"]: path for path, card in reversed(cards.items())}
    if len(first) < 2:
        raise UserError(f"{folder} has weights of {len(first)} step: train with --keep_every N to keep checkpoints")
    log = read_metrics(folder, "train")
    name = next((key for line in log for key in line if key.startswith("loss/")), "")
    out, before = [], 0
    for step, path in sorted(first.items()):
        card = cards[path]
        seen = card["trained_on"]["count"] - card["trained_on"]["grey"]
        losses = [line[name] for line in log if before < line["step"] <= step and name in line]
        loss = sum(losses) / len(losses) if losses else None
        kind = " (best)" if path.name == BEST else ""
        out.append(Checkpoint(f"step {step}{kind}", path, step, card["images"] / seen, card["seconds"], loss))
        before = step
    return out


def own_validation(folder: Path) -> tuple[str, float]:
    """(source of the photographs on which a run was validated, its `val_fraction`)."""
    data = read_card(folder / WEIGHTS)["config"]["data"]
    return data.get("val") or data["train"], data["val_fraction"]


def describe_best(checkpoints: list[Checkpoint], comparison: Comparison) -> list[str]:
    """Sentences: the checkpoint of the lowest training loss, and the best one of each headline metric."""
    there = [c for c in checkpoints if c.loss is not None]
    out = []
    if there:
        lowest = min(there, key=lambda c: c.loss)
        out.append(f"The training loss is lowest at {lowest.title} ({lowest.loss:.4g}).")
    for metric in headline(comparison.metrics):
        if best := comparison.best(metric):
            level = comparison.level(metric)
            also = f"; not significantly better than {listed(level)}" if level else "; significantly better than all"
            value = number(metric, comparison.numbers[best][metric]["mean"])
            out.append(f"{metric} is best at {best} ({value}{also}).")
    return out


def write_checkpoints(checkpoints: list[Checkpoint], comparison: Comparison, out: Path) -> tuple[list[Path], str]:
    """Write a table and a chart of the checkpoints into the folder of a report.

    comparison: of their rows. Returns (files, the sentences of `describe_best`).
    """
    sentences = "\n".join(describe_best(checkpoints, comparison))
    (out / TABLE).write_text(f"{_table(checkpoints, comparison)}\n\n{sentences}\n", encoding="utf-8")
    _draw(checkpoints, comparison, out / CHART)
    return [out / TABLE, out / CHART], sentences


def _table(checkpoints: list[Checkpoint], comparison: Comparison) -> str:
    names = list(comparison.metrics)
    best = {metric: comparison.best(metric) for metric in names}
    losses = [c.loss for c in checkpoints if c.loss is not None]
    heads = ["checkpoint", "epoch", "time", "training loss ↓", *(f"{m} {ARROW[better_of(m)]}" for m in names)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for c in checkpoints:
        loss = "n/a" if c.loss is None else f"{c.loss:.4g}"
        cells = [f"**{loss}**" if c.loss is not None and c.loss == min(losses) else loss]
        for metric in names:
            text = cell(metric, comparison.numbers.get(c.title, {}).get(metric, {"mean": None}))
            cells.append(f"**{text}**" if best[metric] == c.title else text)
        lines.append("| " + " | ".join([c.title, f"{c.epoch:.2f}", clock(c.seconds), *cells]) + " |")
    return "\n".join(lines)


def _draw(checkpoints: list[Checkpoint], comparison: Comparison, path: Path) -> None:
    """Training loss and headline metrics against the step, and the epoch above; a filled dot marks the best."""
    names = headline(comparison.metrics)
    figure, axes = panels(1 + len(names))
    per_epoch = checkpoints[-1].step / checkpoints[-1].epoch
    known = [(c.step, c.loss) for c in checkpoints if c.loss is not None]
    if known:
        axes[0].plot(*zip(*known, strict=True), marker="o", markerfacecolor="white", markersize=5, color="0.3")
        axes[0].plot(*min(known, key=lambda point: point[1]), "o", markersize=8, color="0.3")
    axes[0].set_title("training loss since the checkpoint before", fontsize=9)
    for axis, name in zip(axes[1:], names, strict=True):
        there = [(c.step, c.title, comparison.numbers[c.title][name]) for c in checkpoints
                 if comparison.numbers.get(c.title, {}).get(name, {}).get("mean") is not None]  # fmt: skip
        ends = [reach(found) for *_, found in there]
        whiskers = [[low[0] for low, _ in ends], [high[0] for _, high in ends]]
        axis.errorbar([step for step, *_ in there], [found["mean"] for *_, found in there], whiskers, marker="o",
                      markerfacecolor="white", markersize=5, capsize=3, linewidth=1.5, color="tab:blue")  # fmt: skip
        for step, title, found in there:
            if title == comparison.best(name):
                axis.plot(step, found["mean"], "o", markersize=8, color="tab:blue", zorder=5)
        grey = comparison.numbers.get("grey", {}).get(name, {}).get("mean")
        if grey is not None and METRICS[name].better != "truth":
            axis.axhline(grey, color="0.6", linestyle=":", linewidth=1.2)
            axis.text(1.01, grey, "grey", transform=axis.get_yaxis_transform(), fontsize=8, va="center")
        axis.set_title(title_of(name), fontsize=9)
    for axis in axes:
        axis.set_xlabel("step", fontsize=8)
        above = axis.secondary_xaxis("top", (lambda step: step / per_epoch, lambda epoch: epoch * per_epoch))
        above.tick_params(labelsize=7, colors="0.45")
        above.set_xlabel("epoch", fontsize=7, color="0.45")
    save(figure, path)
