"""Color one short film for the page of `colorize serve`, which starts this command. Prints lines of JSON.

The film may come from anyone, so the process limits its own CPU time and memory before it opens the film.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from common.film.config import FilmConfig
from common.film.source import read_info
from common.utils.errors import UserError, entry_point
from common.utils.limited import limit, limit_files
from scripts.arguments import Parser, positive

LONG_SIDE, SHORT_SIDE = 1920, 1080  # of the largest frames, in pixels
_NICENESS = 10  # the server colors pictures at the same time
_CPU_SECONDS, _CPU_SECONDS_PER_SECOND = 120.0, 180.0  # several times what a film of the largest frames needs
_MEMORY = 6_000_000_000  # bytes of address space beyond those in use; threads reserve much more than they use
_FILE_BYTES = 500_000_000  # of a written file


def make_parser() -> Parser:
    """The command line."""
    parser = Parser("colorize_clip", __doc__)
    parser.add_argument("clip", type=Path, help="the film")
    parser.add_argument("out", type=Path, help="the .mp4 file to write")
    parser.add_argument("--model", required=True, help="an installed model, a run folder or a .safetensors file")
    parser.add_argument("--max-seconds", type=positive, required=True, metavar="S", help="length of the longest film")
    return parser


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Color the film. An error of the user is a line too, and the exit code is 2."""
    args = make_parser().parse_args(sys.argv[1:] if argv is None else argv)
    try:
        _colorize(args.clip, args.out, args.model, args.max_seconds)
    except UserError as error:
        _print(error=str(error))
        return 2
    except MemoryError:
        return 1  # the page has a sentence for every process that ends without one
    return 0


def _colorize(clip: Path, out: Path, model: str, max_seconds: int) -> None:
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    limit(_CPU_SECONDS, _MEMORY)
    limit_files(_FILE_BYTES)
    info = read_info(clip)  # before torch is imported, which takes seconds
    too_long = UserError(f"{clip} is longer than {max_seconds} seconds: cut it first")
    if (info.seconds or 0) > max_seconds:
        raise too_long
    if max(info.width, info.height) > LONG_SIDE or min(info.width, info.height) > SHORT_SIDE:
        raise UserError(f"{clip} has frames of {info.width}x{info.height} pixels, above the limit of"
                        f" {LONG_SIDE}x{SHORT_SIDE}: make it smaller first")  # fmt: skip

    import torch

    from common.film.colorize import FilmJob, colorize_film
    from common.photo.batch import provenance_text
    from common.registry import load_colorizer

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    # on the CPU also where the server has a GPU: priorities hold for processors only
    colorizer = load_colorizer(model, torch.device("cpu"))
    limit(_CPU_SECONDS + _CPU_SECONDS_PER_SECOND * max_seconds, _MEMORY)
    most, done = max_seconds * info.rate + 1, 0  # a file may state a wrong length

    def report(frames: int, total: int, cuts: int) -> None:
        nonlocal done
        done = frames
        _print(done=frames, total=total)

    result = colorize_film(colorizer, FilmJob(
        clip, out, FilmConfig(colorizer.card["size"]), provenance=provenance_text(colorizer.card), report=report,
        stopped=lambda: done > most, say=lambda sentence: _print(note=sentence),
    ))  # fmt: skip
    if result is None or result.frames > most:
        raise too_long
    if result.damage:
        _print(note=f"{result.damage}: {result.frames} frames were colorized")


def _print(**report: object) -> None:
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    sys.exit(main())
