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
--mean_chroma prints the mean a and b of photographs, true and predicted, with the squared error, and writes them.
--draws prints how much several samples of one photograph differ; it is 0 for models without noise.
"""

from __future__ import annotations

from pathlib import Path

from common.utils.distributed import leave
from common.utils.errors import UserError, entry_point, report_failures
from common.utils.files import check_writable, write_text
from scripts.arguments import MODELS, Parser, measure_options, positive, stack_options


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print."""
    parser = Parser("python -m scripts.evaluate", __doc__)
    parser.add_argument("models", nargs="+", metavar="MODEL", help=f"{MODELS}, or reference rows; also as NAME=MODEL")
    parser.add_measuring()
    parser.add_argument("--json", type=Path, help="also write means, intervals and the protocol to this file")
    parser.add_argument("--damage", nargs="*", metavar="KIND", help="print a second table, of degraded photographs:"
                        " orthochromatic, collodion, luma, blur, grain, fading, scratches (default: all)")  # fmt: skip
    parser.add_argument("--mean_chroma", type=Path, metavar="FILE", help="also write the mean a and b of each"
                        " photograph to this CSV file")  # fmt: skip
    parser.add_argument("--draws", type=positive, metavar="N", help="also compare N samples of each photograph")
    parser.add_argument("--draws_sheet", type=Path, metavar="FILE", help="with --draws: draw the samples of eight"
                        " photographs side by side into this picture")  # fmt: skip
    args = parser.parse_args(argv)
    if args.draws == 1 or (args.draws_sheet and not args.draws):
        parser.error(f"--draws: must be 2 samples or more, got {args.draws or 'none'}")
    if args.draws_sheet and args.draws_sheet.suffix not in (".png", ".jpg"):
        parser.error(f"--draws_sheet: must be a .png or .jpg file, got {args.draws_sheet}")

    from PIL import Image

    from common.comparison.report.tables import damage_table, draws_table, markdown_table
    from common.data.degradations import pick_damages
    from common.ensemble.stacks import resolve_stacks
    from common.evaluation.draws import difference_of_draws, draws_columns
    from common.evaluation.mean_chroma import mean_chroma
    from common.evaluation.metrics import pick_metrics
    from common.evaluation.rows import load_rows, measure, measure_damage, open_measured
    from common.evaluation.sheets import sheet
    from common.utils.device import pick_device
    from common.utils.distributed import join_processes
    from common.utils.progress import Progress

    pick_metrics(args.metrics, args.features)
    kinds = None if args.damage is None else pick_damages(args.damage)
    for file in filter(None, (args.json, args.mean_chroma, args.draws_sheet)):
        check_writable(file)
    processes = join_processes()
    progress = Progress(quiet=not processes.main)
    options = measure_options(args)
    names, failures = resolve_stacks(args.models, stack_options(args, options), progress)
    rows = load_rows(names, args.device, args.temperature, args.predict_size)
    failures += rows.failures
    if not rows.by_title:
        raise UserError("; ".join(failures))
    if args.draws and not rows.cards:
        raise UserError("--draws compares samples of models, and no row is one: add one, or leave it out")
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
    device = pick_device(args.device)
    if args.mean_chroma:
        means = mean_chroma(rows.predictors, pack, limit=args.limit, device=device)
        print(means.table())
        write_text(args.mean_chroma, means.to_csv())
    if args.draws:
        models = {title: (row.predictor, row.colorizer) for title, row in rows.by_title.items() if row.colorizer}
        measured = {"limit": args.limit, "device": device, "groups": result.groups}
        print(draws_table({t: difference_of_draws(*m, pack, args.draws, **measured) for t, m in models.items()}))
        if args.draws_sheet:
            columns = {title: draws_columns(*model, pack, args.draws, device=device) for title, model in models.items()}
            Image.fromarray(sheet(columns)).save(args.draws_sheet)
    if args.json:
        write_text(args.json, result.to_json())
    return report_failures(failures)


if __name__ == "__main__":
    leave(main())
