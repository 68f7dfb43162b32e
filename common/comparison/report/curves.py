"""Training and validation curves of runs, from their metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from common.evaluation.metrics import METRICS, brief_metrics
from common.training.logger import read_metrics


def draw_curves(runs: dict[str, tuple[Path, int]], out: Path) -> bool:
    """Draw validation metrics against photographs seen, into an image file.

    runs: title -> (run folder, batch size). Returns False, without a file, if no run has validation metrics.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    logs = {title: (read_metrics(folder, "val"), batch) for title, (folder, batch) in runs.items()}
    logs = {title: log for title, log in logs.items() if log[0]}
    if not logs:
        return False
    most = max(line["step"] * batch for lines, batch in logs.values() for line in lines)
    unit, unit_name = (1000, "thousands") if most >= 20_000 else (1, "number")
    panels = [m for m in brief_metrics() if all(m in line for lines, _ in logs.values() for line in lines)]
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 3.8), layout="constrained")
    for axis, metric in zip(axes, panels, strict=True):
        ideal, better = METRICS[metric].ideal, METRICS[metric].better
        for title, (lines, batch) in logs.items():
            seen = [line["step"] * batch / unit for line in lines]
            axis.plot(seen, [line[metric] for line in lines], label=title, marker="o", markersize=3, linewidth=1.5)
        if ideal is not None:
            axis.axhline(ideal, color="grey", linewidth=0.8, linestyle="--")
            axis.set_ylim(bottom=0)
        best = f"{better} is better" if ideal is None else f"{ideal:g} is best"
        axis.set_title(f"{metric} (validation, {best})", fontsize=10)
        axis.set_xlabel(f"photographs seen ({unit_name})", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=9, frameon=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return True


def validation_curves(runs: dict[str, tuple[Path, int]]) -> list[dict]:
    """Validation metrics against photographs seen, one panel per metric: {"metric", "series": [{"title", "x", "y"}]}.

    runs: title -> (run folder, batch size).
    """
    logs = {title: (read_metrics(folder, "val"), batch) for title, (folder, batch) in runs.items()}
    names = dict.fromkeys(k for lines, _ in logs.values() for line in lines for k in line if k not in ("step", "kind"))
    return [{"metric": name, "series": _series(logs, name)} for name in names]


def loss_curves(runs: dict[str, tuple[Path, int]]) -> dict[str, list[dict]]:
    """Training losses of each run against photographs seen: [{"title", "x", "y"}], one per optimizer."""
    out = {}
    for title, (folder, batch) in runs.items():
        lines = read_metrics(folder, "train")
        names = dict.fromkeys(key for line in lines for key in line if key.startswith("loss/"))
        found = [_series({name.removeprefix("loss/"): (lines, batch)}, name)[0] for name in names]
        if found:
            out[title] = found
    return out


def _series(logs: dict[str, tuple[list[dict], int]], name: str) -> list[dict]:
    out = []
    for title, (lines, batch) in logs.items():
        with_it = [line for line in lines if line.get(name) is not None]
        if with_it:
            x = [line["step"] * batch for line in with_it]
            out.append({"title": title, "x": x, "y": [line[name] for line in with_it]})
    return out
