"""The test on paper: side-by-side grids and blind sheets for A4, as PNG and PDF, with a key and a form."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from common.data.packing import Pack
from common.evaluation.evaluate import Predict
from common.evaluation.sheets import color_columns
from common.turing.trials import SIDES, choose_photos
from common.utils.errors import UserError, one_sentence
from common.utils.files import user_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH, _HEIGHT, _MARGIN = 210.0, 297.0, 15.0  # A4, mm
_HEAD = 22.0  # space above the pictures, mm
_FOOT = 10.0
_PNG_DPI, _PDF_DPI = 150, 200
_DARK, _GREY = "#1c1c1c", "#5a5a5a"


class BlindPair(NamedTuple):
    """The solution of one pair of a blind sheet."""

    photo: str
    model: str
    fake: str  # "left" or "right"


class Sheets(NamedTuple):
    """Result of `make_sheets`. files: names of the written files, relative to the output folder; pairs: the answer key,
    one entry per pair.
    """

    files: list[str]
    pairs: list[BlindPair]


def make_sheets(predictors: dict[str, Predict], pack: Pack, pairs: int, seed: int, out: Path, device: str) -> Sheets:
    """Write grids and a blind sheet of the same photographs, its key and its form, into a folder.

    The same arguments write the same bytes.

    predictors: one or more, by title. pairs: number of photographs; each is used once, evenly over the models.
    Raises UserError if there are fewer color photographs than pairs, a prediction is not finite, or the folder cannot
    be written.
    """
    color = pack.color_indices
    if len(color) < pairs:
        raise UserError(
            f"{len(color)} color photographs are fewer than the {pairs} pairs of the sheet: give more photographs,"
            " or lower --pairs"
        )
    indices = color[choose_photos(len(color), pairs, seed)]
    columns = color_columns(predictors, pack, indices, device)
    rng = np.random.default_rng([seed, 4])
    models = rng.permutation(np.resize(list(predictors), pairs))
    fakes = [SIDES[i] for i in rng.integers(0, 2, pairs)]
    key = [BlindPair(pack.names[i], str(m), f) for i, m, f in zip(indices, models, fakes, strict=True)]
    digest = hashlib.sha256(json.dumps(key).encode() + np.ascontiguousarray(pack.images[indices]).tobytes())
    name = digest.hexdigest()[:8]
    shown = [[columns[k.model][i], columns["original"][i]][:: 1 if k.fake == "left" else -1] for i, k in enumerate(key)]
    source = ", ".join(Path(part).name for part in pack.manifest["source"].split(","))
    with user_path(out, "choose another --out"):
        out.mkdir(parents=True, exist_ok=True)
        written = _write_pages(_grid_pages(columns, pack.size), out, "grid", f"{source}, seed {seed}")
        written += _write_pages(_blind_pages(shown), out, "blind", f"Sheet {name}")
        record = {"sheet": name, "seed": seed, "size": pack.size, "pairs": [k._asdict() for k in key]}
        (out / "key.json").write_text(json.dumps(record, indent=1))
        (out / "answers.csv").write_text("person,pair,fake\n" + "".join(f"1,{i + 1},\n" for i in range(pairs)))
    return Sheets([*written, "key.json", "answers.csv"], key)


class _Page:
    """One A4 page. Positions are in mm from its upper left corner. left: left edge of the centered content."""

    def __init__(self, left: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.figure: Figure = Figure(figsize=(_WIDTH / 25.4, _HEIGHT / 25.4), facecolor="white")
        FigureCanvasAgg(self.figure)
        self.left = left

    def text(self, x: float, y: float, text: str, size: float = 10, **style: object) -> None:
        style = {"ha": "left", "va": "baseline", "color": _DARK} | style
        self.figure.text(x / _WIDTH, 1 - y / _HEIGHT, text, fontsize=size, parse_math=False, **style)

    def picture(self, x: float, y: float, side: float, rgb: np.ndarray) -> None:
        fine = round(side / 25.4 * _PDF_DPI)
        image = Image.fromarray(rgb).resize((fine, fine), Image.Resampling.BICUBIC)
        box = (x / _WIDTH, 1 - (y + side) / _HEIGHT, side / _WIDTH, side / _HEIGHT)
        axes = self.figure.add_axes(box)
        axes.set_axis_off()
        axes.imshow(np.asarray(image), interpolation="antialiased", aspect="auto")

    def box(self, x: float, y: float, side: float) -> None:
        from matplotlib.patches import Rectangle

        corner = (x / _WIDTH, 1 - (y + side) / _HEIGHT)
        frame = Rectangle(corner, side / _WIDTH, side / _HEIGHT, fill=False, edgecolor=_DARK, linewidth=0.8)
        self.figure.add_artist(frame)


def _grid_pages(columns: dict[str, np.ndarray], size: int) -> list[_Page]:
    """Grids with the columns grey, models and original, and as many photographs per page as fit."""
    count, gap = len(columns["original"]), 2.0
    inner = _WIDTH - 2 * _MARGIN
    side = min(37.5, (inner - gap * (len(columns) - 1)) / len(columns))
    left = (_WIDTH - side * len(columns) - gap * (len(columns) - 1)) / 2
    per_page = int((_HEIGHT - 2 * _MARGIN - _HEAD - _FOOT + gap) // (side + gap))
    pages = []
    for start in range(0, count, per_page):
        page = _Page(left)
        page.text(left, _MARGIN + 6, "Grey, colorized, original", 14, weight="bold")
        page.text(left, _MARGIN + 12, f"Photographs of {size}x{size} pixels", 9, color=_GREY)
        for j, (title, pictures) in enumerate(columns.items()):
            x = left + j * (side + gap)
            page.text(x + side / 2, _MARGIN + _HEAD - 2.5, _fit(title, side), 9, ha="center")
            for i, picture in enumerate(pictures[start : start + per_page]):
                page.picture(x, _MARGIN + _HEAD + i * (side + gap), side, picture)
        pages.append(page)
    return pages


def _fit(title: str, side: float) -> str:
    room = max(3, int(side / 1.75))  # characters of 9 points that fit
    return title if len(title) <= room else title[: room - 1] + "…"


def _blind_pages(pairs: list[list[np.ndarray]]) -> list[_Page]:
    """Pages of ten numbered pairs, two per line, with a box to tick below each picture."""
    side, gap, gutter, pitch = 39.0, 2.0, 10.0, 48.4
    width = 2 * side + gap
    left = (_WIDTH - 2 * width - gutter) / 2
    pages = []
    for start in range(0, len(pairs), 10):
        page = _Page(left)
        page.text(left, _MARGIN + 5, "Which picture was colored by a computer?", 14, weight="bold")
        page.text(left, _MARGIN + 11, "One picture of each pair is the original photograph. Tick the other one.", 9.5)
        page.text(left + 2 * width + gutter, _MARGIN + 5, "Person: ______________", 10, ha="right")
        for i, pair in enumerate(pairs[start : start + 10]):
            x, y = left + (i % 2) * (width + gutter), _MARGIN + _HEAD + (i // 2) * pitch
            page.text(x, y + side + 4.9, f"{start + i + 1}", 10.5, weight="bold")
            for j, (picture, name) in enumerate(zip(pair, SIDES, strict=True)):
                at = x + j * (side + gap)
                page.picture(at, y, side, picture)
                page.box(at + side / 2 - 9, y + side + 1.8, 3.6)
                page.text(at + side / 2 - 3.5, y + side + 4.9, name, 9.5)
        pages.append(page)
    return pages


def _write_pages(pages: list[_Page], out: Path, name: str, foot: str) -> list[str]:
    from matplotlib.backends.backend_pdf import PdfPages

    written = [f"{name}.pdf"]
    with PdfPages(out / f"{name}.pdf", metadata={"CreationDate": None, "ModDate": None}) as pdf:
        for number, page in enumerate(pages, 1):
            page.text(page.left, _HEIGHT - _MARGIN, foot[:90], 8, color=_GREY)
            page.text(_WIDTH - page.left, _HEIGHT - _MARGIN, f"{number} / {len(pages)}", 8, ha="right", color=_GREY)
            pdf.savefig(page.figure, dpi=_PDF_DPI)
            file = f"{name}-{number}.png"
            page.figure.savefig(out / file, dpi=_PNG_DPI, metadata={"Software": None})
            written.append(file)
    return written


def read_sheet_key(path: Path) -> list[BlindPair]:
    """Read the key of a blind sheet. Raises UserError if the file is not a key."""
    try:
        pairs = [BlindPair(p["photo"], p["model"], p["fake"]) for p in json.loads(path.read_text())["pairs"]]
        if not pairs or any(p.fake not in SIDES for p in pairs):
            raise ValueError
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the key.json of the sheet") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the key of a sheet: give the key.json that was written with it") from None
    return pairs


def read_form(path: Path, pairs: int) -> dict[tuple[str, int], str]:
    """Read a filled-in form. Returns "left", "right" or "" (not answered) by (person, pair from 0).

    pairs: number of pairs on the sheet.
    Raises UserError, with the line number, if the file is not a form or a person gave two answers to a pair.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the filled-in answers.csv") from None
    except ValueError:
        raise UserError(f"{path} is not text: save the form as CSV in UTF-8") from None
    first = text.split("\n", 1)[0]
    reader = csv.DictReader(io.StringIO(text), delimiter=";" if ";" in first else ",", skipinitialspace=True)
    if not {"person", "pair", "fake"} <= set(reader.fieldnames or ()):
        raise UserError(f"{path} has no columns person, pair and fake: fill in the answers.csv of the sheet")
    answers: dict[tuple[str, int], str] = {}
    try:
        lines = [(reader.line_num, line) for line in reader]
    except csv.Error as error:
        raise UserError(f"{path} is not CSV ({one_sentence(error)}): fill in the answers.csv of the sheet") from None
    for line_number, line in lines:
        at = f"{path}, line {line_number}"
        person, number, fake = ((line[name] or "").strip() for name in ("person", "pair", "fake"))
        if not (number.isascii() and number.isdigit() and 1 <= int(number) <= pairs):
            raise UserError(f"{at}: pair must be 1 to {pairs}, got '{number}'")
        fake = {"l": "left", "r": "right"}.get(fake.lower(), fake.lower())
        if fake not in ("", *SIDES):
            raise UserError(f"{at}: fake must be left, right or empty, got '{fake}'")
        place = (person or "1", int(number) - 1)
        if answers.get(place, "") not in ("", fake) and fake:
            raise UserError(f"{at}: person {place[0]} answered pair {number} twice, differently")
        answers[place] = fake or answers.get(place, "")
    return answers
