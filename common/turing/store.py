"""The database of a study, in SQLite. Acknowledged answers survive `kill -9` and a power failure.

The file contains the digests of the sessions' secrets, not the secrets, so nobody can resume a session from the file.
Answers and their times are stored; addresses and browsers of the participants are not.
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
_APPLICATION = 0x54555249  # "TURI", SQLite's application_id
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
    """The answer to one pair. Times are in ms of the browser's frame clock."""

    choice: Side
    exposure_ms: float
    response_ms: float
    layout: str  # of the two pictures: "row", "column", or "small" if the screen is too small for 256 px


class State(NamedTuple):
    """Progress of a session. The page receives nothing else before an answer."""

    stage: str  # "practice", "test" or "end"
    done: int  # pairs of the stage that are answered or lapsed
    total: int  # pairs of the stage
    current: str | None  # the pair to show
    next: str | None  # the pair to prefetch


class Record(NamedTuple):
    """One trial with its answer, if there is one."""

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
    """A request does not fit the state of the session. status: HTTP status code."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Store:
    """An open database. It is thread-safe, and several processes may open the same file."""

    def __init__(self, connection: sqlite3.Connection, study: Study) -> None:
        self._connection, self._lock, self.study = connection, threading.Lock(), study

    def close(self) -> None:
        """Close the database connection. When the last connection closes, SQLite checkpoints its write-ahead log."""
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
        """Start a session with the model that has the fewest sessions, and return its secret."""
        secret = secrets.token_urlsafe(24)
        with self._writing() as db:
            started = dict(db.execute("SELECT model, COUNT(*) FROM session GROUP BY model"))
            number = sum(started.values())
            model = next_model(started, self.study, number)
            _insert(db, secret, model, plan_session(self.study, number), time.time())
        return secret

    def add(self, secret: str, model: str, trials: list[Trial], answers: dict[int, Answer], started: float) -> bool:
        """Add a session of a static site. Returns False, and changes nothing, if the database already contains it.

        answers: by position in `trials`.
        """
        with self._writing() as db:
            if db.execute("SELECT 1 FROM session WHERE secret = ?", (_digest(secret),)).fetchone():
                return False
            pairs = _insert(db, secret, model, trials, started)
            for position, a in answers.items():
                db.execute(_ANSWER, (a.choice, started, a.exposure_ms, a.response_ms, a.layout, pairs[position]))
        return True

    def has_session(self, secret: str) -> bool:
        """Whether a session has this secret."""
        return bool(self._rows("SELECT 1 FROM session WHERE secret = ?", (_digest(secret),)))

    def resume(self, secret: str) -> State:
        """The state of a session whose page is loaded. A pair that was displayed and not answered lapses."""
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
        """(model, trial) of a pair. Raises Refused unless it is the current pair or the next one."""
        with self._lock:
            session = _session(self._connection, secret)
            trial, past = _trial(self._connection, session, pair)
            if past:
                raise Refused(410, "this pair is over")
            state = _state(self._connection, session)
            if pair not in (state.current, state.next):
                raise Refused(404, "no such pair")
            (model,) = self._connection.execute("SELECT model FROM session WHERE id = ?", (session,)).fetchone()
        return model, trial

    def shown(self, secret: str, pair: str) -> None:
        """Record that a pair is displayed. Raises Refused if it is not the current pair."""
        with self._writing() as db:
            session = _session(db, secret)
            _trial(db, session, pair)
            if _state(db, session).current != pair:
                raise Refused(409, "this is not the current pair")
            db.execute("UPDATE trial SET shown = COALESCE(shown, ?) WHERE pair = ?", (time.time(), pair))

    def answer(self, secret: str, pair: str, answer: Answer) -> tuple[Side | None, State]:
        """Store an answer. Returns (side of the fake, for practice pairs only; the new state).

        The answer is on the disk when this returns. A second answer to the same pair is ignored and gets the same
        response. Raises Refused if the pair is not the current one.
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
        """(pairs in which this person was fooled, pairs answered), of the test without vigilance trials."""
        with self._lock:
            session = _session(self._connection, secret)
            return self._connection.execute(
                "SELECT COALESCE(SUM(choice != fake), 0), COUNT(*) FROM trial"
                " WHERE session = ? AND kind = 'test' AND choice IS NOT NULL",
                (session,),
            ).fetchone()

    def records(self) -> list[Record]:
        """All trials, by session and position."""
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

    study: a new file is created with it; the study of an existing file must equal it. None: the file must exist.
    Raises UserError if the file is not a database of this program, has another version or study, or cannot be
    opened or written.
    """
    path = Path(path)
    if study is None and not path.exists():
        raise UserError(f"{path} does not exist: give the --db of serve or merge")
    try:
        connection = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            return Store(connection, _prepare(connection, path, study))
        except BaseException:
            connection.close()
            raise
    except sqlite3.DatabaseError as error:
        if "not a database" in str(error) or "malformed" in str(error):
            raise UserError(f"{path} is not the database of a study: give another --db") from None
        raise UserError(
            f"{path} cannot be written ({error}): check permissions and space, or give another --db"
        ) from None


def _prepare(db: sqlite3.Connection, path: Path, study: Study | None) -> Study:
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")  # in WAL mode, NORMAL may lose the last commits at a power failure
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("BEGIN IMMEDIATE")  # fails if the file cannot be written
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
            raise UserError(f"{path} is not the database of a study: give another --db")
        elif version != VERSION:
            raise UserError(
                f"{path} has version {version}, but this program reads version {VERSION}: give another --db"
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
