"""Films on the command line of `colorize`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from common.film.config import SUFFIXES, FilmError, Span
from common.utils.clock import parse_time
from common.utils.errors import Stopped, UserError, require
from scripts.arguments import Parser, network_size, positive, set_temperature

if TYPE_CHECKING:
    from common.colorizer import Colorizer
    from common.film.config import FilmConfig
    from common.film.encode import EncodeConfig
    from common.film.references import Reference
    from common.photo.edit import Edit
    from common.training.signals import StopRequest

_FILM_OPTIONS = ("codec", "crf", "preset", "start", "end", "preview", "every", "frame_by_frame", "reference")
_FLAGS = {"start": "--from", "end": "--to"}
_PICTURE_OPTIONS = (
    "recursive", "hint", "hints", "palette", "restore", "repair", "variants", "anyway", "compare",
    "distribution", "pixel", "json",
)  # fmt: skip


def is_film(name: str) -> bool:
    """Whether a file is a film by its suffix."""
    return Path(name).suffix.lower() in SUFFIXES


def add_film_options(parser: Parser) -> None:
    """Add the options that only films have."""
    add = parser.add_argument_group("films").add_argument
    add("--codec", default="h264", help="h264, h265, vp9 or av1 (default: h264, or vp9 for .webm)")
    add("--crf", type=int, help="quality: 0 is lossless, higher is smaller (default: 18; for vp9 and av1 28)")
    add("--preset", default="medium", help="speed of the encoder, from ultrafast to veryslow (default: medium)")
    add("--from", dest="start", type=seconds, default=0.0, metavar="TIME", help="begin at: seconds, mm:ss or hh:mm:ss")
    add("--to", dest="end", type=seconds, metavar="TIME", help="end before: seconds, mm:ss or hh:mm:ss")
    add("--preview", type=positive, metavar="N", help="write only a sheet with N stills, NAME.preview.png")
    add("--every", type=positive, default=1, metavar="N", help="predict every N-th frame (default: 1)")
    add("--frame-by-frame", action="store_true", help="do not filter the colors over time")
    add(
        "--reference",
        action="append",
        default=[],
        metavar="PICTURE@TIME",
        type=_reference,
        help="a colored picture of the frame at this time; it leads the colors of its shot; may be repeated",
    )


def check_options(parser: Parser, args: argparse.Namespace, film: str | None) -> None:
    """Raise UserError for options that films (or, without `film`, pictures) do not have."""
    kind, other, names = ("films", "pictures", _PICTURE_OPTIONS) if film else ("pictures", "films", _FILM_OPTIONS)
    for name in names:
        if getattr(args, name) != parser.get_default(name):
            flag = _FLAGS.get(name, f"--{name.replace('_', '-')}")
            raise UserError(f"{flag} is for {other}, and {film or args.inputs[0]} is one of the {kind}: leave it out")


def seconds(text: str) -> float:
    """Type of an argument: seconds, mm:ss or hh:mm:ss."""
    if (time := parse_time(text)) is None:
        raise argparse.ArgumentTypeError(f"must be seconds, mm:ss or hh:mm:ss, got {text}")
    return time


def _reference(text: str) -> tuple[Path, float]:
    from common.film.references import parse_reference

    try:
        return parse_reference(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def colorize_films(args: argparse.Namespace, edit: Edit) -> int:
    """Colorize the films of a command line, one after the other. Returns the exit code: 0 if all are complete."""
    require("av")
    import torch

    from common.film.config import FilmConfig
    from common.registry import load_colorizer
    from common.training.signals import StopRequest
    from common.utils.device import pick_device

    # frames are colored in several threads, which is faster than several threads for one frame
    torch.set_num_threads(min(torch.get_num_threads(), max(1, (os.cpu_count() or 1) // 2)))
    targets = _targets(args)
    encode = [_encoding(args, target) for target in targets]
    span = Span(args.start, args.end)
    colorizer = load_colorizer(args.model, pick_device(args.device))
    set_temperature(colorizer, args)
    config = FilmConfig(network_size(colorizer, args), every=args.every, steady=not args.frame_by_frame)
    failed = False
    for name, target, encoding in zip(args.inputs, targets, encode, strict=True):
        with StopRequest() as stop:
            try:
                if args.preview:
                    _preview(colorizer, Path(name), target, config, span, edit, args)
                else:
                    damage = _colorize(colorizer, Path(name), target, config, encoding, span, edit, stop, args)
                    failed = failed or bool(damage)
                print(target, flush=True)
            except UserError as error:
                failed = True
                print(f"error: {error}", file=sys.stderr)
    return int(failed)


def _targets(args: argparse.Namespace) -> list[Path]:
    from common.film.join import default_target

    suffix = ".png" if args.preview else None
    defaults = [default_target(Path(name)) for name in args.inputs]
    if suffix:
        defaults = [Path(name).with_name(f"{Path(name).stem}.preview.png") for name in args.inputs]
    if args.out is None:
        targets = defaults
    elif str(args.out) == "-":
        raise UserError("--out - is for pictures: name a file for a film")
    elif args.out.suffix and not args.out.is_dir():
        if len(args.inputs) > 1:
            raise UserError(f"--out {args.out} names one file for {len(args.inputs)} films: give a folder")
        targets = [args.out]
    else:
        targets = [args.out / default.name.replace(".color.", ".") for default in defaults]
    for target, name in zip(targets, args.inputs, strict=True):
        if targets.count(target) > 1 or target.absolute() == Path(name).absolute():
            raise UserError(f"{name} would be written to {target}, which is in use: use another --out")
        if args.preview and target.suffix.lower() != ".png":
            raise UserError(f"--out {target} is no name for a sheet of stills: use one that ends in .png")
    return targets


def _encoding(args: argparse.Namespace, target: Path) -> EncodeConfig:
    from common.film.encode import EncodeConfig

    codec = "vp9" if args.codec == "h264" and target.suffix.lower() == ".webm" else args.codec
    return EncodeConfig(codec, (28 if codec in ("vp9", "av1") else 18) if args.crf is None else args.crf, args.preset)


def _colorize(
    colorizer: Colorizer, source: Path, target: Path, config: FilmConfig, encoding: EncodeConfig, span: Span,
    edit: Edit, stop: StopRequest, args: argparse.Namespace,
) -> str:  # fmt: skip
    """Returns a sentence on damage, which was printed, or an empty one."""
    from dataclasses import asdict

    from common.film.colorize import FilmJob, colorize_film
    from common.utils.progress import Progress

    progress = Progress()
    done = 0
    with progress.task(source.name) as report:

        def reported(frames: int, total: int, shots: int) -> None:
            nonlocal done
            done = frames
            report(frames, total, f"frame {frames} of {total}, shot {shots + 1}")

        result = colorize_film(colorizer, FilmJob(
            source, target, config, encoding, span, _references(source, span, args), transform=edit,
            transform_key=asdict(edit),
            overwrite=args.overwrite, provenance=_provenance(colorizer), report=reported,
            stopped=lambda: bool(stop.signal), say=lambda sentence: progress.say(f"note: {sentence}"),
        ))  # fmt: skip
    if result is None:
        raise Stopped(f"stopped at frame {done}: the same command resumes", stop.signal)
    if result.damage:
        print(f"error: {result.damage}: {result.frames} frames were colorized and written", file=sys.stderr)
    return result.damage


def _references(source: Path, span: Span, args: argparse.Namespace) -> list[Reference]:
    from common.film.decode import frame_at
    from common.film.references import Reference
    from common.film.source import read_info
    from common.imaging.read import open_image

    info = read_info(source) if args.reference else None
    return [
        Reference(frame_at(info, span, time), open_image(path).on_white(), f"--reference {path}")
        for path, time in args.reference
    ]


def _preview(
    colorizer: Colorizer, source: Path, target: Path, config: FilmConfig, span: Span, edit: Edit,
    args: argparse.Namespace,
) -> None:  # fmt: skip
    import numpy as np

    from common.film.preview import preview
    from common.imaging.write import save_image

    if os.path.lexists(target) and not args.overwrite:
        raise FilmError(f"{target} exists already: use --overwrite, or another --out")
    sheet = preview(colorizer, source, args.preview, config, span, edit)
    save_image(target, np.asarray(sheet), provenance=_provenance(colorizer))


def _provenance(colorizer: Colorizer) -> str:
    from common.photo.batch import provenance_text

    return provenance_text(colorizer.card)


def films_in_folders(inputs: Sequence[str], recursive: bool) -> list[str]:
    """The films in the folders of a command line, which stand for their pictures only."""
    from common.utils.files import walk

    folders = [Path(name) for name in inputs if os.path.isdir(name)]
    entries = [e for folder in folders for e in walk(folder, lambda path, error: None, recursive=recursive)]
    return [entry.path for entry in entries if is_film(entry.name) and not Path(entry.name).stem.endswith(".color")]
