"""The test as a folder of static files for any web host, and the import of the answers.

The folder does not reveal the fake of a test pair: pairs have random names, both orders of a pair have the same file
size, and the key is written elsewhere. Practice pairs contain their solution; test pairs use other photographs.
Limitation: somebody who downloads the whole folder can compare all pairs of one photograph.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from collections import Counter
from pathlib import Path

from common.turing.pictures import Gallery
from common.turing.server import STATIC, read_answer, study_values, templates
from common.turing.store import Answer, Store, open_store
from common.turing.trials import Study, Trial, next_model, plan_session
from common.utils.errors import UserError, one_sentence
from common.utils.files import user_path
from common.utils.web import CONTENT_POLICY

_FILES = ("test.js", "static_site.js", "style.css", "icon.svg")
_MAX_ANSWERS = 1_000_000  # bytes of a file of answers


def export_static_site(study: Study, gallery: Gallery, out: Path, sessions: int) -> Path:
    """Write the static site into a new folder, and its key beside it as NAME.key.json, which is returned.

    sessions: number of plans, evenly over the models; each browser draws one of them.
    Raises UserError if the folder is not empty or cannot be written.
    """
    key_path = out.with_name(f"{out.name}.key.json")
    if key_path.exists() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise UserError(f"{out} or {key_path.name} exists already: choose another --out, or remove both")
    names: dict[tuple, str] = {}
    pictures: dict[str, bytes] = {}
    plans: list[dict] = []
    started: Counter = Counter()
    for number in range(sessions):
        model = next_model(started, study, number)
        started[model] += 1
        trials, pairs = plan_session(study, number), []
        for trial in trials:
            key = (model if trial.kind != "vigilance" else None, *trial)
            names.setdefault(key, secrets.token_hex(10))
            pictures[names[key]] = gallery.pair(model, trial)
            pairs.append(names[key])
        plans.append({"model": model, "trials": [list(t) for t in trials], "pairs": pairs})
    with user_path(out, "choose another --out"):
        for folder in (out / "pairs", out / "plans"):
            folder.mkdir(parents=True)
        for name in sorted(pictures):  # in random order, so that modification times reveal nothing
            (out / "pairs" / f"{name}.jpg").write_bytes(pictures[name])
        for number, plan in enumerate(plans):
            practice = [trial[2] for trial in plan["trials"][: study.practice]]
            text = json.dumps({"pairs": plan["pairs"], "practice": practice})
            (out / "plans" / f"{number}.json").write_text(text)
        for name in _FILES:
            (out / name).write_bytes((STATIC / name).read_bytes())
        values = study_values(study) | {"static": ".", "study": study.digest(), "plans": sessions}
        (out / "index.html").write_text(
            templates().get_template("static_site.html").render(**values, policy=CONTENT_POLICY)
        )
        key_path.write_text(json.dumps({"study": study.to_json(), "plans": plans}))
        os.chmod(key_path, 0o600)
    return key_path


def read_key(path: Path) -> tuple[Study, list[dict]]:
    """The study and the plans of a key. Raises UserError if the file is not a key."""
    try:
        found = json.loads(path.read_text())
        study, plans = Study.from_json(found["study"]), found["plans"]
        for plan in plans:
            plan["trials"] = [Trial(*trial) for trial in plan["trials"]]
            if plan["model"] not in study.models or len(plan["trials"]) != len(plan["pairs"]):
                raise ValueError
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give the key that export wrote") from None
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not the key of a static site: give the .key.json that export wrote") from None
    return study, plans


def merge_answers(key: Path, files: list[Path], db: Path) -> tuple[int, int, list[str]]:
    """Add downloaded answers to a database, which is created if it does not exist.

    Returns (sessions added, sessions that the database contained already, one sentence per file that was skipped).
    """
    study, plans = read_key(key)
    store = open_store(db, study)
    added, known, failures = 0, 0, []
    try:
        for file in files:
            try:
                if _merge(store, study, plans, file):
                    added += 1
                else:
                    known += 1
            except UserError as error:
                failures.append(str(error))
    finally:
        store.close()
    return added, known, failures


def _merge(store: Store, study: Study, plans: list[dict], file: Path) -> bool:
    try:
        if file.stat().st_size > _MAX_ANSWERS:
            raise UserError(f"{file} is too large for a file of answers, and was skipped")
        found = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError("it is not a JSON object")
        if found.get("study") != study.digest():
            raise UserError(f"{file} holds answers to another study: it was skipped")
        plan = plans[_whole(found, "plan", len(plans))]
        session, started = found.get("session"), found.get("started")
        if not isinstance(session, str) or not re.fullmatch("[0-9a-f]{32}", session):
            raise ValueError("session is not the name of a session")
        if not isinstance(started, (int, float)) or not math.isfinite(started):
            raise ValueError("started is not a time")
        return store.add(session, plan["model"], plan["trials"], _answers(found, plan), float(started))
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}): it was skipped") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} has no answers to this test ({one_sentence(error)}): it was skipped") from None


def _answers(found: dict, plan: dict) -> dict[int, Answer]:
    given = found.get("answers")
    if not isinstance(given, list):
        raise ValueError("answers is not a list")
    answers: dict[int, Answer] = {}
    for one in given:
        if not isinstance(one, dict):
            raise ValueError("an answer is not an object")
        position = _whole(one, "position", len(plan["pairs"]))
        if one.get("pair") != plan["pairs"][position]:
            raise ValueError(f"pair {position} differs from the plan")
        answers.setdefault(position, read_answer(one))  # the first answer counts
    return answers


def _whole(found: dict, name: str, below: int) -> int:
    value = found.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < below:
        raise ValueError(f"{name} is not within 0 to {below - 1}")
    return value
