"""From trials to results: the rules in their order, shares counted by hand, the report's files."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

from common.turing.report import write_report
from common.turing.results import Rules, summarize, trial_verdicts
from common.turing.simulate import Observers
from common.turing.store import Record
from common.turing.trials import Study, plan_session
from common.utils.errors import UserError

STUDY = Study(("good", "bad|odd"), tuple(f"p{i}" for i in range(60)), "c", 64)


def person(number, model, fooled, **changes):
    """The trials of one person: fooled in the first so many test pairs, right in the others and in vigilance."""
    records = []
    for i, trial in enumerate(plan_session(STUDY, number)):
        wrong = trial.kind == "test" and fooled > 0
        fooled -= wrong
        choice = {"left": "right", "right": "left"}[trial.fake] if wrong else trial.fake
        records.append(Record(number, model, i, *trial, True, choice, 1000.0, 500.0 + i, "row"))
    return [r._replace(**changes) if r.kind == "test" else r for r in records]


def spoil(records, kind, count, **changes):
    """The first so many trials of a kind, changed."""
    chosen = [r.position for r in records if r.kind == kind][:count]
    return [r._replace(**changes) if r.position in chosen else r for r in records]


def wrong_vigilance(records, count):
    return [r for r in records if r.kind != "vigilance"] + [
        r._replace(choice={"left": "right", "right": "left"}[r.fake]) if i < count else r
        for i, r in enumerate(r for r in records if r.kind == "vigilance")
    ]


def test_shares_counted_by_hand():
    records = person(0, "good", 18) + person(1, "good", 9) + person(2, "bad|odd", 0)
    results = summarize(records, STUDY)
    good, bad = results.models["good"], results.models["bad|odd"]
    assert (good.share.value, good.people, good.trials) == (27 / 72, 2, 72)
    assert (bad.share.value, bad.people, bad.trials) == (0, 1, 36)
    assert results.differences["good", "bad|odd"].value == pytest.approx(27 / 72)
    assert results.verdicts == {"counted": 108}
    times = [r.response_ms for r in records if r.kind == "test" and r.model == "good"]
    assert good.response_ms == pytest.approx(np.percentile(times, [25, 50, 75]))


def test_each_rule_leaves_out_what_it_says():
    records = person(0, "good", 18)
    fine = {"exposure_ms": 1050.0, "response_ms": 150.0}
    cases = [
        (spoil(records, "test", 3, exposure_ms=1051.0), {"exposure wrong": 3, "counted": 33}),
        (spoil(records, "test", 2, exposure_ms=949.0, response_ms=10.0), {"exposure wrong": 2, "counted": 34}),
        (spoil(records, "test", 4, response_ms=149.0), {"too fast": 4, "counted": 32}),
        (spoil(records, "test", 5, **fine), {"counted": 36}),
        (spoil(records, "test", 5, choice=None, exposure_ms=None, response_ms=None), {"unanswered": 5, "counted": 31}),
        (wrong_vigilance(records, 1), {"counted": 36}),
        (wrong_vigilance(records, 2), {"vigilance failed": 36}),
        (spoil(records, "vigilance", 4, choice=None), {"vigilance failed": 36}),
    ]
    for changed, expected in cases:
        results = summarize(changed, STUDY)
        assert results.verdicts == expected
        assert results.failed_people == ("vigilance failed" in expected)
        assert results.models["good"].trials == expected.get("counted", 0)


def test_unanswered_is_not_fooled():
    records = spoil(person(0, "good", 18), "test", 18, choice=None, exposure_ms=None, response_ms=None)
    assert summarize(records, STUDY).models["good"].share.value == 0


def test_other_rules():
    records = person(0, "good", 5, exposure_ms=1200.0)
    assert trial_verdicts(records, STUDY, Rules(exposure_tolerance_ms=200)).count("counted") == 36
    assert len(Rules().describe()) == 4


def test_photographs_in_order():
    records = [r for n in range(8) for r in person(n, "good", 0)]
    convincing = {3 + 10, 7 + 10}
    turn = {"left": "right", "right": "left"}
    records = [r._replace(choice=turn[r.fake]) if r.kind == "test" and r.photo in convincing else r for r in records]
    photos = summarize(records, STUDY).photos
    seen = {int(p.photo[1:]) for p in photos[:2]}
    assert seen == convincing
    assert all(p.fooled == (p.trials if int(p.photo[1:]) in convincing else 0) for p in photos)
    assert [p.smoothed for p in photos] == sorted((p.smoothed for p in photos), reverse=True)


def test_simulated_people_through_the_whole_report(tmp_path):
    """Observers of known share answer a study; the report's interval holds the truth, and its files agree."""
    rng, records = np.random.default_rng(4), []
    truth = {"good": Observers.of_share(0.4, 0.08), "bad|odd": Observers.of_share(0.15, 0.05)}
    for number in range(40):
        model = STUDY.models[number % 2]
        records += person(number, model, int(truth[model].answer(1, 36, rng)[0]))
    text = write_report(records, STUDY, tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"report.md", "results.json", "answers.csv", "shares.png"}
    assert (tmp_path / "out" / "report.md").read_text() == text
    result = json.loads((tmp_path / "out" / "results.json").read_text())
    for model, observers in truth.items():
        share = result["models"][model]["share"]
        assert share["low"] < observers.share < share["high"]
        assert f"{100 * share['value']:.1f} % ({100 * share['low']:.1f} to {100 * share['high']:.1f})" in text
    (difference,) = result["differences"]
    assert difference["low"] > 0
    assert "| significant |" in text
    assert "bad\\|odd" in text  # a title does not break the table
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "answers.csv").read_text())))
    assert len(rows) == 40 * 50
    counted = [r for r in rows if r["verdict"] == "counted" and r["model"] == "good"]
    assert np.mean([int(r["fooled"]) for r in counted]) == pytest.approx(result["models"]["good"]["share"]["value"])
    assert Image.open(tmp_path / "out" / "shares.png").width > 800


def test_a_study_without_answers(tmp_path):
    text = write_report([], STUDY, tmp_path)
    assert text.count("no counted trial") == 2
    assert "no differences yet" in text


def test_one_model_so_far(tmp_path):
    text = write_report(person(0, "good", 10), STUDY, tmp_path)
    assert "no differences yet, because fewer than two models" in text
    assert "One model has answers of 1 person only" in text


def test_a_folder_that_cannot_be_written():
    from pathlib import Path

    with pytest.raises(UserError, match="/proc/x cannot be written"):
        write_report([], STUDY, Path("/proc/x"))
