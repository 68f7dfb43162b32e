"""The database: answers once, in order, of their own session; refusals; files that are none of ours."""

import os
import shutil
import sqlite3
import tempfile
import threading
from pathlib import Path

import pytest

from common.turing.store import Answer, Refused, open_store
from common.turing.trials import Study, plan_session
from common.utils.errors import UserError

STUDY = Study(("a", "b"), tuple(f"p{i}" for i in range(30)), "c", 32, practice=2, test=5, vigilance=0.2)
LEFT = Answer("left", 1000.0, 300.0, "row")


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "study.db", STUDY)
    yield store
    store.close()


def refused(status, call, *args):
    with pytest.raises(Refused) as error:
        call(*args)
    assert error.value.status == status


def test_a_session_from_begin_to_end(store):
    me = store.begin()
    trials = plan_session(STUDY, 0)
    seen = []
    for i in range(7):
        state = store.state(me)
        assert (state.stage, state.done, state.total) == (("practice", i, 2) if i < 2 else ("test", i - 2, 5))
        model, trial = store.picture_of(me, state.current)
        assert trial == trials[i]
        store.shown(me, state.current)
        fake, after = store.answer(me, state.current, LEFT)
        assert fake == (trial.fake if i < 2 else None)  # told of practice alone
        assert after.current == state.next
        seen.append(state.current)
        refused(410, store.picture_of, me, state.current)
    assert len(set(seen)) == 7
    assert store.state(me).stage == "end"
    counted = [t for t in trials if t.kind == "test"]
    assert store.outcome(me) == (sum(t.fake != "left" for t in counted), len(counted))
    assert {r.model for r in store.records()} == {model}
    assert all(r.choice == "left" and r.exposure_ms == 1000 and r.layout == "row" for r in store.records())


def test_an_answer_counts_once(store):
    me = store.begin()
    state = store.state(me)
    first = store.answer(me, state.current, LEFT)
    assert store.answer(me, state.current, LEFT._replace(choice="right")) == first
    assert [r.choice for r in store.records()][:2] == ["left", None]


def test_only_the_current_and_the_next_pair_are_sent(store):
    me, other = store.begin(), store.begin()
    state = store.state(me)
    store.picture_of(me, state.current)
    store.picture_of(me, state.next)
    with sqlite3.connect(
        f"file:{store._connection.execute('PRAGMA database_list').fetchone()[2]}?mode=ro", uri=True
    ) as db:
        third = db.execute("SELECT pair FROM trial WHERE session = 1 AND position = 2").fetchone()[0]
    refused(404, store.picture_of, me, third)
    refused(404, store.picture_of, me, "made-up")
    refused(404, store.picture_of, other, state.current)
    refused(404, store.answer, other, state.current, LEFT)
    refused(404, store.shown, other, state.current)
    refused(409, store.answer, me, state.next, LEFT)
    refused(409, store.shown, me, state.next)
    for call in (store.state, store.resume, store.outcome):
        refused(403, call, "nobody")
    assert all(r.choice is None for r in store.records())


def test_a_pair_on_show_lapses_with_its_page(store):
    me = store.begin()
    state = store.resume(me)
    assert store.resume(me) == state  # fetched, but not on show
    store.shown(me, state.current)
    after = store.resume(me)
    assert (after.current, after.done) == (state.next, 1)
    refused(410, store.picture_of, me, state.current)
    refused(409, store.answer, me, state.current, LEFT)
    (lapsed,) = [r for r in store.records() if r.shown]
    assert (lapsed.position, lapsed.choice) == (0, None)


def test_many_at_once(store):
    """Models stay even, and of a hundred equal answers one counts."""
    secrets, outcomes = [], []
    threads = [threading.Thread(target=lambda: secrets.append(store.begin())) for _ in range(30)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    models = [r.model for r in store.records() if r.position == 0]
    assert sorted(models.count(m) for m in "ab") == [15, 15]
    pair = store.state(secrets[0]).current
    threads = [
        threading.Thread(target=lambda: outcomes.append(store.answer(secrets[0], pair, LEFT))) for _ in range(20)
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(outcomes) == 20
    assert len({str(o) for o in outcomes}) == 1
    assert sum(r.choice is not None for r in store.records()) == 1


def test_two_processes_worth_of_connections(tmp_path):
    one, two = (open_store(tmp_path / "s.db", STUDY) for _ in range(2))
    me = one.begin()
    assert two.has_session(me)
    two.answer(me, two.state(me).current, LEFT)
    assert one.state(me).done == 1
    for store in (one, two):
        store.close()


def test_it_is_made_to_last(store):
    settings = [store._connection.execute(f"PRAGMA {p}").fetchone()[0] for p in ("journal_mode", "synchronous")]
    assert settings == ["wal", 2]  # 2: FULL


def test_the_file_holds_no_secret(tmp_path):
    store = open_store(tmp_path / "s.db", STUDY)
    me = store.begin()
    store.close()
    assert me.encode() not in b"".join(p.read_bytes() for p in tmp_path.iterdir())


def test_another_study_or_version(tmp_path):
    path = tmp_path / "s.db"
    open_store(path, STUDY).close()
    assert open_store(path).study == STUDY
    other = Study(("a", "z"), STUDY.photos, "c", 32, practice=2, test=5, vigilance=0.2)
    with pytest.raises(UserError, match=r"s\.db holds another study \(models a, b, not a, z\)"):
        open_store(path, other)
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 9")
    with pytest.raises(UserError, match="has version 9, but this program reads version 1"):
        open_store(path, STUDY)


def test_files_that_are_no_study(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        open_store(tmp_path / "none.db")
    (tmp_path / "text.db").write_text("this is not a database, only a text that is long enough to be looked at" * 20)
    with sqlite3.connect(tmp_path / "foreign.db") as db:
        db.execute("CREATE TABLE t (x)")
    (tmp_path / "folder.db").mkdir()
    open_store(tmp_path / "cut.db", STUDY).close()
    whole = (tmp_path / "cut.db").read_bytes()
    (tmp_path / "cut.db").write_bytes(whole[: len(whole) // 2])
    for name, says in (
        ("text", "not the database"),
        ("foreign", "not the database"),
        ("folder", "cannot be"),
        ("cut", "study"),
    ):
        for study in (STUDY, None):
            with pytest.raises(UserError, match=says) as error:
                open_store(tmp_path / f"{name}.db", study)
            assert len(str(error.value).splitlines()) == 1


def test_a_database_that_may_not_be_written():
    """As somebody who is not the owner, where the tests run as root: root may write everything."""
    folder = Path(tempfile.mkdtemp())
    try:
        open_store(folder / "s.db", STUDY).close()
        (folder / "s.db").chmod(0o444)
        folder.chmod(0o555)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        try:
            for study in (STUDY, None):
                with pytest.raises(UserError, match="cannot be written"):
                    open_store(folder / "s.db", study)
            with pytest.raises(UserError, match="cannot be written"):
                open_store(folder / "new.db", STUDY)
        finally:
            if root:
                os.seteuid(0)
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)
