"""The colorization Turing test: sheets on paper, a web server, a static site, and statistics.

examples:
  python -m scripts.turing sheet --model runs/cnn runs/pix2pix --data 'val-*.tar' --pairs 20 --seed 1 --out sheet
  python -m scripts.turing score --key sheet/key.json --answers sheet/answers.csv
  python -m scripts.turing plan --share 0.25 --difference 0.1
  python -m scripts.turing serve --model runs/cnn runs/pix2pix --data 'val-*.tar' --db study.db --port 8000
  python -m scripts.turing report --db study.db --out report
  python -m scripts.turing export --model runs/cnn runs/pix2pix --data 'val-*.tar' --out site
  python -m scripts.turing merge --key site.key.json --answers inbox/*.json --db study.db

A model is a run folder, a .safetensors file, or one of grey, mean, shuffled; NAME=PATH gives its title.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError, entry_point, report_failures
from scripts.arguments import MODELS, Parser, fraction, natural, positive, stack_options

if TYPE_CHECKING:
    from common.data.packing import Pack
    from common.evaluation.rows import Rows
    from common.utils.progress import Progress

_TOKEN_LENGTH = 16


def _add_pictures(parser: Parser) -> None:
    parser.add_argument("--model", "--models", dest="models", nargs="+", required=True, metavar="MODEL",
                        help=f"{MODELS}, grey, mean or shuffled")  # fmt: skip
    parser.add_source()


def _add_study(parser: Parser) -> None:
    _add_pictures(parser)
    parser.add_argument("--practice", type=natural, default=10, help="practice pairs per session, with feedback")
    parser.add_argument("--test", type=positive, default=40, help="test pairs per session, without feedback")
    parser.add_argument(
        "--vigilance", type=fraction, default=0.1, help="share of the test pairs that are obvious fakes"
    )
    parser.add_argument("--photographs", type=positive, default=200, help="maximum number of photographs")


def _parser() -> Parser:
    parser = Parser("python -m scripts.turing", __doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, text: str) -> Parser:
        return commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")

    sheet = add("sheet", "write side-by-side grids, and a blind sheet with its key and a form, as PNG and PDF")
    _add_pictures(sheet)
    sheet.add_argument("--pairs", type=positive, default=20, help="photographs on the sheet")
    sheet.add_argument("--out", type=Path, required=True, help="folder for the sheets")
    score = add("score", "score the filled-in forms of a blind sheet")
    score.add_argument("--key", type=Path, required=True, help="key.json of the sheet")
    score.add_argument("--answers", type=Path, nargs="+", required=True, help="filled-in forms (answers.csv)")
    serve = add("serve", "serve the test and its report over HTTP")
    _add_study(serve)
    serve.add_argument("--db", type=Path, required=True, help="database of the study; created if it is missing")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 also serves other machines")
    serve.add_argument("--port", type=natural, default=8000, help="port to listen on; 0 picks a free one")
    serve.add_argument("--report_token",
                       help=f"secret of at least {_TOKEN_LENGTH} characters (default: $TURING_REPORT_TOKEN,"
                       " else a new one, which is printed)")  # fmt: skip
    report = add("report", "write the results of a study")
    report.add_argument("--db", type=Path, required=True, help="database that serve or merge wrote")
    report.add_argument("--out", type=Path, required=True, help="folder for the report")
    plan = add("plan", "compute how many people a study needs")
    plan.add_argument(
        "--share", type=fraction, default=0.25, help="share fooled that the weaker model is expected to have"
    )
    plan.add_argument("--difference", type=fraction, default=0.1, help="difference to detect")
    plan.add_argument("--spread", type=float, default=0.1, help="standard deviation of the share between people")
    plan.add_argument("--pairs", type=positive, default=36, help="counted pairs per person")
    plan.add_argument("--power", type=fraction, default=0.8, help="probability of detecting the difference")
    plan.add_argument("--models", type=positive, default=2, help="models in the study")
    plan.add_argument("--simulate", action="store_true", help="check the result with 400 simulated studies")
    export = add("export", "write the test as a folder of static files, and its key beside it")
    _add_study(export)
    export.add_argument("--sessions", type=positive, default=60, help="number of plans; each browser draws one")
    export.add_argument("--out", type=Path, required=True, help="new folder for the site")
    merge = add("merge", "add the downloaded answers of a static site to a database")
    merge.add_argument("--key", type=Path, required=True, help="the .key.json that export wrote")
    merge.add_argument("--answers", type=Path, nargs="+", required=True, help="files that participants downloaded")
    merge.add_argument("--db", type=Path, required=True, help="database of the study; created if it is missing")
    return parser


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, call, print."""
    args = _parser().parse_args(argv)
    return globals()[f"_{args.command}"](args)


def _open(args: argparse.Namespace) -> tuple[Rows, Pack, Progress]:
    from common.ensemble.stacks import resolve_stacks
    from common.evaluation.options import MeasureOptions
    from common.evaluation.rows import load_rows, open_measured
    from common.utils.progress import Progress

    progress = Progress()
    options = MeasureOptions(
        args.data, args.split, args.val_fraction, args.include_trained, args.size, cache=args.cache
    )
    names, failures = resolve_stacks(args.models, stack_options(args, options), progress)
    rows = load_rows(names, args.device, predict_size=args.predict_size)
    if failures := [*failures, *rows.failures]:
        raise UserError("; ".join(failures))
    pack = open_measured(options, rows, progress)
    progress.say(pack.describe())
    return rows, pack, progress


def _sheet(args: argparse.Namespace) -> int:
    from common.turing.pictures import study_predictors
    from common.turing.sheets import make_sheets
    from common.utils.device import pick_device

    rows, pack, _ = _open(args)
    predictors = study_predictors(rows, pack, args.seed)
    made = make_sheets(predictors, pack, args.pairs, args.seed, args.out, pick_device(args.device))
    print(f"written: {args.out}/{', '.join(made.files)}")
    return 0


def _score(args: argparse.Namespace) -> int:
    from common.turing.score import score_sheet, score_table

    print(score_table(score_sheet(args.key, args.answers)))
    return 0


def _study(args: argparse.Namespace) -> tuple:
    from common.turing.pictures import make_gallery, plan_study
    from common.utils.device import pick_device

    rows, pack, progress = _open(args)
    inputs = plan_study(
        rows, pack, practice=args.practice, test=args.test, vigilance=args.vigilance,
        photographs=args.photographs, seed=args.seed,
    )  # fmt: skip

    def gallery() -> object:
        with progress.task("colorizing") as done:
            return make_gallery(inputs, pick_device(args.device), done)

    return inputs.study, gallery, progress


def _serve(args: argparse.Namespace) -> int:
    from common.turing.server import create_app
    from common.turing.store import open_store
    from common.utils.web import bind, serve

    given = args.report_token or os.environ.get("TURING_REPORT_TOKEN")
    if given and len(given) < _TOKEN_LENGTH:
        raise UserError(f"the report token has {len(given)} characters: use {_TOKEN_LENGTH} or more")
    token = given or secrets.token_urlsafe(18)
    with bind(args.host, args.port) as bound:
        study, gallery, progress = _study(args)
        store = open_store(args.db, study)
        try:
            app = create_app(store, gallery(), token, args.host)
            host = f"[{args.host}]" if ":" in args.host else args.host
            url = f"http://{host}:{bound.getsockname()[1]}/"
            progress.say(f"report: {url}report" + ("" if given else f" (token: {token})"))
            serve(app, bound, lambda: print(f"serving: {url}", flush=True))
        finally:
            store.close()
    return 0


def _report(args: argparse.Namespace) -> int:
    from common.turing.report import write_report
    from common.turing.store import open_store

    store = open_store(args.db)
    try:
        print(write_report(store.records(), store.study, args.out))
    finally:
        store.close()
    print(f"written: {args.out}/report.md, results.json, answers.csv, shares.png")
    return 0


def _plan(args: argparse.Namespace) -> int:
    from common.turing.power import people_needed
    from common.turing.simulate import Observers, difference_outcomes

    options = {"wanted": args.power, "pairs": args.pairs, "deviation": args.spread}
    people = people_needed(args.share, args.difference, **options)
    first, second = args.share, args.share + args.difference
    print(
        f"{people} people per model ({people * args.models} for {args.models} models) detect the difference between"
        f" {first:.1%} and {second:.1%} fooled with a probability of {args.power:.0%}, at {args.pairs} pairs each and a"
        f" standard deviation of {100 * args.spread:g} points between people."
    )
    if args.simulate:
        try:
            observers = [Observers.of_share(p, args.spread) for p in (first, second)]
        except ValueError as error:
            raise UserError(f"{error}: give a smaller --spread") from None
        detected, covered = difference_outcomes(*observers, people, args.pairs)
        print(f"{detected:.1%} of 400 simulated studies detect it; the interval covers the truth in {covered:.1%}.")
    return 0


def _export(args: argparse.Namespace) -> int:
    from common.turing.static_site import export_static_site

    study, gallery, _ = _study(args)
    key = export_static_site(study, gallery(), args.out, args.sessions)
    print(f"written: {args.out} (for a web host), {key} (the key: keep it secret)")
    return 0


def _merge(args: argparse.Namespace) -> int:
    from common.turing.static_site import merge_answers

    added, known, failures = merge_answers(args.key, args.answers, args.db)
    print(f"{added} sessions added to {args.db}, {known} were already in it")
    return report_failures(failures)


if __name__ == "__main__":
    sys.exit(main())
