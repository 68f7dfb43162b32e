"""Photographs in a report: which ones, and as data that a page can hold by itself."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from PIL import Image

from common.data.packing import Pack
from common.evaluation.evaluate import Evaluation, Predict
from common.evaluation.metrics import METRICS, headline_metrics
from common.evaluation.sheets import color_columns

TILE = 192  # pixels of a picture's side on the page, at most
EXTREMES = 3  # photographs at either end


def data_uri(rgb: np.ndarray) -> str:
    """uint8 [H, W, 3] as a JPEG in a `data:` address, with color at full resolution (4:4:4: color is the subject)."""
    image = Image.fromarray(rgb)
    if max(image.size) > TILE:
        image = image.resize((TILE, TILE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88, subsampling=0, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def png_uri(rgba: np.ndarray) -> str:
    """uint8 [H, W, 4] as a PNG in a `data:` address."""
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def random_rows(pack: Pack, count: int, seed: int) -> list[int]:
    """A random choice of color photographs, a function of the pack and the seed, in order of the pack."""
    rows = pack.color_indices if len(pack.color_indices) else np.arange(len(pack))
    chosen = np.random.default_rng(seed).choice(rows, min(count, len(rows)), replace=False)
    return sorted(int(row) for row in chosen)


def grid(
    predictors: dict[str, Predict], pack: Pack, rows: list[int], device: str | torch.device, batch_size: int = 8
) -> list[dict]:
    """Lines of a grid: {"name", "pictures": {title: data address}} from `grey` to `original`, for rows of a pack."""
    lines = []
    for start in range(0, len(rows), batch_size):
        chosen = rows[start : start + batch_size]
        columns = color_columns(predictors, pack, chosen, device)
        for i, row in enumerate(chosen):
            pictures = {title: data_uri(of_title[i]) for title, of_title in columns.items()}
            lines.append({"name": pack.names[row], "pictures": pictures})
    return lines


def extremes_metric(result: Evaluation) -> str | None:
    """The metric that photographs are sorted by: the first with one value per image, headline metrics first."""
    for name in (*headline_metrics(), *next(iter(result.values.values()), {})):
        metric = METRICS.get(name)
        values = [columns.get(name) for columns in result.values.values()]
        usable = metric and metric.better != "truth" and not metric.relation and not metric.statistic
        if usable and all(v is not None and v.ndim == 1 for v in values):
            return name
    return None


def extremes(values: np.ndarray, rows: np.ndarray, pack: Pack, higher: bool) -> tuple[list[int], list[int]]:
    """Places in `values` of the EXTREMES best and worst color photographs, best and worst first.

    values: per measured photograph. rows: their rows in the pack. Where the pack is all grey, of its grey ones.
    """
    places = np.flatnonzero(np.isfinite(values))
    colored = places[np.isin(rows[places], pack.color_indices)]
    places = colored if len(colored) else places
    order = places[np.argsort(-values[places] if higher else values[places], kind="stable")].tolist()
    count = min(EXTREMES, len(order) // 2)
    return order[:count], order[::-1][:count]
