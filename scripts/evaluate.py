"""Measure colorizers and reference rows on photographs, and print a table of metrics.

examples:
  python -m scripts.evaluate grey mean original --data demo --size 64
  python -m scripts.evaluate runs/cnn grey --data 'val-*.tar' --damage grain fading
  python -m scripts.evaluate runs/cnn best=runs/cnn/best.safetensors grey --data 'val-*.tar' --size 160 --json out.json

A MODEL is an installed model, a run folder, a .safetensors file, or one of grey, mean, shuffled, original;
NAME=MODEL gives its title.
Under torchrun, the photographs are divided among the processes:
  python -m torch.distributed.run --nproc_per_node 2 -m -- scripts.evaluate runs/cnn grey --data 'val-*.tar'
--damage also measures the rows on photographs degraded like old prints, by the given kinds or by all.
"""

from __future__ import annotations

from pathlib import Path

from common.utils.distributed import leave
from common.utils.errors import UserError, entry_point, report_failures
from common.utils.files import check_writable, write_text
from scripts.arguments import MODELS, Parser, measure_options, stack_options


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print."""
    parser = Parser("python -m scripts.evaluate", __doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{MODELS}, or reference rows; also as NAME=MODEL")
    parser.add_measuring()
    parser.add_argument("--json", type=Path, help="also write means, intervals and the protocol to this file")
    parser.add_argument("--damage", nargs="*", metavar="KIND", help="print a second table, of degraded photographs:"
                        " orthochromatic, collodion, luma, blur, grain, fading, scratches (default: all)")  # fmt: skip
    args = parser.parse_args(argv)

    from common.comparison.report.tables import damage_table, markdown_table
    from common.data.degradations import pick_damages
    from common.ensemble.stacks import resolve_stacks
    from common.evaluation.metrics import pick_metrics
    from common.evaluation.rows import load_rows, measure, measure_damage, open_measured
    from common.utils.distributed import join_processes
    from common.utils.progress import Progress

    pick_metrics(args.metrics, args.features)
    kinds = None if args.damage is None else pick_damages(args.damage)
    if args.json:
        check_writable(args.json)
    processes = join_processes()
    progress = Progress(quiet=not processes.main)
    options = measure_options(args)
    names, failures = resolve_stacks(args.models, stack_options(args, options), progress)
    rows = load_rows(names, args.device, args.temperature, args.predict_size)
    failures += rows.failures
    if not rows.by_title:
        raise UserError("; ".join(failures))
    pack = open_measured(options, rows, progress)
    progress.say(pack.describe())
    result = measure(rows, pack, options, progress, processes)
    if kinds:
        result.damage = measure_damage(rows, pack, kinds, options, progress, processes)
    failures += result.failures
    if not processes.main:
        return 1 if failures else 0
    print(markdown_table(result.table, result.protocol))
    if kinds:
        print(damage_table(result.damage))
    if args.json:
        write_text(args.json, result.to_json())
    return report_failures(failures)


if __name__ == "__main__":
    leave(main())
