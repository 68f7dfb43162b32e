"""Rows of a table: from names on a command line to predict functions, measured alike."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from common.checkpoint import installed_models, weights_file
from common.colorizer import Colorizer
from common.data.color_prior import read_prior
from common.data.packing import Pack, open_pack
from common.data.sources import cache_dir, list_photos
from common.ensemble.expressions import cards_within, parse_ensemble, split_title
from common.evaluation.evaluate import (
    TRIVIAL,
    Evaluation,
    Predict,
    damaged,
    evaluate,
    model_predictor,
    trivial_predictor,
)
from common.evaluation.learned.studies import Scene, add_studies, rows_beside
from common.registry import load_colorizer
from common.utils.device import machine, pick_device
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError, near
from common.utils.progress import Progress

DAMAGE_METRICS = ("rmse_ab", "auc", "colorfulness_ratio")


@dataclass
class Rows:
    """Predictors by row name, the cards of those that are models, and what could not be read."""

    predictors: dict[str, Predict] = field(default_factory=dict)
    cards: dict[str, dict] = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def open_measured(args: argparse.Namespace, rows: Rows, progress: Progress) -> Pack:
    """The pack that the options of `Parser.add_measuring` name.

    Without a size, the largest that a model was trained at. Without a split, the source's own validation part; of a
    source that a model was trained on a part of, the part that it did not see; else all.
    """
    size = args.size or max((card["size"] for card in rows.cards.values()), default=64)
    if not 16 <= size <= 4096:
        raise UserError(f"size is {size}: it takes 16 to 4096 pixels")
    listing, split, fraction = list_photos(args.data, args.cache), args.split, args.val_fraction
    if split == "auto":
        split = listing.measured_split
        for title, card in ((t, inner) for t, whole in rows.cards.items() for inner in cards_within(whole)):
            seen = card["trained_on"]
            if split == "all" and seen["split"] == "train" and Path(seen["source"]) == Path(args.data):
                split, fraction = "val", card["config"]["data"]["val_fraction"]
                progress.say(f"{title} was trained on a part of {args.data}: the rest is measured (--split all: all)")
    with progress.task(f"packing {args.data}") as report:
        return open_pack(listing, size, split, val_fraction=fraction, cache=args.cache, progress=report)


def load_rows(
    names: list[str],
    device: str,
    temperatures: list[float] | None = None,
    args: argparse.Namespace | None = None,
) -> Rows:
    """Load models: each a weights file, run folder, installed name, or `mean(a,b)` or `stack(a,b)` of such.

    `NAME=...` names a row. Trivial names are kept for later. temperatures: a model that predicts distributions gets a
    row for each (default: one, at its own). args: the parsed command line, which says how stacks are trained (see
    `without_stacks`; without it they are refused). What cannot be read becomes a failure, not an exception: the other
    rows are still worth a table.
    """
    rows, used = Rows(), False
    for name in names:
        title, path = split_title(name)
        if path in TRIVIAL:
            told = path if title in ("", path) else _free_title(title, rows.predictors)
            rows.predictors[told] = path  # type: ignore[assignment]
            continue
        try:
            colorizer, file = _load_row(path, device, args)
        except UserError as error:
            rows.failures.append(str(error))
            continue
        title = title or row_title(colorizer.card, path)
        tempered = temperatures if colorizer.temperature else None
        used = used or bool(tempered)
        for temperature in tempered or [None]:
            told = title if temperature is None else f"{title} T={temperature:g}"
            told = _free_title(told, rows.predictors)
            rows.predictors[told] = model_predictor(colorizer, temperature)
            rows.cards[told] = colorizer.card
            if file:
                rows.paths[told] = file
    if temperatures and not used:
        raise UserError("--temperature is given and no row predicts a distribution: name a classification model")
    return rows


def _load_row(path: str, device: str, args: argparse.Namespace | None) -> tuple[Colorizer, Path | None]:
    """(the colorizer, its run folder or weights; None for a mean, which has none)."""
    if expression := parse_ensemble(path):
        from common.ensemble.stacks import without_stacks

        path = without_stacks(expression, args, Progress())
    elif not Path(path).exists() and path not in installed_models():
        known = [*TRIVIAL, *installed_models()]
        raise UserError(
            f"row {path} is no run folder, no weights file, no mean(a,b) or stack(a,b), and none of"
            f" {', '.join(known)}{near(path, known)}"
        )
    file = None if parse_ensemble(path) else Path(path) if Path(path).exists() else weights_file(path)
    return load_colorizer(path, pick_device(device)), file


def row_title(card: dict, path: str) -> str:
    """What a row is called that nobody named: by its card; a stack by its members, as it is written."""
    if card["family"] == "ensemble" and parse_ensemble(path):
        return f"{card['model']['kind']}({','.join(member.get('name', '?') for member in card['model']['members'])})"
    return card.get("name") or Path(path).stem


def _free_title(title: str, taken: dict) -> str:
    count, free = 1, title
    while free in taken or free in (*TRIVIAL, "protocol", "damage", "comparison"):  # the JSON's own keys
        count += 1
        free = f"{title} ({count})"
    return free


def with_trivial(
    predictors: dict[str, Predict | str], pack: Pack, mean_ab: list[float] | None, seed: int
) -> dict[str, Predict]:
    """The same predictors, with those that are names of trivial rows made ready for a pack."""
    return {
        title: trivial_predictor(predict, pack, mean_ab, seed) if isinstance(predict, str) else predict
        for title, predict in predictors.items()
    }


def keep_folder(args: argparse.Namespace) -> Path | None:
    """Where the options of `Parser.add_measuring` have measured values kept."""
    return None if args.no_keep else args.keep or cache_dir(args.cache) / "measured"


def measure(
    rows: Rows, pack: Pack, args: argparse.Namespace, progress: Progress, processes: Processes = ALONE
) -> Evaluation:
    """Evaluate the rows on a pack; fills in the trivial ones, and adds those that a metric is read beside."""
    mean_ab, mean_of = _mean_color(rows, pack, args)
    named = rows.predictors | {r: r for r in rows_beside(args.metrics) if r not in rows.predictors.values()}
    rows.predictors = with_trivial(named, pack, mean_ab, args.seed)
    with progress.task("evaluating") as report:
        result = evaluate(
            rows.predictors, pack, args.metrics, limit=args.limit, batch_size=args.batch_size,
            device=pick_device(args.device), seed=args.seed, progress=report, features=args.features,
            keep=keep_folder(args), processes=processes,
            prior=read_prior(args.prior) if args.prior else None,
        )  # fmt: skip
    result.protocol |= {"machine": machine()} | ({"mean_of": mean_of} if "mean" in rows.predictors else {})
    result.protocol["models"] = {
        title: {k: card[k] for k in ("family", "size", "parameters", "trained_on", "steps", "images", "seconds")}
        for title, card in rows.cards.items()
    }
    scene = Scene(pack, lambda other: with_trivial(named, other, mean_ab, args.seed), args, progress)
    rows.failures += add_studies(result, rows.predictors, scene, keep_folder(args), processes)
    return result


def measure_damage(
    rows: Rows, pack: Pack, kinds: list[str], args: argparse.Namespace, progress: Progress, processes: Processes = ALONE
) -> dict[str, dict[str, dict[str, dict]]]:
    """Evaluate the rows, as `measure` has filled them in, under each kind of damage and under none.

    Returns [row][kind][metric] of DAMAGE_METRICS, as in an evaluation's table; the first kind is `none`.
    """
    out: dict[str, dict[str, dict[str, dict]]] = {title: {} for title in rows.predictors}
    for kind in ["none", *kinds]:
        shown = {t: p if kind == "none" else damaged(p, kind, args.seed) for t, p in rows.predictors.items()}
        with progress.task(f"evaluating, damage {kind}") as report:
            result = evaluate(
                shown, pack, DAMAGE_METRICS, limit=args.limit, batch_size=args.batch_size,
                device=pick_device(args.device), seed=args.seed, progress=report,
                keep=keep_folder(args), processes=processes,
            )  # fmt: skip
        for title, measured in result.table.items():
            out[title][kind] = measured
    return out


def _mean_color(rows: Rows, pack: Pack, args: argparse.Namespace) -> tuple[list[float], str]:
    if args.mean_from:
        training = open_pack(args.mean_from, pack.size, "train", val_fraction=args.val_fraction, cache=args.cache)
        return training.manifest["mean_ab"], f"the training part of `{args.mean_from}`"
    for card in rows.cards.values():
        return card["trained_on"]["mean_ab"], f"what `{card['name']}` was trained on"
    return pack.manifest["mean_ab_with_grey"], "the measured pictures themselves (no training set was named)"


def run_folder(path: Path) -> Path | None:
    """The run folder that weights lie in, where they lie in one."""
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "metrics.jsonl").exists() else None
