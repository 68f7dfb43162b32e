"""Rows of a table: from names on a command line to predictors that are measured under the same conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from common.checkpoint import installed_models, weights_file
from common.colorizer import Colorizer
from common.data.color_prior import read_prior
from common.data.fingerprints import resembling
from common.data.packing import Pack, open_pack
from common.data.sources import list_photos, without_shares
from common.evaluation.evaluate import (
    TRIVIAL,
    Cell,
    Evaluation,
    Predict,
    damaged,
    evaluate,
    model_predictor,
    trivial_predictor,
)
from common.evaluation.learned.studies import StudyContext, add_studies, required_rows
from common.evaluation.metrics import brief_metrics
from common.evaluation.options import MeasureOptions
from common.registry import load_colorizer
from common.utils.device import machine, pick_device
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError, near
from common.utils.expressions import is_ensemble, split_title
from common.utils.options import check_value
from common.utils.progress import Progress
from common.utils.titles import unique_title

_JSON_KEYS = ("protocol", "damage", "comparison")  # other keys of a table's JSON file


@dataclass
class Row:
    """One row of a table: a model, or a reference row.

    Attributes:
        title: unique within the table.
        predictor: None for a reference row that has not been prepared for a pack.
        trivial: the name of a reference row; "" for a model.
        card: of a model.
        path: run folder or weights file of a model; None for a mean of models, which has no file.
        fingerprints: uint8 [n, 16], of the photographs that a model was trained on; None if they are unknown.
        colorizer: of a model.
    """

    title: str
    predictor: Predict | None = None
    trivial: str = ""
    card: dict | None = None
    path: Path | None = None
    fingerprints: np.ndarray | None = None
    colorizer: Colorizer | None = None


@dataclass
class Rows:
    """Rows by title, and one sentence for each name that could not be loaded."""

    by_title: dict[str, Row] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """Add a row. Its title gets a number if it is taken by another row or a key of the table's JSON file."""
        reserved = (*_JSON_KEYS, *(name for name in TRIVIAL if name != row.trivial))
        row.title = unique_title(row.title, {*self.by_title, *reserved})
        self.by_title[row.title] = row

    @property
    def predictors(self) -> dict[str, Predict]:
        """Predictors by title, of models and of the reference rows that are prepared."""
        return {title: row.predictor for title, row in self.by_title.items() if row.predictor}

    @property
    def cards(self) -> dict[str, dict]:
        """Cards of the models by title."""
        return {title: row.card for title, row in self.by_title.items() if row.card}

    @property
    def paths(self) -> dict[str, Path]:
        """Run folders or weights files of the models by title."""
        return {title: row.path for title, row in self.by_title.items() if row.path}

    @property
    def of_unknown_training(self) -> list[str]:
        """Titles of the models whose weights do not record their training photographs."""
        return [title for title, row in self.by_title.items() if row.card and row.fingerprints is None]

    def prepared(self, pack: Pack, mean_ab: Sequence[float] | None, seed: int) -> dict[str, Predict]:
        """Predictors of all rows by title, the trivial ones for this pack. See `trivial_predictor`."""
        return {
            title: trivial_predictor(row.trivial, pack, mean_ab, seed) if row.trivial else row.predictor
            for title, row in self.by_title.items()
        }


def load_rows(
    names: Sequence[str], device: str, temperatures: Sequence[float] | None = None, predict_size: int | None = None
) -> Rows:
    """Load models; reference rows are prepared later, when the photographs are known.

    names: each a weights file, a run folder, the name of an installed model or of a reference row, or `mean(a,b)`;
    `NAME=...` gives the row's title. temperatures: a model that predicts distributions gets one row per temperature
    (default: one row, at its own). predict_size: see `MeasureOptions`. A name that cannot be loaded is added to the
    failures, so that the other rows can still be measured. Raises UserError if temperatures are given and no model has
    one.
    """
    rows, used = Rows(), False
    for name in names:
        title, path = split_title(name)
        if path in TRIVIAL:
            if title or path not in rows.by_title:
                rows.add(Row(title or path, trivial=path))
            continue
        try:
            colorizer, file = _load_model(path, device)
        except UserError as error:
            rows.failures.append(str(error))
            continue
        title = title or colorizer.card.get("name") or Path(path).stem
        tempered = temperatures if colorizer.temperature else None
        used = used or bool(tempered)
        for temperature in tempered or [None]:
            suffix = "" if temperature is None else f" T={temperature:g}"
            predictor = model_predictor(colorizer, temperature, predict_size)
            rows.add(Row(title + suffix, predictor, "", colorizer.card, file, colorizer.fingerprints, colorizer))
    if temperatures and not used:
        raise UserError("--temperature requires a classification model, and no row is one: add one, or leave it out")
    return rows


def _load_model(path: str, device: str) -> tuple[Colorizer, Path | None]:
    """(colorizer, its run folder or weights file; None for an ensemble)."""
    if is_ensemble(path):
        return load_colorizer(path, pick_device(device)), None
    if not Path(path).exists() and path not in installed_models():
        known = [*TRIVIAL, *installed_models()]
        raise UserError(
            f"row {path} is not a run folder, a weights file, mean(a,b), stack(a,b) or one of"
            f" {', '.join(known)}{near(path, known)}"
        )
    file = Path(path) if Path(path).exists() else weights_file(path)
    return load_colorizer(path, pick_device(device)), file


def open_measured(options: MeasureOptions, rows: Rows, progress: Progress) -> Pack:
    """The pack of the photographs that are measured.

    If no size is given, it is the largest that a model was trained at. If no split is given, it is the source's own
    validation part; if a model was trained on a part of this source, the part that it was not trained on; else all.
    Photographs that a model was trained on are held out, unless the options include them (`without_trained`). Raises
    UserError for a size outside of 16 to 4096, and if no photograph is left.
    """
    cards = rows.cards
    size = options.size
    if size is None:
        size = max((card["size"] for card in cards.values()), default=64)
    check_value("size", size, 16 <= size <= 4096, "16 to 4096 pixels")
    data, listing = options.data, list_photos(options.data, options.cache)
    if len({photo.share for photo in listing.photos} - {1.0}):
        raise UserError(f"--data is {data}: shares are for training, leave them out")
    split, fraction = options.split, options.val_fraction
    if split == "auto":
        split = listing.measured_split
        for title, card in ((t, inner) for t, whole in cards.items() for inner in _with_member_cards(whole)):
            seen = card.get("trained_on") or {}
            same = Path(without_shares(str(seen.get("source")))).resolve() == Path(data).resolve()
            if split == "all" and seen.get("split") == "train" and same:
                split, fraction = "val", card["config"]["data"]["val_fraction"]
                progress.say(f"{title} was trained on a part of {data}: the rest is measured (--split all: all)")
    with progress.task(f"packing {data}") as report:
        pack = open_pack(listing, size, split, val_fraction=fraction, cache=options.cache, progress=report)
    return pack if options.include_trained else without_trained(pack, rows, progress)


def without_trained(pack: Pack, rows: Rows, progress: Progress) -> Pack:
    """A copy of the pack that holds out all photographs that a model was trained on, or copies of them.

    Reports their number, and the models whose training photographs are unknown. Raises UserError if none is left.
    """
    held_out = np.zeros(len(pack), dtype=bool)
    for title, row in rows.by_title.items():
        if row.fingerprints is None:
            continue
        trained = resembling(pack.fingerprints, row.fingerprints)
        held_out |= trained
        if trained.any():
            progress.say(f"{title} was trained on {int(trained.sum())} of the {len(pack)} photographs, or copies of"
                         " them: they are not measured (--include_trained measures them)")  # fmt: skip
    if held_out.all():
        raise UserError(
            f"the models were trained on all photographs of {pack.manifest['source']}: name others with --data, or"
            " measure them all the same with --include_trained"
        )
    if unknown := rows.of_unknown_training:
        progress.say(f"{', '.join(unknown)}: the weights do not record their training photographs, so these may be"
                     " among the measured ones")  # fmt: skip
    return replace(pack, held_out=held_out)


def _with_member_cards(card: dict) -> list[dict]:
    """A card and, of an ensemble, the cards of its members and of their members."""
    members = card.get("model", {}).get("members", [])
    return [card, *(inner for member in members if isinstance(member, dict) for inner in _with_member_cards(member))]


def measure(
    rows: Rows, pack: Pack, options: MeasureOptions, progress: Progress, processes: Processes = ALONE
) -> Evaluation:
    """Evaluate the rows on a pack.

    The reference rows are prepared for this pack, and the rows that a metric requires (`required_rows`) are added.
    """
    mean_ab, mean_of = _mean_color(rows, pack, options)
    present = {row.trivial for row in rows.by_title.values()}
    for name in required_rows(options.metrics):
        if name not in present:
            rows.add(Row(name, trivial=name))
    for title, predictor in rows.prepared(pack, mean_ab, options.seed).items():
        rows.by_title[title].predictor = predictor
    with progress.task("evaluating") as report:
        result = evaluate(
            rows.predictors, pack, options.metrics, limit=options.limit, group=options.group,
            batch_size=options.batch_size, device=pick_device(options.device), seed=options.seed, progress=report,
            features=options.features, cache=options.value_cache, processes=processes,
            prior=read_prior(options.prior) if options.prior else None,
        )  # fmt: skip
    result.protocol |= {"machine": machine()} | ({"mean_of": mean_of} if "mean" in rows.by_title else {})
    result.protocol["of_unknown_training"] = rows.of_unknown_training
    result.protocol["models"] = {
        title: {k: card[k] for k in ("family", "size", "parameters", "trained_on", "steps", "images", "seconds")}
        for title, card in rows.cards.items()
    }
    context = StudyContext(pack, lambda other: rows.prepared(other, mean_ab, options.seed), options, progress)
    result.failures += add_studies(result, rows.predictors, context, processes)
    return result


def measure_damage(
    rows: Rows, pack: Pack, kinds: Sequence[str], options: MeasureOptions, progress: Progress,
    processes: Processes = ALONE,
) -> dict[str, dict[str, dict[str, Cell]]]:  # fmt: skip
    """Evaluate the rows, as `measure` has prepared them, on undamaged photographs and under each kind of damage.

    Returns [row][kind][metric] for the `brief_metrics`; the first kind is `none`.
    """
    out: dict[str, dict[str, dict[str, Cell]]] = {title: {} for title in rows.predictors}
    for kind in ["none", *kinds]:
        predictors = {t: p if kind == "none" else damaged(p, kind, options.seed) for t, p in rows.predictors.items()}
        with progress.task(f"evaluating, damage {kind}") as report:
            result = evaluate(
                predictors, pack, brief_metrics(), limit=options.limit, group=options.group,
                batch_size=options.batch_size, device=pick_device(options.device), seed=options.seed, progress=report,
                cache=options.value_cache, processes=processes,
            )  # fmt: skip
        for title, cells in result.table.items():
            out[title][kind] = cells
    return out


def _mean_color(rows: Rows, pack: Pack, options: MeasureOptions) -> tuple[list[float], str]:
    """(the color of the row `mean`, in words what it is the mean of)."""
    if options.mean_from:
        training = open_pack(
            options.mean_from, pack.size, "train", val_fraction=options.val_fraction, cache=options.cache
        )
        return training.manifest["mean_ab"], f"the training part of `{options.mean_from}`"
    for card in rows.cards.values():
        return card["trained_on"]["mean_ab"], f"the training photographs of `{card['name']}`"
    return pack.manifest["mean_ab_with_grey"], "the measured pictures themselves (no training set was named)"


def run_folder(path: Path) -> Path | None:
    """The run folder that contains these weights, or None if they are not in one."""
    folder = path if path.is_dir() else path.parent
    return folder if (folder / "metrics.jsonl").exists() else None
