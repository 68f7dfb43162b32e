"""The static site: what lies in its folder and what does not; answers that come back, whole or spoilt."""

import json

import pytest

from common.turing.static_site import export_static_site, merge_answers, read_key
from common.turing.store import open_store
from common.utils.errors import UserError


@pytest.fixture
def exported(made, tmp_path):
    site = tmp_path / "site"
    return site, export_static_site(made.inputs.study, made.gallery, site, sessions=6)


def answers_of(key, number=0, session="ab" * 16, **changes):
    """A downloaded file in which everything was answered left."""
    study, plans = read_key(key)
    given = [
        {"position": i, "pair": pair, "choice": "left", "exposure_ms": 1000, "response_ms": 400, "layout": "row"}
        for i, pair in enumerate(plans[number]["pairs"])
    ]
    found = {"study": study.digest(), "plan": number, "session": session, "started": 1.5e9, "answers": given}
    return found | changes


def test_the_folder_tells_no_test_answer(exported, made):
    site, key = exported
    study, plans = read_key(key)
    assert key.parent == site.parent
    assert key.stat().st_mode & 0o077 == 0
    models = [plan["model"] for plan in plans]
    assert sorted(models.count(m) for m in study.models) == [3, 3]
    told = {p.name: p.read_text() for p in site.rglob("*") if p.suffix in (".json", ".html")}
    for text in told.values():
        assert not any(word in text for word in (*study.models, *study.photos, "vigilance"))
    in_test, in_practice = set(), set()
    for number, plan in enumerate(plans):
        public = json.loads((site / "plans" / f"{number}.json").read_text())
        assert set(public) == {"pairs", "practice"}
        assert public["pairs"] == plan["pairs"]
        assert public["practice"] == [t.fake for t in plan["trials"][: study.practice]]
        in_practice |= set(plan["pairs"][: study.practice])
        in_test |= set(plan["pairs"][study.practice :])
        for pair, trial in zip(plan["pairs"], plan["trials"], strict=True):
            assert (site / "pairs" / f"{pair}.jpg").read_bytes() == made.gallery.pair(plan["model"], trial)
    assert not in_test & in_practice
    assert {p.stem for p in (site / "pairs").iterdir()} == in_test | in_practice
    assert not any(word in told["index.html"] for word in ("http://", "https://", "<style", "onclick"))


def test_answers_come_back_once(exported, tmp_path):
    _, key = exported
    db = tmp_path / "s.db"
    files = []
    for i in range(3):
        files.append(tmp_path / f"answers-{i}.json")
        files[-1].write_text(json.dumps(answers_of(key, i, f"{i:032x}")))
    assert merge_answers(key, files[:2], db) == (2, 0, [])
    assert merge_answers(key, files, db) == (1, 2, [])
    store = open_store(db)
    records = store.records()
    store.close()
    plans = read_key(key)[1]
    assert [r.model for r in records[::7]] == [plan["model"] for plan in plans[:3]]
    assert [(r.kind, r.photo, r.fake) for r in records[:7]] == [tuple(t) for t in plans[0]["trials"]]
    assert {r.choice for r in records} == {"left"}


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda a: "no JSON", "has no answers to this test"),
        (lambda a: [a], "it is not a JSON object"),
        (lambda a: a | {"study": "other"}, "holds answers to another study"),
        (lambda a: a | {"plan": 6}, "plan is not within 0 to 5"),
        (lambda a: a | {"plan": True}, "plan is not within"),
        (lambda a: a | {"session": "' OR 1=1"}, "session is not the name"),
        (lambda a: a | {"started": None}, "started is not a time"),
        (lambda a: a | {"answers": 3}, "answers is not a list"),
        (lambda a: a | {"answers": [3]}, "an answer is not an object"),
        (
            lambda a: a | {"answers": [a["answers"][0] | {"pair": a["answers"][1]["pair"]}]},
            "pair 0 differs from the plan",
        ),
        (lambda a: a | {"answers": [a["answers"][0] | {"position": 7}]}, "position is not within 0 to 6"),
        (lambda a: a | {"answers": [a["answers"][0] | {"exposure_ms": -1}]}, "exposure_ms must be between"),
        (lambda a: a | {"answers": [a["answers"][0] | {"choice": "up"}]}, "choice must be left or right"),
        (lambda a: a | {"answers": [{}] * 600_000}, "too large for a file of answers"),
    ],
)
def test_spoilt_answers_are_left_out(exported, tmp_path, spoil, says):
    _, key = exported
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(answers_of(key)))
    spoilt = spoil(answers_of(key, session="cd" * 16))
    bad.write_text(spoilt if isinstance(spoilt, str) else json.dumps(spoilt))
    added, known, failures = merge_answers(key, [bad, good], tmp_path / "s.db")
    assert (added, known, len(failures)) == (1, 0, 1)
    assert says in failures[0]
    assert failures[0].startswith(str(bad))
    store = open_store(tmp_path / "s.db")
    assert len({r.session for r in store.records()}) == 1
    store.close()


def test_the_first_of_two_answers_counts(exported, tmp_path):
    _, key = exported
    found = answers_of(key)
    found["answers"].append(found["answers"][2] | {"choice": "right"})
    (tmp_path / "a.json").write_text(json.dumps(found))
    assert merge_answers(key, [tmp_path / "a.json"], tmp_path / "s.db") == (1, 0, [])
    store = open_store(tmp_path / "s.db")
    assert {r.choice for r in store.records()} == {"left"}
    store.close()


def test_folders_and_keys_that_do_not_serve(exported, made, tmp_path):
    site, _ = exported
    with pytest.raises(UserError, match="exists already"):
        export_static_site(made.inputs.study, made.gallery, site, 1)
    with pytest.raises(UserError, match="cannot be written"):
        export_static_site(made.inputs.study, made.gallery, tmp_path / "site" / "index.html" / "x", 1)
    with pytest.raises(UserError, match="cannot be read"):
        read_key(tmp_path / "none.json")
    for text in ("[]", "{", '{"study": "{}", "plans": []}', '{"study": 3, "plans": 4}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UserError, match="is not the key of a static site"):
            read_key(tmp_path / "bad.json")
