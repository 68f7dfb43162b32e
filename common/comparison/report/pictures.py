"""The photographs of a report: which ones are shown, and their encoding as data URIs."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from common.data.packing import Pack
from common.evaluation.evaluate import Evaluation, Predict
from common.evaluation.metrics import METRICS, headline_metrics
from common.evaluation.sheets import color_columns
from common.imaging.write import encode_jpeg
from common.utils.data_uri import data_uri

TILE = 192  # largest side of a picture on the page, in pixels
EXTREMES = 3  # number of best and of worst photographs


def jpeg_uri(rgb: np.ndarray) -> str:
    """Encode sRGB uint8 [H, W, 3], reduced to TILE pixels if it is larger, as a data URI of a JPEG."""
    image = Image.fromarray(rgb)
    if max(image.size) > TILE:
        image = image.resize((TILE, TILE), Image.Resampling.LANCZOS)
    return data_uri(encode_jpeg(np.asarray(image), quality=88), "image/jpeg")


def png_uri(rgba: np.ndarray) -> str:
    """Encode uint8 [H, W, 4] as a data URI of a PNG."""
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG", optimize=True)
    return data_uri(file.getvalue(), "image/png")


def random_indices(pack: Pack, count: int, seed: int) -> list[int]:
    """Indices of at most `count` color photographs, drawn at random and sorted."""
    indices = pack.color_indices if len(pack.color_indices) else pack.indices
    chosen = np.random.default_rng(seed).choice(indices, min(count, len(indices)), replace=False)
    return sorted(chosen.tolist())


def grid(predictors: dict[str, Predict], pack: Pack, indices: list[int], device: str | torch.device) -> list[dict]:
    """Rows of a grid, one per photograph: {"name", "pictures": {title: data URI}}, from `grey` to `original`."""
    columns = color_columns(predictors, pack, indices, device)
    pictures = [{title: jpeg_uri(column[i]) for title, column in columns.items()} for i in range(len(indices))]
    return [{"name": pack.names[index], "pictures": shown} for index, shown in zip(indices, pictures, strict=True)]


def extremes_metric(result: Evaluation) -> str | None:
    """The metric by which photographs are sorted: the first with one value per image, headline metrics first."""
    for name in (*headline_metrics(), *next(iter(result.values.values()), {})):
        metric = METRICS.get(name)
        values = [columns.get(name) for columns in result.values.values()]
        usable = metric and metric.better != "truth" and not metric.relation and not metric.statistic
        if usable and all(v is not None and v.ndim == 1 for v in values):
            return name
    return None


def extremes(values: np.ndarray, indices: np.ndarray, pack: Pack, higher: bool) -> tuple[list[int], list[int]]:
    """Positions in `values` of the EXTREMES best and worst photographs, the best and the worst first.

    Grey photographs are used only if there are no others. values: float [n], one per measured photograph. indices: of
    these in the pack, int [n]. higher: whether higher values are better.
    """
    positions = np.flatnonzero(np.isfinite(values))
    colored = positions[np.isin(indices[positions], pack.color_indices)]
    positions = colored if len(colored) else positions
    order = positions[np.argsort(-values[positions] if higher else values[positions], kind="stable")].tolist()
    count = min(EXTREMES, len(order) // 2)
    return order[:count], order[::-1][:count]
