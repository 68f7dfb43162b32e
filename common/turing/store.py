"""The database of a study: SQLite, in which an answer that was acknowledged outlives `kill -9` and a power cut.

Sessions are found by the digest of their secret, so the file alone lets nobody go on in another's name. Nothing is
kept about a person but the answers: no address, no browser.
"""

from __future__ import annotations

import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common.turing.trials import Kind, Side, Study, Trial, next_model, plan_session
from common.utils.errors import UserError

VERSION = 1
_APPLICATION = 0x54555249  # "TURI", in the file's header
_SCHEMA = """
CREATE TABLE study (record TEXT NOT NULL);
CREATE TABLE session (
    id INTEGER PRIMARY KEY, secret BLOB NOT NULL UNIQUE, model TEXT NOT NULL, started REAL NOT NULL
);
CREATE TABLE trial (
    pair TEXT PRIMARY KEY, session INTEGER NOT NULL REFERENCES session, position INTEGER NOT NULL,
    kind TEXT NOT NULL, photo INTEGER NOT NULL, fake TEXT NOT NULL,
    shown REAL, lapsed INTEGER NOT NULL DEFAULT 0,
    choice TEXT, answered REAL, exposure_ms REAL, response_ms REAL, layout TEXT,
    UNIQUE (session, position)
);
"""


class Answer(NamedTuple):
    """What the page sends about one pair. Times in ms by the browser's frame clock."""

    choice: Side
    exposure_ms: float
    response_ms: float
    layout: str  # how the two pictures stood: "row", "column", or "small" where the screen had no room for 256 px


class State(NamedTuple):
    """How far a session is: all that its page is told before an answer."""

    stage: str  # "practice", "test" or "end"
    done: int  # pairs of the stage that are past
    total: int
    current: str | None  # the pair to show
    next: str | None  # the pair to fetch meanwhile


class Record(NamedTuple):
    """One trial of the database."""

    session: int
    model: str
    position: int
    kind: Kind
    photo: int
    fake: Side
    shown: bool
    choice: Side | None
    exposure_ms: float | None
    response_ms: float | None
    layout: str | None


class Refused(Exception):
    """A request that does not fit the state of the session: `status` is that of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Store:
    """An open database. Safe to use from several threads; several processes may share the file."""

    def __init__(self, connection: sqlite3.Connection, study: Study) -> None:
        self._connection, self._lock, self.study = connection, threading.Lock(), study

    def close(self) -> None:
        """Write everything into the one file and let go of it."""
        self._connection.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, values: tuple = ()) -> list[tuple]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def begin(self) -> str:
        """A new session with the model that has the fewest; returns its secret."""
        secret = secrets.token_urlsafe(24)
        with self._writing() as db:
            started = dict(db.execute("SELECT model, COUNT(*) FROM session GROUP BY model"))
            number = sum(started.values())
            model = next_model(started, self.study, number)
            _insert(db, secret, model, plan_session(self.study, number), time.time())
        return secret

    def add(self, secret: str, model: str, trials: list[Trial], answers: dict[int, Answer], started: float) -> bool:
        """Take in a whole session that was played elsewhere; False, and nothing done, where it is here already.

        answers: position -> answer.
        """
        with self._writing() as db:
            if db.execute("SELECT 1 FROM session WHERE secret = ?", (_digest(secret),)).fetchone():
                return False
            pairs = _insert(db, secret, model, trials, started)
            for position, a in answers.items():
                db.execute(_ANSWER, (a.choice, started, a.exposure_ms, a.response_ms, a.layout, pairs[position]))
        return True

    def knows(self, secret: str) -> bool:
        """Whether there is a session of this secret."""
        return bool(self._rows("SELECT 1 FROM session WHERE secret = ?", (_digest(secret),)))

    def resume(self, secret: str) -> State:
        """The state of a session whose page was just loaded: a pair that was on show and not answered has lapsed."""
        with self._writing() as db:
            session = _session(db, secret)
            db.execute(
                "UPDATE trial SET lapsed = 1 WHERE session = ? AND shown IS NOT NULL AND choice IS NULL", (session,)
            )
            return _state(db, session)

    def state(self, secret: str) -> State:
        """The state of a session."""
        with self._lock:
            return _state(self._connection, _session(self._connection, secret))

    def picture_of(self, secret: str, pair: str) -> tuple[str, Trial]:
        """(model, trial) of a pair to send. Raises Refused: only the current and the next one are ever sent."""
        with self._lock:
            session = _session(self._connection, secret)
            trial, past = _trial(self._connection, session, pair)
            if past:
                raise Refused(410, "this pair is past")
            state = _state(self._connection, session)
            if pair not in (state.current, state.next):
                raise Refused(404, "no such pair")
            (model,) = self._connection.execute("SELECT model FROM session WHERE id = ?", (session,)).fetchone()
        return model, trial

    def shown(self, secret: str, pair: str) -> None:
        """Remember that a pair is on show. Raises Refused for one that is not the current pair."""
        with self._writing() as db:
            session = _session(db, secret)
            _trial(db, session, pair)
            if _state(db, session).current != pair:
                raise Refused(409, "this is not the current pair")
            db.execute("UPDATE trial SET shown = COALESCE(shown, ?) WHERE pair = ?", (time.time(), pair))

    def answer(self, secret: str, pair: str, answer: Answer) -> tuple[Side | None, State]:
        """Record an answer, once: returns (where the fake was, for practice pairs only; the new state).

        The same pair again changes nothing and is answered alike. When this returns, the answer is on the disk.
        Raises Refused for a pair that is not the current one.
        """
        with self._writing() as db:
            session = _session(db, secret)
            trial, past = _trial(db, session, pair)
            answered = db.execute("SELECT choice FROM trial WHERE pair = ?", (pair,)).fetchone()[0] is not None
            if not answered:
                if past or _state(db, session).current != pair:
                    raise Refused(409, "this is not the current pair")
                db.execute(
                    _ANSWER,
                    (answer.choice, time.time(), answer.exposure_ms, answer.response_ms, answer.layout, pair),
                )
            return (trial.fake if trial.kind == "practice" else None), _state(db, session)

    def outcome(self, secret: str) -> tuple[int, int]:
        """(pairs in which this person was fooled, pairs answered), vigilance trials and practice apart."""
        with self._lock:
            session = _session(self._connection, secret)
            return self._connection.execute(
                "SELECT COALESCE(SUM(choice != fake), 0), COUNT(*) FROM trial"
                " WHERE session = ? AND kind = 'test' AND choice IS NOT NULL",
                (session,),
            ).fetchone()

    def records(self) -> list[Record]:
        """Every trial, in order."""
        rows = self._rows(
            "SELECT session, model, position, kind, photo, fake, shown IS NOT NULL OR choice IS NOT NULL, choice,"
            " exposure_ms, response_ms, layout FROM trial JOIN session ON session.id = trial.session"
            " ORDER BY session, position"
        )
        return [Record(*row[:6], bool(row[6]), *row[7:]) for row in rows]


_ANSWER = (
    "UPDATE trial SET choice = ?, answered = ?, exposure_ms = ?, response_ms = ?, layout = ?"
    " WHERE pair = ? AND choice IS NULL"
)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _insert(db: sqlite3.Connection, secret: str, model: str, trials: list[Trial], started: float) -> list[str]:
    cursor = db.execute(
        "INSERT INTO session (secret, model, started) VALUES (?, ?, ?)", (_digest(secret), model, started)
    )
    pairs = [secrets.token_urlsafe(12) for _ in trials]
    db.executemany(
        "INSERT INTO trial (pair, session, position, kind, photo, fake) VALUES (?, ?, ?, ?, ?, ?)",
        [(pair, cursor.lastrowid, i, *trial) for i, (pair, trial) in enumerate(zip(pairs, trials, strict=True))],
    )
    return pairs


def _session(db: sqlite3.Connection, secret: str) -> int:
    row = db.execute("SELECT id FROM session WHERE secret = ?", (_digest(secret),)).fetchone()
    if row is None:
        raise Refused(403, "no session")
    return row[0]


def _trial(db: sqlite3.Connection, session: int, pair: str) -> tuple[Trial, bool]:
    row = db.execute(
        "SELECT kind, photo, fake, lapsed OR choice IS NOT NULL FROM trial WHERE pair = ? AND session = ?",
        (pair, session),
    ).fetchone()
    if row is None:
        raise Refused(404, "no such pair")
    return Trial(*row[:3]), bool(row[3])


def _state(db: sqlite3.Connection, session: int) -> State:
    rows = db.execute(
        "SELECT pair, kind = 'practice', lapsed OR choice IS NOT NULL FROM trial WHERE session = ? ORDER BY position",
        (session,),
    ).fetchall()
    ahead = [(pair, practice) for pair, practice, past in rows if not past]
    practice = bool(ahead and ahead[0][1])
    of_stage = [past for _, is_practice, past in rows if bool(is_practice) == practice]
    stage = "end" if not ahead else "practice" if practice else "test"
    pairs = [pair for pair, _ in ahead[:2]] + [None, None]
    return State(stage, sum(of_stage), len(of_stage), pairs[0], pairs[1])


def open_store(path: str | Path, study: Study | None = None) -> Store:
    """Open the database of a study.

    study: made with it where the file is new; where it is not, both must agree. None: read whatever study is there.
    Raises UserError, in one sentence, for a file that is none of ours, of another version or study, or that cannot
    be opened or written.
    """
    path = Path(path)
    if study is None and not path.exists():
        raise UserError(f"{path} does not exist: give the --db of a study that was served or merged")
    try:
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            return Store(connection, _prepare(connection, path, study))
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise UserError(f"{path} is no database of a study: give another --db") from None
        raise UserError(
            f"{path} cannot be written ({error}): check permissions and space, or give another --db"
        ) from None


def _prepare(db: sqlite3.Connection, path: Path, study: Study | None) -> Study:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # in WAL mode NORMAL may lose the last commits when the power goes
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("BEGIN IMMEDIATE")  # also finds out whether the file can be written
    try:
        (version,), (application,) = (db.execute(f"PRAGMA {p}").fetchone() for p in ("user_version", "application_id"))
        empty = not db.execute("SELECT 1 FROM sqlite_master").fetchone()
        if empty and study is not None:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute(f"PRAGMA application_id = {_APPLICATION}")
            db.execute("INSERT INTO study VALUES (?)", (study.to_json(),))
        elif application != _APPLICATION:
            raise UserError(f"{path} is no database of a study: give another --db")
        elif version != VERSION:
            raise UserError(
                f"{path} is of version {version} and this program reads version {VERSION}: give another --db"
            )
        found = Study.from_json(db.execute("SELECT record FROM study").fetchone()[0])
        if study is not None and found != study:
            raise UserError(f"{path} holds another study ({_differs(found, study)}): give another --db")
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")
    return found


def _differs(found: Study, study: Study) -> str:
    def describe(value: object) -> str:
        return ", ".join(value) if isinstance(value, tuple) else f"{value}"

    for name in ("models", "size", "practice", "test", "vigilance", "seed"):
        if getattr(found, name) != getattr(study, name):
            return f"{name} {describe(getattr(found, name))}, not {describe(getattr(study, name))}"
    return "other photographs" if found.photos != study.photos else "other pictures: weights or photographs changed"
