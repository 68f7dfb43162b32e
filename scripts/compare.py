"""Compare trained colorizers beside the trivial rows: a table with intervals, a grid, curves.

examples:
  python -m scripts.compare runs/cnn runs/resnet18 runs/pix2pix --data demo --size 64 --out runs/comparison
  python -m scripts.compare regression=runs/cnn runs/pix2pix --data 'val-*.tar' --size 128 --out comparison

Writes table.md, results.json, grid.png and, where run folders are given, curves.png.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.arguments import Parser, positive
from common.errors import UserError, entry_point, tell_failures


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, compare, print."""
    parser = Parser("python -m scripts.compare", __doc__)
    parser.add_argument("runs", nargs="+", help="run folders or weights, also as NAME=PATH")
    parser.add_measuring()
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--photos", type=positive, default=8, help="photographs in the grid")
    parser.add_argument("--seen", help="a source they were trained on: some of its photographs are shown apart")
    args = parser.parse_args(argv)

    from PIL import Image

    from common.comparison.curves import draw_curves
    from common.comparison.rows import load_rows, measure, open_measured, run_folder
    from common.comparison.tables import markdown_table
    from common.device import pick_device
    from common.evaluation import TRIVIAL
    from common.grids import colour_columns, sheet, spread_rows
    from common.metrics import pick_metrics
    from common.packing import open_pack
    from common.progress import Progress

    pick_metrics(args.metrics, args.features)
    progress = Progress()
    rows = load_rows([*args.runs, *(name for name in TRIVIAL if name not in args.runs)], args.device, args.temperature)
    if not rows.cards:
        raise UserError("; ".join(rows.failures) or "no model is given: name a run folder or weights")
    pack = open_measured(args, rows, progress)
    progress.say(pack.said())
    result = measure(rows, pack, args, progress)

    try:
        args.out.mkdir(parents=True, exist_ok=True)
        table = markdown_table(result.table, result.protocol)
        (args.out / "table.md").write_text(table)
        (args.out / "results.json").write_text(result.to_json())
        models = {title: rows.predictors[title] for title in rows.cards}
        device = pick_device(args.device)
        sections = {}
        if args.seen:
            seen = open_pack(args.seen, pack.size, "train", val_fraction=args.val_fraction, cache=args.cache)
            choice = spread_rows(seen, max(2, args.photos // 3))
            sections["seen in training"] = colour_columns(models, seen, choice, device)
        held_out = colour_columns(models, pack, spread_rows(pack, args.photos), device)
        sections = {"never seen in training" if sections else "": held_out} | sections
        Image.fromarray(sheet(sections)).save(args.out / "grid.png")
        runs = {run_folder(path): (t, rows.cards[t]["config"]["batch_size"]) for t, path in rows.paths.items()}
        drawn = draw_curves({t: (run, n) for run, (t, n) in runs.items() if run}, args.out / "curves.png")
    except OSError as error:
        raise UserError(f"{args.out} cannot be written ({error.strerror}): choose another --out") from None
    print(table)
    print(f"written: {args.out}/table.md, results.json, grid.png" + (", curves.png" if drawn else ""))
    return tell_failures(rows.failures)


if __name__ == "__main__":
    sys.exit(main())
