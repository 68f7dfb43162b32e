"""Serve a web page on which pictures are uploaded, colorized, edited with sliders and hints, and downloaded.

examples:
  colorize serve                                        # the installed models, on http://127.0.0.1:8001/
  colorize serve --model runs/mine runs/other --port 0  # two models side by side, on any free port
  colorize serve --host 0.0.0.0 --max-upload 20         # also for other machines; files up to 20 MB
  colorize serve --max-clip-seconds 0                   # pictures only, no films
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError, entry_point, require
from scripts.arguments import DEFAULT_MODEL, MODELS, Parser, above_zero, natural

if TYPE_CHECKING:
    from common.photo.web.clips import Coloring

_CLIP_SECONDS = 20


def make_parser() -> Parser:
    """The command line."""
    parser = Parser("colorize serve", __doc__)
    add = parser.add_argument
    add("--model", "--models", nargs="+", metavar="MODEL", help=f"{MODELS} (default: all that are installed)")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 also serves other machines")
    add("--port", type=natural, default=8001, help="port to listen on; 0 picks a free one")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--max-megapixels", type=above_zero, default=40.0, metavar="MP", help="size of the largest accepted picture")
    add("--max-upload", type=above_zero, default=50.0, metavar="MB", help="size of the largest accepted file")
    add("--max-clip-seconds", type=natural, metavar="S", help="length of the longest accepted film; 0 accepts none"
        f" (default: {_CLIP_SECONDS}, or 0 without the extra video)")  # fmt: skip
    return parser


def clip_coloring(max_seconds: int | None) -> Coloring | None:
    """How the page colors films: with `scripts.colorize_clip`, in another process. None if it takes no films."""
    if max_seconds:
        require("av")
    elif max_seconds is None and find_spec("av"):
        max_seconds = _CLIP_SECONDS
    if not max_seconds:
        return None
    from common.film.config import SUFFIXES
    from common.photo.web.clips import Coloring
    from scripts.colorize_clip import LONG_SIDE, SHORT_SIDE

    def command(model: str, clip: Path, out: Path) -> list[str]:
        options = [f"--model={model}", f"--max-seconds={max_seconds}"]
        return [sys.executable, "-m", "scripts.colorize_clip", *options, str(clip), str(out)]

    return Coloring(command, f"{max_seconds} seconds and {LONG_SIDE}x{SHORT_SIDE} pixels", SUFFIXES)


def serve(argv: list[str]) -> int:
    """Parse the command line, load the models, and serve until interrupted."""
    args = make_parser().parse_args(argv)
    require("starlette", "uvicorn", "jinja2")
    from common.utils.web import bind
    from common.utils.web import serve as serve_app

    with bind(args.host, args.port) as bound:  # before the models are loaded, so that a port in use is reported at once
        from common.imaging.limited import Decoder

        decoder = Decoder()
        decoder.start()  # it gets ready while the models are loaded

        from common.photo.web.page import Limits, create_app
        from common.photo.web.session import load_installed_models, load_models
        from common.utils.device import pick_device

        device = pick_device(args.device)
        models = load_models(args.model, device) if args.model else load_installed_models(DEFAULT_MODEL, device)
        if not models:
            raise UserError("no model is installed: give --model with a .safetensors file or a run folder")
        limits = Limits(max_upload=int(args.max_upload * 1e6), max_pixels=int(args.max_megapixels * 1e6))
        app = create_app(models, limits, args.host, decoder, clip_coloring(args.max_clip_seconds))
        host = f"[{args.host}]" if ":" in args.host else args.host
        url = f"http://{host}:{bound.getsockname()[1]}/"
        serve_app(app, bound, lambda: print(f"serving: {url}", flush=True))
    return 0


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Run `serve` as a command of its own."""
    return serve(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
