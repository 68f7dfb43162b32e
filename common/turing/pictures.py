"""The pictures of a study. An original and its colorization differ in nothing but their colors.

Both are converted in the same way: L and ab -> `ab_to_rgb8` -> bicubic to 256 px -> one JPEG without metadata that
contains the two side by side. One response per pair leaves no order, name, header or size to compare. The JPEGs of
the two orders are padded to the same length, so the length of a response does not reveal the side of the fake.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from common.data.packing import Pack
from common.evaluation.evaluate import Predict, trivial_predictor
from common.evaluation.rows import Rows
from common.evaluation.sheets import render
from common.imaging.write import encode_jpeg
from common.turing.trials import SIDES, Side, Study, Trial, check_counts, choose_photos, color_donor
from common.utils.errors import UserError

DISPLAY_SIZE = 256  # side of a displayed picture, in CSS pixels
_VIGILANCE = "\0vigilance"  # cannot be the title of a model
_PADDING = 4096  # padded lengths are multiples of this, in bytes
_BATCH = 16


class StudyInputs(NamedTuple):
    """A study, and the predictors and photographs that its pictures are computed from."""

    study: Study
    predictors: dict[str, Predict]  # by title
    pack: Pack
    indices: np.ndarray  # int [P], of the photographs in the pack, in the order of `study.photos`


def study_predictors(rows: Rows, pack: Pack, seed: int) -> dict[str, Predict]:
    """Predictors of the models and reference rows, by title.

    Raises UserError if a row could not be loaded, or is the row `original`, which is not a colorization.
    """
    if rows.failures:
        raise UserError("; ".join(rows.failures))
    mean_ab = next((card["trained_on"]["mean_ab"] for card in rows.cards.values() if "trained_on" in card), None)
    if any(row.trivial == "original" for row in rows.by_title.values()):
        raise UserError("the original is already displayed beside every colorization: leave the row original out")
    return rows.prepared(pack, mean_ab, seed)


def plan_study(
    rows: Rows, pack: Pack, *, practice: int, test: int, vigilance: float, photographs: int | None, seed: int
) -> StudyInputs:
    """Choose the photographs of a study and fix its record.

    Grey photographs are skipped, because an original without color reveals itself.

    rows: two or more models or reference rows.
    practice, test: pairs per session. vigilance: share of the test pairs that are vigilance pairs.
    photographs: maximum number of photographs (None: all).
    Raises UserError if there are fewer color photographs than pairs in a session, or fewer than two rows.
    """
    predictors = study_predictors(rows, pack, seed)
    if len(predictors) < 2:
        raise UserError(
            "one model only: shares are comparable only within one study, so name a second model, for example grey"
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
    return StudyInputs(study, predictors, pack, chosen)


def _fingerprint(path: Path | None, card: dict | None) -> bytes:
    if path is None:  # an ensemble has no file of its own, but its card contains those of its members
        return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).digest() if card else b"trivial"
    from common.checkpoint import WEIGHTS

    return hashlib.sha256((path / WEIGHTS if path.is_dir() else path).read_bytes()).digest()


class Gallery:
    """All pairs of a study as JPEGs in memory, by photograph, model and side of the fake."""

    def __init__(self) -> None:
        self._pairs: dict[tuple[int, str, Side], bytes] = {}

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, photo: int, model: str, original: np.ndarray, fake: np.ndarray) -> None:
        """Encode a pair in both orders. original, fake: uint8 [S, S, 3] sRGB."""
        original, fake = _displayed(original), _displayed(fake)
        orders = [encode_jpeg(np.hstack(pair), 95) for pair in ((fake, original), (original, fake))]
        length = -(-max(map(len, orders)) // _PADDING) * _PADDING
        for side, data in zip(SIDES, orders, strict=True):
            self._pairs[photo, model, side] = data.ljust(length, b"\0")  # decoders ignore bytes after the end

    def pair(self, model: str, trial: Trial) -> bytes:
        """The JPEG of a trial in a session of this model."""
        return self._pairs[trial.photo, _VIGILANCE if trial.kind == "vigilance" else model, trial.fake]


def _displayed(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).resize((DISPLAY_SIZE, DISPLAY_SIZE), Image.Resampling.BICUBIC))


def make_gallery(
    inputs: StudyInputs, device: str | torch.device = "cpu", progress: Callable[[int, int], None] | None = None
) -> Gallery:
    """Colorize and encode all pairs of a study, so that the server only looks them up.

    The gallery takes about 0.1 MB of memory per pair and order. progress: called with (done, total) photographs.
    Raises UserError if a prediction is not finite.
    """
    gallery, study, pack = Gallery(), inputs.study, inputs.pack
    count = len(inputs.indices)
    for start in range(0, count, _BATCH):
        indices = inputs.indices[start : start + _BATCH]
        donors = np.array([inputs.indices[color_donor(start + i, count, study.seed)] for i in range(len(indices))])
        rows = {_VIGILANCE: lambda batch, _, donors=donors: pack.lab(donors)[1].to(device)} | inputs.predictors
        originals = render(trivial_predictor("original", pack), pack, indices, device=device)
        for title, predict in rows.items():
            for i, fake in enumerate(render(predict, pack, indices, name=title, device=device)):
                gallery.add(start + i, title, originals[i], fake)
        if progress:
            progress(start + len(indices), count)
    return gallery
