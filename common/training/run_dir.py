"""The folder of a run: checks before training, the lock during training, and the card of its weights."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from common.checkpoint import BEST, WEIGHTS, published_parameter_count
from common.colorizer import Colorizer
from common.data.packing import Pack
from common.registry import upgraded
from common.training.config import RunConfig, TrainConfig, load_config
from common.training.state import STATE, read_state, restoring
from common.utils.device import machine
from common.utils.errors import UserError, one_sentence
from common.utils.files import locked

CONFIG, METRICS = "config.yaml", "metrics.jsonl"
_MARKER = ".run"  # a file in every run folder; runs of older versions have none
_STEP = "[0-9]" * 8
KEPT = f"weights-{_STEP}.safetensors"  # pattern of the copies that `keep_every` keeps
# Patterns of all files that a run writes. Only these are deleted by `fresh`; the state first, as it needs the config.
_WRITTEN = (
    STATE, WEIGHTS, BEST, KEPT, METRICS, "events.out.tfevents.*", CONFIG,
    f"samples/{_STEP}.png", f"bins/{_STEP}.png",
)  # fmt: skip

# Options that may change between two commands of the same run.
_FREE = {
    "run", "fresh", "steps", "epochs", "budget", "device", "compile", "log_every", "eval_every", "sample_every",
    "samples", "save_every", "keep_every", "early_stop", "data.cache", "data.workers", "data.val_limit",
    "data.max_enlargement",  # a change of the photographs is found by their content
}  # fmt: skip
# Options that older runs do not have, with the value that they trained with.
_ADDED_LATER = {
    "augment.damage": 0.0, "augment.intensity": 1.0, "augment.rotate": 0.0, "augment.hue_shift": 0.0,
    "data.grey": None, "data.train_limit": None, "init": None, "optim.plateau_min": 0.0,
}  # fmt: skip


def check_run_dir(config: TrainConfig, run_dir: Path) -> None:
    """Check that the run folder can be used, before anything is written or deleted.

    Raises UserError where it holds a run with another configuration, or files that no run wrote and this one would
    overwrite.
    """
    saved = run_dir / CONFIG
    try:
        if not _is_run(run_dir):
            if config.loop.fresh and run_dir.exists() and any(run_dir.iterdir()):
                raise UserError(f"{run_dir} is not the folder of a run, so --fresh does not empty it: use another")
            if strange := [path for path in _written(run_dir) if path.name != STATE]:
                raise UserError(f"{strange[0]} was not written by a run and would be overwritten: use another --run")
        if not config.loop.fresh and (run_dir / STATE).exists() and saved.exists():
            _check_same_run(_comparable(load_config(saved)), _comparable(config.to_dict()), run_dir)
    except OSError as error:
        raise UserError(
            f"the run folder {run_dir} cannot be read ({one_sentence(error)}): check its permissions"
        ) from None


@contextmanager
def hold_run_dir(config: TrainConfig, run_dir: Path) -> Iterator[None]:
    """Create the run folder (with `fresh`, delete the files of its run), write its config, and lock it against other
    processes.

    Raises UserError where it cannot be written or another process trains in it.
    """
    try:
        mark_run_dir(run_dir)
        lock = run_dir / ".lock"
        with locked(lock, f"another process is training in {run_dir}: wait for it, or use another --run"):
            for path in _written(run_dir) if config.loop.fresh else ():
                path.unlink()
            config.save(run_dir / CONFIG)
            yield
    except OSError as error:
        raise UserError(f"the run folder {run_dir} cannot be written ({one_sentence(error)})") from None


def mark_run_dir(run_dir: Path) -> None:
    """Create the folder, and the file that says that it belongs to a run. Raises OSError."""
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / _MARKER).touch()


def _is_run(run_dir: Path) -> bool:
    """Whether a run made the folder: it has the marker, or the config and the state or log of an older run."""
    if (run_dir / _MARKER).exists():
        return True
    try:
        return any((run_dir / name).exists() for name in (STATE, METRICS)) and "family" in load_config(run_dir / CONFIG)
    except UserError:
        return False


def _written(run_dir: Path) -> list[Path]:
    """The files in a run folder that have the names of those that a run writes, whole or half-written."""
    patterns = [name for name in _WRITTEN for name in (name, f".{name}.part")]
    return [path for pattern in patterns for path in run_dir.glob(pattern) if path.is_file() or path.is_symlink()]


def last_step(loop: RunConfig, photographs: int) -> int | None:
    """The number of steps that `steps` or `epochs` over so many photographs means; None where neither is given."""
    epochs = loop.epochs and math.ceil(loop.epochs * photographs / loop.batch_size)
    return min((n for n in (loop.steps, epochs) if n), default=None)


def validation_identity(train: Pack, val: Pack) -> str:
    """Identifies the validation photographs, and which of the training photographs they hold out."""
    held_out = hashlib.sha256(train.indices.tobytes()).hexdigest()[:16]
    return f"{val.manifest['content']}, held out {held_out}"


def check_photographs(config: TrainConfig, state: dict, content: str, train: Pack, val: Pack) -> None:
    """Raise UserError where the state is of a run on other photographs.

    content: of the training photographs. Older states do not record those for validation.
    """
    if state["content"] != content:
        wrong = f"the photographs of {config.data.train} are not those that {config.loop.run} was trained on so far"
    elif state.get("validation", now := validation_identity(train, val)) != now:
        wrong = (
            f"the validation photographs of {config.data.val or config.data.train} are not those that"
            f" {config.loop.run} was measured on so far"
        )
    else:
        return
    raise UserError(f"{wrong}: restore them, or use another --run")


def is_finished(config: TrainConfig, train: Pack, val: Pack) -> bool:
    """Whether the run folder holds this run, trained to its end on these packs.

    Raises UserError where it holds another run.
    """
    run_dir = Path(config.loop.run)
    check_run_dir(config, run_dir)
    state = None if config.loop.fresh else read_state(run_dir)
    if not state:
        return False
    content = train.manifest["content"]  # that of unpaired grey photographs is checked when the run resumes
    with restoring(run_dir):
        paired = state | {"content": state["content"].partition(",")[0]}
        check_photographs(config, paired, content, train, val)
        loop = config.loop
        if 0 < loop.early_stop <= state["plateau"]["since_best"]:
            return True
        steps = last_step(loop, len(train.color_indices))
        planned = state["last_step"] if loop.budget and state["planned_for"] == loop.budget else None
        return any(end and state["step"] >= end for end in (steps, planned))


def _check_same_run(before: dict, now: dict, run_dir: Path) -> None:
    before = _ADDED_LATER | before
    for key in now:
        if key not in _FREE and before.get(key) != now[key]:
            raise UserError(
                f"{run_dir} was begun with {key} {before.get(key)}, and now it is {now[key]}: give the same value, or"
                " use another --run"
            )


def _comparable(config: dict) -> dict:
    """Flat options of a config, with those of the model as the family takes them today."""
    model = config.get("model") or {}
    if not isinstance(model, dict):
        raise UserError(f"the saved config.yaml has model {model}, which is not a mapping: use another --run")
    return flat(config | {"model": upgraded(str(config.get("family")), model)})


def flat(config: dict, prefix: str = "") -> dict:
    """Nested options as one dict with dotted keys."""
    out: dict = {}
    for key, value in config.items():
        if isinstance(value, dict) and key != "lr_ratio":
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[prefix + key] = value
    return out


def make_card(
    config: TrainConfig,
    pack: Pack,
    colorizer: Colorizer,
    step: int,
    last_step: int,
    seconds: float,
    precision: str,
    scores: dict,
) -> dict:
    """The card of published weights: enough to build the network, and to repeat and judge the training."""
    seen = {k: pack.manifest[k] for k in ("source", "split", "count", "grey", "content", "mean_ab")}
    if config.data.train_limit:
        seen |= {"count": len(pack.color_indices), "grey": 0}
    return {
        "name": config.loop.run.rstrip("/").rsplit("/", 1)[-1],
        "family": config.family, "model": config.model, "size": config.data.size,
        "parameters": published_parameter_count(colorizer),
        "trained_on": seen,
        "steps": step, "planned_steps": last_step, "images": step * config.loop.batch_size,
        "seconds": round(seconds, 1),
        "seed": config.loop.seed, "precision": precision, "machine": machine(), "validation": scores,
        "versions": {p: version(p) for p in ("torch", "colorization-lab")}, "config": config.to_dict(),
    }  # fmt: skip
