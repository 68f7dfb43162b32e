"""The pictures of a study, made so that nothing but the colors tells the original from its colorization.

Both go the same way: L and ab -> `ab_to_rgb8` -> bicubic to 256 px -> one JPEG that holds the two side by side, without
metadata. One response for both leaves no order, name, header or size to compare; and the two orders of a pair are
padded to the same length, so the length of a response says nothing of the side.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from common.color.gamut import ab_to_rgb8
from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.evaluate import Predict
from common.evaluation.rows import Rows
from common.turing.trials import SIDES, Side, Study, Trial, check_counts, choose_photos, colors_of
from common.utils.errors import UserError

SHOWN = 256  # side of a picture on the page, in CSS pixels
_VIGILANCE = "\0vigilance"  # no title of a model
_PAGE = 4096  # padded lengths are multiples of this
_BATCH = 16


class Material(NamedTuple):
    """A study with what its pictures are made from."""

    study: Study
    predictors: dict[str, Predict]
    pack: Pack
    rows: np.ndarray  # of the pack, in the order of `study.photos`


def ready_predictors(rows: Rows, pack: Pack, seed: int) -> dict[str, Predict]:
    """The predict functions of models and trivial rows by title. Raises UserError where one is no fake, or failed."""
    if rows.failures:
        raise UserError("; ".join(rows.failures))
    mean_ab = next((card["trained_on"]["mean_ab"] for card in rows.cards.values() if "trained_on" in card), None)
    if any(row.trivial == "original" for row in rows.by_title.values()):
        raise UserError("the original is beside every colorization already: leave the row original out")
    return rows.prepared(pack, mean_ab, seed)


def plan_study(
    rows: Rows, pack: Pack, *, practice: int, test: int, vigilance: float, photographs: int | None, seed: int
) -> Material:
    """Fix a study. Grey photographs are left out: their original is no harder to make than to tell.

    photographs: how many of the pack to use (None: all). Raises UserError where they do not suffice.
    """
    predictors = ready_predictors(rows, pack, seed)
    if len(predictors) < 2:
        raise UserError(
            "one model only: shares compare within one study alone, so name a second one (grey or shuffled will do)"
        )
    color = pack.color_indices
    wanted = min(photographs or len(color), len(color))
    check_counts(wanted, practice, test, vigilance)
    chosen = color[choose_photos(len(color), wanted, seed)]
    content = hashlib.sha256(np.ascontiguousarray(pack.images[chosen]).tobytes())
    for title in predictors:
        content.update(title.encode() + _fingerprint(rows.paths.get(title), rows.cards.get(title)))
    study = Study(
        models=tuple(predictors), photos=tuple(pack.names[i] for i in chosen), content=content.hexdigest()[:24],
        size=pack.size, practice=practice, test=test, vigilance=vigilance, seed=seed,
    )  # fmt: skip
    return Material(study, predictors, pack, chosen)


def _fingerprint(path: Path | None, card: dict | None) -> bytes:
    if path is None:  # a mean of models has no file of its own, but their cards
        return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).digest() if card else b"trivial"
    from common.checkpoint import WEIGHTS

    return hashlib.sha256((path / WEIGHTS if path.is_dir() else path).read_bytes()).digest()


class Gallery:
    """Every pair of a study, encoded ahead: (photograph, model, side of the fake) -> the bytes of one JPEG."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, str, Side], bytes] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def put(self, photo: int, model: str, original: np.ndarray, fake: np.ndarray) -> None:
        """Encode both orders of a pair, uint8 [S, S, 3] each."""
        original, fake = _shown_size(original), _shown_size(fake)
        orders = [_jpeg(np.hstack(pair)) for pair in ((fake, original), (original, fake))]
        length = -(-max(map(len, orders)) // _PAGE) * _PAGE
        for side, data in zip(SIDES, orders, strict=True):
            self._pairs[photo, model, side] = data.ljust(length, b"\0")  # decoders stop at the end of the picture

    def pair(self, model: str, trial: Trial) -> bytes:
        """The picture of a trial in a session of a model."""
        return self._pairs[trial.photo, _VIGILANCE if trial.kind == "vigilance" else model, trial.fake]


def _shown_size(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((SHOWN, SHOWN), Image.Resampling.BICUBIC))


def _jpeg(rgb: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


@torch.no_grad()
def make_gallery(
    material: Material, device: str | torch.device = "cpu", progress: Callable[[int, int], None] | None = None
) -> Gallery:
    """Colorize and encode every pair of a study: a request then costs no more than a look-up.

    About 0.1 MB a pair and order; progress: called with (done, total). Raises UserError for a prediction that is not
    finite.
    """
    gallery, study, pack = Gallery(), material.study, material.pack
    count = len(material.rows)
    for start in range(0, count, _BATCH):
        rows = material.rows[start : start + _BATCH]
        batch = Batch(*(x.to(device) for x in pack.lab(rows)))
        others = [material.rows[colors_of(start + i, count, study.seed)] for i in range(len(rows))]
        ab = {_VIGILANCE: pack.lab(np.array(others))[1].to(device)}
        ab |= {title: predict(batch, rows).float() for title, predict in material.predictors.items()}
        originals = _rgb(batch.L, batch.ab)
        for title, predicted in ab.items():
            if not predicted.isfinite().all():
                raise UserError(f"{title} predicts colors that are not finite: its training diverged")
            for i, fake in enumerate(_rgb(batch.L, predicted)):
                gallery.put(start + i, title, originals[i], fake)
        if progress:
            progress(start + len(rows), count)
    return gallery


def _rgb(L: torch.Tensor, ab: torch.Tensor) -> np.ndarray:
    return ab_to_rgb8(L, ab).permute(0, 2, 3, 1).cpu().numpy()
