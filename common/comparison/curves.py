"""Curves of runs, from their metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from common.tracking import read_metrics

# What a person wants to see first: is it getting better, and does it stay colourful?
PANELS = (
    ("rmse_ab", "rmse_ab (validation, lower is better)"),
    ("auc", "auc (validation, higher is better)"),
    ("colorfulness_ratio", "colorfulness_ratio (validation, 1 is true)"),
)


def draw_curves(runs: dict[str, tuple[Path, int]], out: Path) -> bool:
    """Draw validation curves against photographs seen.

    runs: title -> (run folder, batch size). Returns whether there was anything to draw.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    logs = {title: (read_metrics(folder, "val"), batch) for title, (folder, batch) in runs.items()}
    logs = {title: log for title, log in logs.items() if log[0]}
    if not logs:
        return False
    most = max(line["step"] * batch for lines, batch in logs.values() for line in lines)
    unit, said = (1000, "thousands") if most >= 20_000 else (1, "number")
    figure, axes = plt.subplots(1, len(PANELS), figsize=(13, 3.8), layout="constrained")
    for axis, (metric, label) in zip(axes, PANELS, strict=True):
        for title, (lines, batch) in logs.items():
            seen = [line["step"] * batch / unit for line in lines]
            axis.plot(seen, [line[metric] for line in lines], label=title, marker="o", markersize=3, linewidth=1.5)
        if metric == "colorfulness_ratio":
            axis.axhline(1, color="grey", linewidth=0.8, linestyle="--")
            axis.set_ylim(bottom=0)
        axis.set_title(label, fontsize=10)
        axis.set_xlabel(f"photographs seen ({said})", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=9, frameon=False)
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return True
