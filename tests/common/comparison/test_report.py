"""The report: whole, well-formed, self-contained, safe from names; its tables read by other programs."""

import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas
import pytest
import torch

from common.comparison.report.report import ReportOptions, compare_evaluation, write_report
from common.comparison.report.tables import csv_table, markdown_table, notes, table_lines, tex, tex_table
from common.evaluation.evaluate import TRIVIAL, evaluate, trivial_predictor
from common.evaluation.rows import Row, Rows

EVIL = "<script>alert('&')</script>"
ODD = 'a|b_\\%$#{}~^\x1b"\ud800'
FILES = {"report.html", "table.md", "table.csv", "table.tex", "results.json", "grid.png"}


def card(seed, **more):
    config = {"batch_size": 4, "seed": seed, "run": f"runs/{seed}", "model": {}}
    return {"family": "baselines", "name": "x", "size": 32, "seed": seed, "steps": 5, "images": 20, "seconds": 61.0,
            "parameters": 10, "machine": "CPU", "config": config,
            "trained_on": {"count": 3, "source": "demo", "content": "c"}} | more  # fmt: skip


def painter(strength):
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    return lambda batch, rows: batch.ab * strength + 0 * network(batch.L / 100).detach()


def rows_of(predictors, cards):
    return Rows({title: Row(title, predict, card=cards.get(title)) for title, predict in predictors.items()})


@pytest.fixture(scope="module")
def measured(demo_pack):
    """Two odd names, two seeds of one experiment, the reference rows, and a metric that is n/a."""
    predictors = {EVIL: painter(0.5), ODD: painter(0.7), "s0": painter(0.6), "s1": painter(0.65)}
    cards = {EVIL: card(1, model={"a": 1}), ODD: card(1, model={"a": 2}), "s0": card(0), "s1": card(1)}
    predictors |= {name: trivial_predictor(name, demo_pack) for name in TRIVIAL}
    result = evaluate(predictors, demo_pack, ["rmse_ab", "psnr", "colorfulness_ratio", "auc_rebalanced"])
    result.groups = np.arange(len(demo_pack))  # two photographs alone would have no marks
    for cells in result.table.values():
        cells["lpips"] = {"mean": None, "note": "needs weights <that> are & not here"}
    return result, rows_of(predictors, cards)


@pytest.fixture(scope="module")
def folder(measured, demo_pack, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    options = ReportOptions(out, photos=2, grid_seed=3, batch_size=8, device="cpu")
    written = write_report(*measured, demo_pack, options, remarks=["a remark with <b>"]).files
    assert {path.name for path in written} == {path.name for path in out.iterdir()} == FILES
    return out


def texts(element):
    return " ".join("".join(element.itertext()).split())


@pytest.fixture(scope="module")
def page(folder):
    return ElementTree.parse(folder / "report.html").getroot()  # raises where it is not well-formed


class Balance(HTMLParser):
    """HTML's own view: every tag that is opened is closed, in order, and attributes come once."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_valid_for_an_html_parser_too(folder):
    text = (folder / "report.html").read_text()
    parser = Balance()
    parser.feed(text)
    assert parser.open == []
    assert text.startswith("<!DOCTYPE html>")
    ids = [attrs["id"] for _, attrs in parser.seen if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [attrs["href"] for tag, attrs in parser.seen if tag == "a"]
    assert links
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_page_needs_nothing_else(folder):
    text = (folder / "report.html").read_text()
    addresses = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(address.startswith(("data:image/", "#")) for address in addresses)
    assert "url(" not in text
    assert "@import" not in text
    assert "<script" not in text
    assert set(re.findall(r"https?://[^\"' <]+", text)) == {"http://www.w3.org/1999/xhtml"}
    assert len(text) < 1_000_000


def test_names_and_remarks_are_text(page):
    said = texts(page)
    assert "a remark with <b>" in said
    assert EVIL in said
    assert 'a|b_\\%$#{}~^\ufffd"\ufffd' in said
    assert "needs weights <that> are & not here" in said


def test_the_page_has_every_part(page):
    x = {"x": "http://www.w3.org/1999/xhtml"}
    sections = {section.get("id") for section in page.iterfind(".//x:section", x)}
    assert sections == {"answer", "photographs", "metrics", "pairs", "ends", "colors", "training", "cost", "protocol"}
    table = page.find(".//x:table[@class='main']", x)
    rows = [
        texts(row.find("x:th", x))
        for row in table.iterfind(".//x:tr", x)
        if row.find("x:th[@scope='row']", x) is not None
    ]
    assert rows[0] == EVIL
    assert rows[2:] == ["s mean of seeds", "s0", "s1", *TRIVIAL]
    pictures = page.findall(".//x:section[@id='photographs']//x:img", x)
    assert len(pictures) == (2 + 2) * (3 + 2)  # fixed and random; two models and a group, between grey and original
    ends = page.findall(".//x:section[@id='ends']//x:img", x)
    assert len(ends) == 3 * 3 * 6
    assert "Random selection, seed 3" in texts(page)
    assert "1:01" in texts(page.find(".//x:section[@id='cost']", x))
    assert all(picture.get("alt") for picture in page.iter("{http://www.w3.org/1999/xhtml}img"))


def test_csv_is_read_by_pandas(folder, measured):
    result, _ = measured
    frame = pandas.read_csv(folder / "table.csv")
    assert list(frame) == ["row", "kind", "metric", "mean", "low", "high", "exact", "better", "mark", "note"]
    assert len(frame) == (len(result.table) + 1) * 5
    at = frame.set_index(["row", "metric"])
    assert at.loc[(EVIL, "rmse_ab"), "mean"] == result.table[EVIL]["rmse_ab"]["mean"]
    assert at.loc[("original", "psnr"), "exact"] == 20
    assert np.isnan(at.loc[("original", "psnr"), "mean"])
    assert set(frame.kind) == {"model", "group", "seed", "trivial"}
    best = at[at.mark == "best"].reset_index()
    assert list(best.metric) == ["rmse_ab", "psnr", "colorfulness_ratio", "auc_rebalanced"]
    assert (best.row == frame.row[5]).all()  # nearest to the truth


def columns_of(line):
    return len(re.sub(r"\\.", "", line.removesuffix(r" \\")).split("&"))


def test_tex_is_a_table(folder):
    lines = [line for line in (folder / "table.tex").read_text().splitlines() if not line.startswith("%")]
    assert lines[0] == r"\begin{tabular}{lrrrrr}"
    assert lines[-1] == r"\end{tabular}"
    assert [line for line in lines if line.endswith("rule")] == [r"\toprule", *[r"\midrule"] * 2, r"\bottomrule"]
    rows = [line for line in lines if line.endswith(r" \\")]
    assert len(rows) == 1 + 9
    assert {columns_of(row) for row in rows} == {6}
    for row in rows:
        bare = re.sub(r"\\[&%$#_{}]", "", row)
        assert bare.count("{") == bare.count("}")
        assert bare.count("$") % 2 == 0
        assert not re.search(r"[#%<>|]", bare)
        assert "_" not in re.sub(r"\$[^$]*\$", "", bare)
    assert tex("a_b & 50% \\ ~^{x}") == r"a\_b \& 50\% \textbackslash{} \textasciitilde{}\textasciicircum{}\{x\}"


def test_json_has_the_differences(folder):
    def refuse(word):
        raise AssertionError(word)

    whole = json.loads((folder / "results.json").read_text(), parse_constant=refuse)
    comparison = whole["comparison"]
    assert comparison["groups"] == {"s": ["s0", "s1"]}
    pairs = 6 * 5 // 2  # two models, the group, three reference rows
    assert len(comparison["paired"]) == 4 * pairs
    first = comparison["paired"][0]
    assert first["low"] <= first["difference"] <= first["high"]
    assert comparison["cost"]["s"]["multiply_adds"] == 9 * 2 * 32 * 32
    assert whole["grey"]["rmse_ab"]["mean"] > 0


def test_markdown_marks_the_best_row_and_those_not_significantly_different(measured):
    result, rows = measured
    comparison = compare_evaluation(result, rows)
    text = markdown_table(result.table, result.protocol, comparison)
    (line,) = [line for line in text.splitlines() if line.startswith("| a\\|b")]
    assert line.count("★") == 4
    assert "`lpips` is n/a: needs weights" in text
    assert "| ↳ s0 | " in text
    assert notes(result.table, result.protocol) == {"lpips": "needs weights <that> are & not here"}
    plain = markdown_table(result.table, result.protocol)
    assert "★" not in plain


def test_a_single_model_is_not_called_best(demo_pack):
    predictors = {"mine": painter(0.5), "grey": trivial_predictor("grey", demo_pack)}
    result = evaluate(predictors, demo_pack, ["rmse_ab"])
    comparison = compare_evaluation(result, rows_of(predictors, {"mine": card(0)}))
    lines = table_lines(result.table, comparison)
    assert [line.marks for line in lines] == [{}, {}]
    assert pandas.read_csv(io.StringIO(csv_table(lines))).mark.isna().all()
    assert "mathbf" not in tex_table(lines, result.protocol)
