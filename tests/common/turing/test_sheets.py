"""Paper: the pages, the key and the form agree; forms as people fill them in; what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from common.data.packing import open_pack
from common.evaluation.evaluate import trivial_predictor
from common.turing.score import score_sheet, score_table
from common.turing.sheets import make_sheets
from common.utils.errors import UserError


@pytest.fixture(scope="module")
def pack(color_folder, cache):
    return open_pack(str(color_folder), 32)


def predictors(pack):
    return {"grey": trivial_predictor("grey", pack), "shuffled": trivial_predictor("shuffled", pack)}


@pytest.fixture(scope="module")
def sheet(pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("sheet")
    return out, make_sheets(predictors(pack), pack, 12, 1, out, "cpu")


def test_what_is_written(sheet, pack):
    out, made = sheet
    assert {p.name for p in out.iterdir()} == set(made.files)
    assert {"grid.pdf", "grid-1.png", "grid-2.png", "blind.pdf", "blind-1.png", "blind-2.png"} < set(made.files)
    key = json.loads((out / "key.json").read_text())["pairs"]
    assert len({p["photo"] for p in key}) == 12
    assert not any(p["photo"].startswith("grey") for p in key)
    models = [p["model"] for p in key]
    assert (models.count("grey"), models.count("shuffled")) == (6, 6)
    for name in ("grid", "blind"):
        with open(out / f"{name}.pdf", "rb") as file:
            data = file.read()
        assert data.count(b"/Type /Page\n") + data.count(b"/Type /Page ") == 2
        assert b"/MediaBox [ 0 0 595.275" in data  # A4, in points
        assert b"CreationDate" not in data
    assert (out / "answers.csv").read_text().splitlines()[:2] == ["person,pair,fake", "1,1,"]


def test_the_fake_is_where_the_key_says(sheet):
    """On the page itself: of the pairs with grey, the grey picture is on the side of the key."""
    out, made = sheet
    page = np.asarray(Image.open(out / "blind-1.png").convert("RGB")).astype(int)
    mm = page.shape[1] / 210
    checked = 0
    for i, pair in enumerate(made.pairs[:10]):
        x, y = 20 + (i % 2) * 90, 37 + (i // 2) * 48.4
        boxes = [
            page[int((y + 3) * mm) : int((y + 36) * mm), int(a * mm) : int((a + 33) * mm)] for a in (x + 3, x + 44)
        ]
        color = [np.ptp(box, axis=2).mean() for box in boxes]
        assert max(color) > 10
        if pair.model == "grey":
            assert min(color) < 1
            assert color[pair.fake == "right"] < 1
            checked += 1
    assert checked >= 3


def test_the_same_command_writes_the_same_bytes(sheet, pack, tmp_path):
    out, made = sheet
    make_sheets(predictors(pack), pack, 12, 1, tmp_path, "cpu")
    for name in made.files:
        assert (tmp_path / name).read_bytes() == (out / name).read_bytes(), name
    other = make_sheets(predictors(pack), pack, 12, 2, tmp_path / "other", "cpu")
    assert other.pairs != made.pairs


def test_too_few_photographs_and_no_folder(pack, tmp_path):
    with pytest.raises(UserError, match="16 color photographs are fewer than the 17 pairs of the sheet"):
        make_sheets(predictors(pack), pack, 17, 1, tmp_path, "cpu")
    from pathlib import Path

    with pytest.raises(UserError, match="/proc/x cannot be written"):
        make_sheets(predictors(pack), pack, 2, 1, Path("/proc/x"), "cpu")


def form(out, tmp_path, name, choose, person="1"):
    """A filled-in form: choose(pair of the key) -> what is written."""
    key = json.loads((out / "key.json").read_text())["pairs"]
    lines = [f"{person},{i},{choose(i, pair)}" for i, pair in enumerate(key, 1)]
    (tmp_path / name).write_text("\n".join(["person,pair,fake", *lines]))
    return tmp_path / name


def turned(pair):
    return {"left": "right", "right": "left"}[pair["fake"]]


def test_scores_counted_by_hand(sheet, tmp_path):
    out, _ = sheet
    sharp = form(out, tmp_path, "a.csv", lambda i, p: p["fake"].upper()[:1])  # L and R will do
    fooled = form(out, tmp_path, "b.csv", lambda i, p: turned(p) if p["model"] == "shuffled" else p["fake"])
    lazy = form(out, tmp_path, "c.csv", lambda i, p: p["fake"] if i <= 3 else "", person="")
    scores = score_sheet(out / "key.json", [sharp, fooled, lazy, fooled])  # a form twice is one form
    assert sum(s.trials for s in scores.values()) == 27
    assert sum(s.unanswered for s in scores.values()) == 9
    shuffled, grey = scores["shuffled"], scores["grey"]
    assert (grey.fooled, grey.share.value) == (0, 0)
    assert (shuffled.fooled, shuffled.share.value) == (6, 6 / shuffled.trials)
    assert shuffled.share.low < shuffled.share.value < shuffled.share.high
    table = score_table(scores)
    assert f"| shuffled | {100 * shuffled.share.value:.1f} %" in table
    assert "With one person" in score_table(score_sheet(out / "key.json", [sharp]))


def test_forms_as_programs_save_them(sheet, tmp_path):
    """Semicolons, a byte order mark, spaces, other columns, several people in one file."""
    out, _ = sheet
    text = "\ufeffpair;person;fake;remark\r\n" + "".join(f"{i}; {p} ;Left ;\r\n" for p in "xy" for i in range(1, 13))
    (tmp_path / "f.csv").write_text(text, encoding="utf-8")
    scores = score_sheet(out / "key.json", [tmp_path / "f.csv"])
    assert {s.people for s in scores.values()} == {2}
    assert sum(s.trials for s in scores.values()) == 24


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("person,pair,fake\n1,13,left\n", "line 2: pair must be 1 to 12, got '13'"),
        ("person,pair,fake\n1,x,left\n", "got 'x'"),
        ("person,pair,fake\n1,²,left\n", "got '²'"),
        ("person,pair,fake\n1,1,up\n", "line 2: fake must be left, right or empty, got 'up'"),
        ("person,pair,fake\n1,1,left\n1,1,right\n", "answered pair 1 twice, differently"),
        ("person,pair,fake\n1\n", "got ''"),
        ("who,what\n1,1\n", "no columns person, pair and fake"),
        ("", "no columns"),
        ("person,pair,fake\n1,1,\n", "no pair is answered"),
        ('person,pair,fake\n1,1,"' + "x" * 200_000, "is not CSV"),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_forms_that_are_none(sheet, tmp_path, text, says):
    (tmp_path / "f.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=says) as error:
        score_sheet(sheet[0] / "key.json", [tmp_path / "f.csv"])
    assert "f.csv" in str(error.value)


def test_keys_that_are_none(sheet, tmp_path):
    answers = form(sheet[0], tmp_path, "a.csv", lambda i, p: "left")
    with pytest.raises(UserError, match="cannot be read"):
        score_sheet(tmp_path / "none.json", [answers])
    with pytest.raises(UserError, match="cannot be read"):
        score_sheet(sheet[0] / "key.json", [tmp_path / "none.csv"])
    for text in ("[]", "{", '{"pairs": []}', '{"pairs": [{"photo": "a", "model": "b", "fake": "up"}]}'):
        (tmp_path / "key.json").write_text(text)
        with pytest.raises(UserError, match="is not the key of a sheet"):
            score_sheet(tmp_path / "key.json", [answers])


def test_the_pictures_of_a_page_are_sharp(sheet):
    """The colors of the first original survive layout and encoding."""
    out, _ = sheet
    assert Image.open(io.BytesIO((out / "grid-1.png").read_bytes())).size == (1240, 1753)
