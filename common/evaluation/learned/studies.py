"""Studies: metrics that train a network. They are measured after the other metrics, and only if they are named.

A study is prepared once for all rows, then measures one value per photograph of each row. Values are cached by row, so
an interrupted table resumes at the row where it was. To add a study, write a function that prepares it, an entry in
STUDIES, and an entry with `per_image=None` in `common.evaluation.metrics.METRICS`.
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
from common.evaluation.bootstrap import summarize
from common.evaluation.cache import ImageValues, ValueCache, code_digest, digest, file_digest, library_versions
from common.evaluation.evaluate import Evaluation, Predict, measured_indices
from common.evaluation.learned import real_fake_classifier, semantics, small_classifier
from common.evaluation.metrics import METRICS, pick_metrics
from common.evaluation.options import MeasureOptions
from common.utils.device import pick_device, pick_precision
from common.utils.distributed import ALONE, Processes
from common.utils.errors import UserError
from common.utils.progress import Progress

Report = small_classifier.Report


class PreparedStudy(NamedTuple):
    """A study that is ready to measure rows."""

    values: Callable[[str, Predict, Report], np.ndarray]  # (row, its predictor, report) -> float64 [n]
    description: str  # for the protocol
    key: list  # what the values depend on besides the predictor and the photographs, JSON-able


@dataclass(frozen=True)
class StudyContext:
    """What a study may use.

    Attributes:
        pack: the photographs.
        predictors_for: another pack -> the predictors of all rows for that pack.
        options: which photographs are measured, and how.
        progress: where progress is reported.
    """

    pack: Pack
    predictors_for: Callable[[Pack], dict[str, Predict]]
    options: MeasureOptions
    progress: Progress

    @property
    def indices(self) -> np.ndarray:
        """Indices of the measured photographs in the pack, int [n]."""
        return measured_indices(self.pack, self.options.limit)

    def open_training(self, source: str, size: int) -> Pack:
        """The training photographs of another source, or all if it has no split."""
        listing = list_photos(source, self.options.cache)
        part = "train" if listing.has_split else "all"
        with self.progress.task(f"packing {source}") as report:
            return open_pack(listing, size, part, cache=self.options.cache, progress=report)


def _prepare_real_fake_classifier(context: StudyContext) -> PreparedStudy:
    options, pack, indices = context.options, context.pack, context.indices
    source, predictors, key = None, {}, [options.seed]
    if options.real_fake_from:
        source = context.open_training(options.real_fake_from, pack.size)
        predictors, key = context.predictors_for(source), [options.seed, source.manifest["content"]]
    count = real_fake_classifier.check_photographs(pack, indices, source)

    def values(row: str, predict: Predict, report: Report) -> np.ndarray:
        return real_fake_classifier.accuracy_values(
            predict, pack, indices=indices, training=(predictors[row], source) if source else None,
            batch_size=options.batch_size, device=pick_device(options.device), seed=options.seed, progress=report,
        )  # fmt: skip

    if source:
        trained_on = f"{count} photographs of `{options.real_fake_from}`, tested on all in color"
    else:
        in_color = int((~pack.grey[indices]).sum())
        trained_on = f"half of the photographs, tested on the other half ({in_color} in color)"
    return PreparedStudy(values, f"{real_fake_classifier.describe()}, trained on {trained_on}", key)


def _prepare_semantics(context: StudyContext) -> PreparedStudy:
    options, pack, device = context.options, context.pack, pick_device(context.options.device)
    if options.semantics_network:
        recognize, classes = semantics.timm_recognizer(options.semantics_network, device)
        side, description = None, f"timm's `{options.semantics_network}`, its ImageNet classes"
        file = options.semantics_network.partition("=")[2]
        key = [options.semantics_network, version("timm"), file_digest(Path(file)) if file else ""]
    elif options.semantics_from:
        side = min(pack.size, small_classifier.SIDE)
        source = context.open_training(options.semantics_from, side + round(side / 8))
        with context.progress.task("training the classifier of semantics") as report:
            recognize, classes = semantics.trained_recognizer(
                source, pack, size=side, device=device, seed=options.seed, cache=options.cache, progress=report
            )
        description = f"{semantics.describe(len(classes))}, trained on color photographs of `{options.semantics_from}`"
        key = [options.seed, source.manifest["content"], pack.manifest["content"]]
    else:
        raise UserError(
            "semantics needs a network: name a source of photographs in class folders with --semantics_from, or one of"
            " timm's with --semantics_network"
        )
    known = semantics.known_positions(pack, context.indices, classes)

    def values(row: str, predict: Predict, report: Report) -> np.ndarray:
        return semantics.semantics_values(
            predict, pack, recognize, classes, indices=context.indices, side=side, batch_size=options.batch_size,
            device=device,
        )  # fmt: skip

    description += f"; {len(known)} of the {len(context.indices)} photographs are of these"
    return PreparedStudy(values, description, key)


class Study(NamedTuple):
    """A metric that is measured by a study."""

    prepare: Callable[[StudyContext], PreparedStudy]
    required: tuple[str, ...] = ()  # reference rows that its numbers have to be compared with


STUDIES: dict[str, Study] = {
    "real_fake_classifier": Study(_prepare_real_fake_classifier),
    "semantics": Study(_prepare_semantics, ("grey", "original")),
}


def required_rows(metrics: Iterable[str] | None) -> list[str]:
    """Names of reference rows that must be measured, too, if these metrics are."""
    wanted = [row for name in pick_metrics(metrics) if name in STUDIES for row in STUDIES[name].required]
    return list(dict.fromkeys(wanted))


def add_studies(
    result: Evaluation, predictors: dict[str, Predict], context: StudyContext, processes: Processes = ALONE
) -> list[str]:
    """Measure the studies among an evaluation's metrics, and add their values to it.

    processes: divide the rows. Returns one sentence for each study that could not be measured, whose column then has
    no numbers; the others are still measured.
    """
    failures = []
    for name in (name for name in result.protocol["metrics"] if name in STUDIES):
        notes = result.protocol["notes"]
        try:
            prepared = _prepared(name, context, processes)
            column = _column(name, prepared, predictors, context, processes)
        except UserError as error:
            notes[name] = str(error)
            failures.append(str(error))
            continue
        notes.pop(name)
        if not notes:
            result.protocol.pop("notes")
        result.protocol["metrics"][name] = prepared.description
        result.references[name] = np.zeros(len(context.indices))  # a study has no references
        for row, values in column.items():
            result.values[row][name] = values
            result.table[row][name] = summarize(METRICS[name], values, result.references[name], groups=result.groups)
    return failures


def _prepared(name: str, context: StudyContext, processes: Processes) -> PreparedStudy:
    found: list[PreparedStudy] = []
    processes.agree(lambda: found.append(STUDIES[name].prepare(context)))
    return found[0]


def _column(
    name: str, study: PreparedStudy, predictors: dict[str, Predict], context: StudyContext, processes: Processes
) -> dict[str, np.ndarray]:
    """Values of a study by row, float64 [n]; each process measures a part of the rows."""
    device, indices = pick_device(context.options.device), context.indices
    base = digest(
        study.key, context.pack.manifest["content"], context.pack.size, indices.tolist(), device.type,
        pick_precision("auto", device), code_digest(), library_versions(),
    )  # fmt: skip
    everything, folder = np.arange(len(indices)), context.options.value_cache
    out: dict[str, np.ndarray] = {}

    def measure_mine() -> None:
        with ValueCache(folder) if folder else nullcontext() as cache:
            for row in list(predictors)[processes.rank :: processes.count]:
                key = getattr(predictors[row], "key", None)
                found = ImageValues(indices, [name], cache if key else None, digest(base, key() if key else ""))
                if found.missing(everything):
                    with context.progress.task(f"{name} of {row}") as report:
                        found.add(everything, {name: study.values(row, predictors[row], report)})
                out[row] = found[name]

    processes.agree(measure_mine)
    parts = processes.gather(out)
    return {row: next(part[row] for part in parts if row in part) for row in predictors}
