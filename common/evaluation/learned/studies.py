"""Metrics that train a network: measured row by row after the others, and only where they are asked for by name.

A study is prepared once (what it needs is read, its shared network trained), then gives one value per photograph of
each row. Values are kept like those of other metrics, so a cut-off table goes on at the row where it was. A study that
is added is a preparation and an entry in STUDIES, beside its entry in `common.evaluation.metrics.METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.data.packing import Pack, open_pack
from common.data.sources import list_photos
from common.evaluation.bootstrap import summarise
from common.evaluation.cache import ImageValues, ValueCache, code_digest, digest, file_digest
from common.evaluation.evaluate import Evaluation, Predict, measured_indices
from common.evaluation.learned import real_fake_classifier as judge
from common.evaluation.learned import semantics, small_classifier
from common.evaluation.metrics import METRICS, pick_metrics
from common.evaluation.options import MeasureOptions
from common.utils.device import pick_device, pick_precision
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError
from common.utils.progress import Progress

Report = small_classifier.Report


class Prepared(NamedTuple):
    """A study that is ready to measure rows."""

    values: Callable[[str, Predict, Report], np.ndarray]  # (row, its predictor, report) -> float64 [n]
    said: str  # how it is measured, for the protocol card
    key: list  # what its values depend on beside the predictor, JSON-able


@dataclass(frozen=True)
class Scene:
    """What studies are made of.

    Attributes:
        pack: the photographs.
        elsewhere: another pack -> the predictors of all rows for that one.
        options: which photographs are measured, and how.
    """

    pack: Pack
    elsewhere: Callable[[Pack], dict[str, Predict]]
    options: MeasureOptions
    progress: Progress

    @property
    def rows(self) -> np.ndarray:
        """Rows of the pack that are measured."""
        return measured_indices(self.pack, self.options.limit)

    def open(self, source: str, size: int) -> Pack:
        """The photographs of another source that one may learn from."""
        listing = list_photos(source, self.options.cache)
        part = "train" if listing.has_split else "all"
        with self.progress.task(f"packing {source}") as report:
            return open_pack(listing, size, part, cache=self.options.cache, progress=report)


def _prepare_judge(scene: Scene) -> Prepared:
    args, pack, rows = scene.options, scene.pack, scene.rows
    shared = {"rows": rows, "batch_size": args.batch_size, "device": pick_device(args.device), "seed": args.seed}
    if not args.real_fake_from:
        judge.check_photographs(pack, rows, None)
        said = f"half of the photographs, tested on the other half ({int((~pack.grey[rows]).sum())} in color)"
        values = lambda row, predict, report: judge.judge_values(  # noqa: E731
            {row: predict}, pack, progress=report, **shared
        )[row]
        return Prepared(values, f"{judge.describe()}, trained on {said}", [args.seed])
    other = scene.open(args.real_fake_from, pack.size)
    predictors = scene.elsewhere(other)
    count = judge.check_photographs(pack, rows, other)

    def values(row: str, predict: Predict, report: Report) -> np.ndarray:
        teaching = judge.Teaching({row: predictors[row]}, other)
        return judge.judge_values({row: predict}, pack, teaching=teaching, progress=report, **shared)[row]

    said = f"{judge.describe()}, trained on {count} photographs of `{args.real_fake_from}`, tested on all in color"
    return Prepared(values, said, [args.seed, other.manifest["content"]])


def _prepare_semantics(scene: Scene) -> Prepared:
    args, pack, device = scene.options, scene.pack, pick_device(scene.options.device)
    if args.semantics_network:
        recognize, classes = semantics.timm_recognizer(args.semantics_network, device)
        side, said = None, f"timm's `{args.semantics_network}`, its ImageNet classes"
        file = args.semantics_network.partition("=")[2]
        key = [args.semantics_network, version("timm"), file_digest(Path(file)) if file else ""]
    elif args.semantics_from:
        side = min(pack.size, small_classifier.SIDE)
        teaching = scene.open(args.semantics_from, side + round(side / 8))
        with scene.progress.task("training the classifier of semantics") as report:
            trained = semantics.trained_recognizer(
                teaching, pack, size=side, device=device, seed=args.seed, cache=args.cache, progress=report
            )
        recognize, classes = trained
        said = f"{semantics.describe(len(classes))}, trained on color photographs of `{args.semantics_from}`"
        key = [args.seed, teaching.manifest["content"], pack.manifest["content"]]
    else:
        raise UserError(
            "semantics needs a network: name a source of photographs in class folders with --semantics_from, or one of"
            " timm's with --semantics_network"
        )
    known = semantics.known_rows(pack, scene.rows, classes)

    def values(row: str, predict: Predict, report: Report) -> np.ndarray:
        return semantics.semantics_values(
            {row: predict}, pack, recognize, classes, rows=scene.rows, side=side, batch_size=args.batch_size,
            device=device, progress=report,
        )[row]  # fmt: skip

    return Prepared(values, f"{said}; {len(known)} of the {len(scene.rows)} photographs are of these", key)


class Study(NamedTuple):
    """A metric that is measured by a study."""

    prepare: Callable[[Scene], Prepared]
    beside: tuple[str, ...] = ()  # trivial rows without which its numbers say nothing
    modules: tuple = ()  # whose code decides its values


STUDIES: dict[str, Study] = {
    "real_fake_classifier": Study(_prepare_judge, modules=(judge.judge_values, small_classifier.fit)),
    "semantics": Study(
        _prepare_semantics, ("grey", "original"), (semantics.semantics_values, small_classifier.fit)
    ),
}  # fmt: skip


def required_rows(metrics: Iterable[str] | None) -> list[str]:
    """Trivial rows that must be measured, too, where these metrics are."""
    wanted = [row for name in pick_metrics(metrics) if name in STUDIES for row in STUDIES[name].beside]
    return list(dict.fromkeys(wanted))


def add_studies(
    result: Evaluation,
    predictors: dict[str, Predict],
    scene: Scene,
    processes: Processes = ALONE,
) -> list[str]:
    """Measure those studies that an evaluation was asked for, into its table, values and protocol.

    processes: those that share the rows. Returns a sentence for each study
    that could not be done, whose column then says n/a; the others are still measured.
    """
    failures = []
    for name in (name for name in result.protocol["metrics"] if name in STUDIES):
        notes = result.protocol["notes"]
        try:
            prepared = _prepared(name, scene, processes)
            column = _column(name, prepared, predictors, scene, processes)
        except UserError as error:
            notes[name] = str(error)
            failures.append(str(error))
            continue
        notes.pop(name)
        if not notes:
            result.protocol.pop("notes")
        result.protocol["metrics"][name] = prepared.said
        result.references[name] = np.zeros(len(scene.rows))  # it is held against nothing
        for row, values in column.items():
            result.values[row][name] = values
            result.table[row][name] = summarise(METRICS[name], values, result.references[name])
    return failures


def _prepared(name: str, scene: Scene, processes: Processes) -> Prepared:
    found: list[Prepared] = []
    processes.agree(lambda: found.append(STUDIES[name].prepare(scene)))
    return found[0]


def _column(
    name: str, prepared: Prepared, predictors: dict[str, Predict], scene: Scene, processes: Processes
) -> dict[str, np.ndarray]:
    device = pick_device(scene.options.device)
    manifest, everything = scene.pack.manifest, np.arange(len(scene.rows))
    base = digest(
        name, prepared.key, manifest["content"], scene.pack.size, scene.rows.tolist(), device.type,
        pick_precision("auto", device), code_digest(*STUDIES[name].modules),
    )  # fmt: skip
    out: dict[str, np.ndarray] = {}

    def mine() -> None:
        folder = scene.options.value_cache
        with ValueCache(folder) if folder else nullcontext() as cache:
            for row in list(predictors)[processes.rank :: processes.count]:
                key = getattr(predictors[row], "key", None)
                found = ImageValues(scene.rows, [name], cache if key else None, digest(base, key() if key else ""))
                if found.missing(everything):
                    with scene.progress.task(f"{name} of {row}") as report:
                        found.add(everything, {name: prepared.values(row, predictors[row], report)})
                out[row] = found[name]

    processes.agree(mine)
    parts = processes.gather(out)
    return {row: next(part[row] for part in parts if row in part) for row in predictors}
