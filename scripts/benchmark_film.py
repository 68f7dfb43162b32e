"""Measure how steady and how right the colors of films are, on films with known colors, which are shown as grey.

examples:
  python -m scripts.benchmark film bikes.mp4 bigbuckbunny.mp4 --model photo
  python -m scripts.benchmark film --data 'photos128-*-val.tar' --constructed 4 --strip strip.png

Each film is colorized frame by frame, as a photograph each; with colors filtered over time; the same with every second
frame predicted; and with the true colors of the middle frame of each shot as a reference. E_warp is the warping error
of ab between successive frames of a shot, in CIELAB units (common/film/metrics.py).
"""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError, one_sentence
from common.utils.files import check_writable, write_text
from scripts.arguments import DEFAULT_MODEL, Parser, natural, positive

if TYPE_CHECKING:
    import numpy as np

    from common.film.synthetic import Film

_HEAD = "| film | method | E_warp ↓ | rmse_ab ↓ | colorfulness | frames/s |\n|---|---|---:|---:|---:|---:|"


def benchmark_films(argv: list[str]) -> int:
    """Parse, measure, print."""
    parser = Parser("python -m scripts.benchmark film", __doc__)
    parser.add_argument("films", nargs="*", type=Path, metavar="FILM", help="films in color")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="installed model, run folder or file of weights"
                        " (default: %(default)s)")  # fmt: skip
    parser.add_argument("--side", type=positive, default=480,
                        help="frames are reduced to this longer side, in pixels (default: 480)")  # fmt: skip
    parser.add_argument("--limit", type=positive, metavar="N", help="only the first N frames of each film")
    parser.add_argument("--constructed", type=positive, default=0, metavar="N",
                        help="also N films that are made from the photographs of --data")  # fmt: skip
    parser.add_argument("--data", default="demo", help="folder, tar shards, named set, or demo")
    parser.add_argument("--seed", type=natural, default=0, help="seed of the first constructed film")
    parser.add_argument("--cache", help="folder for packs (default: ~/.cache/colorization-lab)")
    parser.add_argument("--strip", type=Path,
                        help="picture to write, with eight of 16 successive frames of each film")  # fmt: skip
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    for path in filter(None, (args.strip, args.json)):
        check_writable(path)
    if not (args.films or args.constructed):
        raise UserError("there is no film to measure: name some, or give --constructed 4")

    from common.film.measure import measure_film
    from common.registry import load_colorizer

    colorizer = load_colorizer(args.model).eval()
    films = [_decoded(path, args.side, args.limit) for path in args.films]
    films += _constructed(args.data, args.constructed, args.seed, args.cache)
    print(_HEAD, flush=True)
    rows, strips = [], []
    for film in films:
        measured = measure_film(colorizer, film, colorizer.card["size"])
        for row in measured:
            print(f"| {row.film} | {row.way} | {row.warping_error:.2f} | {row.rmse_ab:.2f} | {row.colorfulness:.1f} |"
                  f" {row.frames_per_second:.1f} |", flush=True)  # fmt: skip
            rows.append({**row._asdict(), "frames": len(film.frames), "cuts": len(film.cuts)})
        strips.append(_strip([row.frames for row in measured if not row.way.endswith("every 2")], film.cuts))
    if args.json:
        write_text(args.json, json.dumps(rows, indent=1))
    if args.strip:
        from PIL import Image

        for number, strip in enumerate(strips):
            name = args.strip.stem + (f"-{films[number].name}" if len(strips) > 1 else "")
            Image.fromarray(strip).save(args.strip.with_name(name + args.strip.suffix))
    return 0


def _decoded(path: Path, side: int, limit: int | None) -> Film:
    """Read a film, reduce its frames, and find its cuts."""
    import av
    import cv2

    from common.film.measure import find_cuts
    from common.film.synthetic import Film

    frames = []
    try:
        with av.open(str(path)) as container:
            for frame in islice(container.decode(video=0), limit):
                rgb = frame.to_ndarray(format="rgb24")
                scale = min(1.0, side / max(rgb.shape))
                size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
                frames.append(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{path} cannot be read as a film ({one_sentence(error)}): give another file") from None
    return Film(path.stem, frames, find_cuts(frames))


def _constructed(source: str, count: int, seed: int, cache: str | None) -> list[Film]:
    """Films over the color photographs of a source, with two shots of 30 frames of 256 x 192 pixels."""
    if not count:
        return []
    from common.data.packing import open_pack
    from common.film.synthetic import synthetic_film

    pack = open_pack(source, 128, cache=cache)
    photographs = pack.images[~pack.grey]
    if len(photographs) < 2:
        raise UserError(f"source {source} has {len(photographs)} color photographs: expected at least 2")
    return [synthetic_film(photographs, seed + number) for number in range(count)]


def _strip(rows: list[list[np.ndarray]], cuts: list[int]) -> np.ndarray:
    """Eight successive frames (every second one) from the middle of the first shot, a row for each way."""
    import cv2
    import numpy as np

    end = cuts[0] if cuts else len(rows[0])
    first = max(0, end // 2 - 8)
    height, width = rows[0][0].shape[:2]
    size = (200, round(200 * height / width))
    shown = range(first, min(first + 16, end), 2)
    return np.vstack(
        [np.hstack([cv2.resize(row[i], size, interpolation=cv2.INTER_AREA) for i in shown]) for row in rows]
    )
