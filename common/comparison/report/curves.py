"""Training and validation curves of runs, from their metrics.jsonl."""

from __future__ import annotations

from pathlib import Path

from common.comparison.report.plots import panels, save
from common.evaluation.metrics import METRICS, brief_metrics
from common.training.logger import read_metrics


def draw_curves(runs: dict[str, tuple[Path, int]], out: Path, groups: dict[str, str] | None = None) -> bool:
    """Draw the training loss and validation metrics against photographs seen, into an image file.

    The loss is drawn if all runs have the same one. runs: title -> (run folder, batch size). groups: title -> title of
    the compared model; seeds of one model have the same color. Returns False, without a file, if no run has validation
    metrics.
    """
    logs = {title: (read_metrics(folder, "val"), batch) for title, (folder, batch) in runs.items()}
    logs = {title: log for title, log in logs.items() if log[0]}
    if not logs:
        return False
    models = {title: (groups or {}).get(title, title) for title in logs}
    colors = {model: f"C{i % 10}" for i, model in enumerate(dict.fromkeys(models.values()))}
    most = max(line["step"] * batch for lines, batch in logs.values() for line in lines)
    unit, unit_name = (1000, "thousands") if most >= 20_000 else (1, "number")
    charts = [(m, logs) for m in brief_metrics() if all(m in line for lines, _ in logs.values() for line in lines)]
    if loss := _common_loss(training := {t: (read_metrics(f, "train"), batch) for t, (f, batch) in runs.items()}):
        charts.insert(0, (loss, training))
    figure, axes = panels(len(charts), 3.5)
    for axis, (name, of_runs) in zip(axes, charts, strict=True):
        for title, model in models.items():
            lines, batch = of_runs[title]
            x, y = [line["step"] * batch / unit for line in lines], [line[name] for line in lines]
            marker, label = (
                (None if name == loss else "o"),
                (None if model in axis.get_legend_handles_labels()[1] else model),
            )
            axis.plot(x, y, label=label, color=colors[model], marker=marker, markersize=3, linewidth=1.4)
        if name == loss:
            axis.set_yscale("log", subs=(2, 5))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter("{x:g}")
            axis.set_title(f"training loss: {loss}", fontsize=9)
        else:
            ideal, better = METRICS[name].ideal, METRICS[name].better
            if ideal is not None:
                axis.axhline(ideal, color="grey", linewidth=0.8, linestyle="--")
                axis.set_ylim(bottom=0)
            best = f"{better} is better" if ideal is None else f"{ideal:g} is best"
            axis.set_title(f"{name} (validation, {best})", fontsize=9)
        axis.set_xlabel(f"photographs seen ({unit_name})", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=9)
    save(figure, out)
    return True


def _common_loss(logs: dict[str, tuple[list[dict], int]]) -> str | None:
    """The name of the training loss, if all runs have one and the same."""
    apart = {"step", "kind", "images_per_s"}
    names = {key for lines, _ in logs.values() for line in lines for key in line if key not in apart and "/" not in key}
    everywhere = all(lines for lines, _ in logs.values())
    return names.pop() if len(names) == 1 and everywhere else None


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
