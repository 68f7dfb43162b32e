"""The mean color of photographs, true and predicted: for regressors of the mean color, and for any other model."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

import numpy as np
import torch

from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.evaluate import Predict, measured_indices
from common.evaluation.pictures import predicted_pictures

SHOWN = 10  # photographs of the printed table


@dataclass(frozen=True)
class MeanChroma:
    """Mean (a, b) of photographs, in CIELAB units.

    names: of the photographs. true: float [n, 2]. predicted: title of a row -> float [n, 2], after gamut mapping.
    """

    names: list[str]
    true: np.ndarray
    predicted: dict[str, np.ndarray]

    def mse(self, row: str) -> float:
        """Mean squared error over photographs and both values, in squared CIELAB units."""
        return float(np.square(self.predicted[row] - self.true).mean())

    def to_csv(self) -> str:
        """One line per row and photograph: row, image, mean_a, mean_b, true_mean_a, true_mean_b, mse."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["row", "image", "mean_a", "mean_b", "true_mean_a", "true_mean_b", "mse"])
        for row, values in self.predicted.items():
            for name, found, true in zip(self.names, values, self.true, strict=True):
                numbers = (*found, *true, np.square(found - true).mean())
                writer.writerow([row, name, *(f"{number:.3f}" for number in numbers)])
        return out.getvalue()

    def table(self) -> str:
        """A Markdown table of the first photographs, and the MSE of every row over all photographs."""
        rows = list(self.predicted)
        lines = [f"| image | {' | '.join(f'{row}: mean a, mean b' for row in rows)} | true mean a, mean b |"]
        lines.append(f"|---|{'---:|' * (len(rows) + 1)}")
        for i, name in enumerate(self.names[:SHOWN]):
            pairs = [*(self.predicted[row][i] for row in rows), self.true[i]]
            lines.append(f"| {name} | {' | '.join(f'{a:.1f}, {b:.1f}' for a, b in pairs)} |")
        if len(self.names) > SHOWN:
            lines.append(f"| ... ({len(self.names) - SHOWN} more) |{' |' * (len(rows) + 1)}")
        lines.append(f"| MSE | {' | '.join(f'{self.mse(row):.2f}' for row in rows)} | |")
        return "\n".join(lines)


@torch.no_grad()
def mean_chroma(
    predictors: dict[str, Predict], pack: Pack, *, limit: int | None = None, batch_size: int = 32,
    device: str | torch.device = "cpu",
) -> MeanChroma:  # fmt: skip
    """Mean colors of the photographs of a pack. limit: as in `evaluate`."""
    indices = measured_indices(pack, limit)
    true: list[np.ndarray] = []
    predicted: dict[str, list[np.ndarray]] = {row: [] for row in predictors}
    for part in np.split(indices, range(batch_size, len(indices), batch_size)):
        batch = Batch(*(x.to(device) for x in pack.lab(part)))
        true.append(batch.ab.mean(dim=(2, 3)).cpu().numpy())
        for row, predict in predictors.items():
            ab = predicted_pictures(batch.L, predict(batch, part)).ab
            predicted[row].append(ab.mean(dim=(2, 3)).cpu().numpy())
    names = [pack.names[i] for i in indices]
    return MeanChroma(names, np.concatenate(true), {row: np.concatenate(found) for row, found in predicted.items()})
