"""Compare trained colorizers and reference rows: one table with confidence intervals, one report.

examples:
  python -m scripts.compare runs/cnn runs/resnet18 runs/pix2pix --data demo --size 64 --out runs/comparison
  python -m scripts.compare regression=runs/cnn runs/pix2pix --data 'val-*.tar' --size 128 --out comparison
  python -m scripts.compare mine=runs/mine_s0,runs/mine_s1,runs/mine_s2 runs/other --data 'val-*.tar' --out comparison
  python -m scripts.compare runs/a runs/b 'mean(runs/a,runs/b)' 'stack(runs/a,runs/b)' --data 'val-*.tar' --out both
  python -m scripts.compare --suite experiments/suites/all.yaml --budget 10m
  python -m scripts.compare --checkpoints runs/mine --out runs/mine/checkpoints

Writes report.html (one file, for any browser), table.md, table.csv, table.tex, results.json, grid.png and, where run
folders are given, curves.png; bars.png with --bars; checkpoints.md and checkpoints.png with --checkpoints;
photographs.png where models differ in the number of training photographs only. Seeds of one experiment are compared as
one; NAME=A,B,C names such a group. The runs of a suite are trained first; interrupted runs are resumed, and finished
runs are not trained again.
"""

from __future__ import annotations

from pathlib import Path

from common.utils.distributed import leave
from common.utils.errors import UserError, entry_point, report_failures
from scripts.arguments import MODELS, Parser, measure_options, natural, positive, stack_options


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, compare, print."""
    parser = Parser("python -m scripts.compare", __doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{MODELS}, mean(a,b) or stack(a,b), also as"
                        " NAME=MODEL; seeds as NAME=A,B,C")  # fmt: skip
    parser.add_measuring(required=False)
    parser.add_argument("--out", type=Path, help="folder for the results")
    parser.add_suite()
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="RUN",
        help="compare the weights that this run kept with"
        " --keep_every, its best and its last ones (default of --data: its validation photographs)",
    )
    parser.add_argument("--photos", type=positive, default=8, help="photographs per grid")
    parser.add_argument("--bars", action="store_true", help="also draw the metrics as bars with intervals (bars.png)")
    parser.add_argument("--grid_seed", type=natural, default=0, help="seed of the grid of random photographs")
    parser.add_argument("--seen", help="source that the models were trained on, of which a separate grid is drawn")
    args = parser.parse_args(argv)
    parser.check_suite(args)

    from common.comparison.check import drop_unfit, known_metrics, other_sizes, smaller_photographs, unfinished
    from common.comparison.checkpoints import kept_checkpoints, own_validation, write_checkpoints
    from common.comparison.groups import expand_groups
    from common.comparison.report.report import ReportOptions, write_report
    from common.comparison.suite import TrainedSuite, read_suite, train_suite
    from common.ensemble.stacks import resolve_stacks
    from common.evaluation.evaluate import TRIVIAL
    from common.evaluation.rows import load_rows, measure, open_measured
    from common.utils.device import pick_device
    from common.utils.distributed import join_processes
    from common.utils.progress import Progress

    processes = join_processes()
    if args.suite and processes.count > 1:
        raise UserError(
            "--suite does not support torchrun: run it in one process, or train with torchrun -m scripts.train first"
        )
    progress = Progress(quiet=not processes.main)
    done = TrainedSuite(args.models)
    checkpoints = kept_checkpoints(args.checkpoints) if args.checkpoints else []
    if checkpoints:
        done = TrainedSuite([f"{c.title}={c.path}" for c in checkpoints])
        if not args.data:
            args.data, args.val_fraction = own_validation(args.checkpoints)
    if args.suite:
        suite = read_suite(args.suite).overridden(
            train=args.train, data=args.data, size=args.size, cache=args.cache, metrics=args.metrics, out=args.out
        )
        done = train_suite(suite, args.budget, {} if args.device == "auto" else {"device": args.device}, progress)
        done.rows += args.models
        args.data, args.size, args.cache = suite.measured_source, suite.data.get("size"), suite.data.get("cache")
        args.metrics, args.out, args.stacks = suite.metrics, suite.out, args.stacks or suite.runs / "stacks"
    args.metrics, wrong = known_metrics(args.metrics)
    options = measure_options(args)
    names, groups = expand_groups(done.rows)
    names, failures = resolve_stacks(names, stack_options(args, options), progress)
    names = [*names, *(name for name in TRIVIAL if name not in names)]
    rows = load_rows(names, args.device, args.temperature, args.predict_size)
    failures = done.failures + failures + rows.failures
    if not rows.cards:
        raise UserError("; ".join(failures) or "no model is given: name a run folder or weights")
    pack = open_measured(options, rows, progress)
    progress.say(pack.describe())
    wrong += failures + drop_unfit(rows, pack, pick_device(args.device))
    if not rows.cards:
        raise UserError("; ".join(wrong))
    wrong += ([] if checkpoints else unfinished(rows)) + smaller_photographs(pack)
    result = measure(rows, pack, options, progress, processes)
    wrong += result.failures
    remarks = wrong + other_sizes(rows, pack.size)
    if not processes.main:
        return 1 if wrong else 0
    report_options = ReportOptions(
        args.out, args.photos, args.grid_seed, args.seen, args.batch_size, args.device, args.val_fraction, args.cache,
        args.bars,
    )  # fmt: skip
    written = write_report(result, rows, pack, report_options, groups=groups, remarks=remarks, progress=progress)
    print(written.summary)
    files = written.files
    if checkpoints:
        more, best = write_checkpoints(checkpoints, written.comparison, args.out)
        files = [*files, *more]
        print(f"\n{best}")
    print(f"written: {files[0]}, " + ", ".join(path.name for path in files[1:]))
    return report_failures(wrong)


if __name__ == "__main__":
    leave(main())
