"""Checks before a comparison. Each returns its findings as messages, so that the other rows can still be compared."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
import yaml

from common.checkpoint import WEIGHTS, read_card
from common.colorizer import Batch
from common.data.packing import Pack
from common.evaluation.metrics import METRICS, metric_name
from common.evaluation.rows import Rows, run_folder
from common.utils.errors import UserError, near, one_sentence


def known_metrics(names: Iterable[str] | None) -> tuple[list[str] | None, list[str]]:
    """Split names into known metrics, without duplicates, and one message for each unknown name.

    `default` is a known name; None returns (None, []). Raises UserError if no name is known.
    """
    if names is None:
        return None, []
    names = list(dict.fromkeys(map(metric_name, names)))
    there = (*METRICS, "default")
    known = [n for n in names if n in there]
    wrong = [f"'{n}' is not a metric: use {', '.join(METRICS)}{near(n, METRICS)}" for n in names if n not in there]
    if not known:
        raise UserError("; ".join(wrong))
    return known, wrong


def unfinished(rows: Rows) -> list[str]:
    """Return one warning for each model whose training run is not finished. Runs whose folder cannot be read give no
    warning.
    """
    folders: dict[Path, str] = {}
    for title, path in rows.paths.items():
        folder = run_folder(path)
        if folder:
            folders.setdefault(folder, title)
    found = ((title, folder, _left(folder)) for folder, title in folders.items())
    return [
        f"{title} is not finished: {folder} is {left}; its last saved weights are measured; its training command"
        " resumes it"
        for title, folder, left in found
        if left
    ]


def _left(folder: Path) -> str:
    """How far a run has come, as `at step 100 of 500`; "" if it is finished, or if its folder does not tell."""
    try:
        card = read_card(folder / WEIGHTS)
        saved = folder / "config.yaml"
        config = yaml.safe_load(saved.read_text()) if saved.exists() else card["config"]
        photographs = card["trained_on"]["count"] - card["trained_on"]["grey"]
        ends = [
            ("step", card["steps"], config.get("steps")),
            ("epoch", (card["images"] + config.get("batch_size", 1)) / photographs, config.get("epochs")),
            ("step", card["steps"], config.get("budget") and card.get("planned_steps")),
        ]
    except Exception:  # incomplete and damaged folders raise nearly every type
        return ""
    ends = [end for end in ends if end[2]]
    if not ends or config.get("early_stop") or any(at >= end for _, at, end in ends):
        return ""
    unit, at, end = ends[0]
    return f"at {unit} {at:.4g} of {end:g}" if isinstance(at, float) else f"at {unit} {at} of {end}"


def smaller_photographs(pack: Pack) -> list[str]:
    """Return a list with one warning if images were upsampled to the evaluation size, else an empty list."""
    count, all_ = pack.manifest.get("smaller", 0), pack.manifest["photographs"]
    if not count:
        return []
    subject = f"{count} of {all_} photographs are" if all_ > 1 else "the photograph is"
    return [
        f"{subject} smaller than {pack.size} px and had to be enlarged, so measured pixels are partly interpolated:"
        " choose a smaller --size"
    ]


def other_sizes(rows: Rows, size: int) -> list[str]:
    """A message that names the models that were trained at another size than the measured one."""
    other = [f"{title} ({card['size']} px)" for title, card in rows.cards.items() if card.get("size", size) != size]
    return [f"trained at another size than the {size} px measured: {', '.join(other)}"] if other else []


@torch.no_grad()
def drop_unfit(rows: Rows, pack: Pack, device: torch.device) -> list[str]:
    """Remove the models that cannot colorize a photograph of the pack, and return one message for each."""
    indices = np.arange(1)
    batch = Batch(*(x.to(device) for x in pack.lab(indices)))
    wrong = []
    for title, predict in list(rows.predictors.items()):
        if title not in rows.cards:
            continue
        try:
            ab = predict(batch, indices)
            reason = "" if ab.isfinite().all() else "it predicts colors that are not finite: its training diverged"
        except (UserError, RuntimeError, ValueError) as error:
            reason = one_sentence(error)
        if reason:
            wrong.append(f"{title} cannot colorize pictures of {pack.size} px ({reason}): leave it out")
            del rows.by_title[title]
    return wrong
