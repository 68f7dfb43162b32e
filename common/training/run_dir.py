"""The folder of a run: checks before training, the lock during training, and the card of its weights."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

from common.checkpoint import published_parameter_count
from common.colorizer import Colorizer
from common.data.packing import Pack
from common.registry import upgraded
from common.training.config import RunConfig, TrainConfig, load_config
from common.training.state import STATE, read_state
from common.utils.device import machine
from common.utils.errors import UserError, one_sentence
from common.utils.files import locked

# Options that may change between two commands of the same run.
_FREE = {
    "run", "fresh", "steps", "epochs", "budget", "device", "compile", "log_every", "eval_every", "sample_every",
    "samples", "save_every", "keep_every", "early_stop", "data.cache", "data.workers", "data.val_limit",
    "data.max_enlargement",  # a change of the photographs is found by their content
}  # fmt: skip
# Options that older runs do not have, with the value that they trained with.
_ADDED_LATER = {"augment.damage": 0.0, "data.grey": None, "init": None}


def check_run_dir(config: TrainConfig, run_dir: Path) -> None:
    """Check that the run folder can be used, before anything is written or deleted.

    Raises UserError where it holds a run with another configuration, or files that are not a run's.
    """
    saved = run_dir / "config.yaml"
    try:
        if config.loop.fresh and run_dir.exists() and any(run_dir.iterdir()) and not saved.exists():
            raise UserError(f"{run_dir} is not the folder of a run, so --fresh does not empty it: use another")
        if not config.loop.fresh and (run_dir / STATE).exists() and saved.exists():
            _check_same_run(_comparable(load_config(saved)), _comparable(config.to_dict()), run_dir)
    except OSError as error:
        raise UserError(f"the run folder {run_dir} cannot be read ({one_sentence(error)})") from None


@contextmanager
def hold_run_dir(config: TrainConfig, run_dir: Path) -> Iterator[None]:
    """Create the run folder (empty it with `fresh`), write its config, and lock it against other processes.

    Raises UserError where it cannot be written or another process trains in it.
    """
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = run_dir / ".lock"
        with locked(lock, f"another process is training in {run_dir}: wait for it, or use another --run"):
            for path in run_dir.iterdir() if config.loop.fresh else ():
                if path != lock:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            config.save(run_dir / "config.yaml")
            yield
    except OSError as error:
        raise UserError(f"the run folder {run_dir} cannot be written ({one_sentence(error)})") from None


def last_step(loop: RunConfig, photographs: int) -> int | None:
    """The number of steps that `steps` or `epochs` over so many photographs means; None where neither is given."""
    epochs = loop.epochs and math.ceil(loop.epochs * photographs / loop.batch_size)
    return min((n for n in (loop.steps, epochs) if n), default=None)


def check_photographs(config: TrainConfig, state: dict, content: str) -> None:
    """Raise UserError where the state was trained on photographs with another content hash."""
    if state["content"] != content:
        raise UserError(
            f"the photographs of {config.data.train} are not those that {config.loop.run} was trained on so far: use"
            " another --run, or --fresh true to begin anew"
        )


def is_finished(config: TrainConfig, pack: Pack) -> bool:
    """Whether the run folder holds this run, trained to its end on this pack.

    Raises UserError where it holds another run.
    """
    run_dir = Path(config.loop.run)
    check_run_dir(config, run_dir)
    state = None if config.loop.fresh else read_state(run_dir)
    if not state:
        return False
    content = pack.manifest["content"]  # that of unpaired grey photographs is checked when the run resumes
    check_photographs(config, state | {"content": state["content"].partition(",")[0]}, content)
    loop = config.loop
    if 0 < loop.early_stop <= state["plateau"]["since_best"]:
        return True
    steps = last_step(loop, len(pack.color_indices))
    planned = state["last_step"] if loop.budget and state["planned_for"] == loop.budget else None
    return any(end and state["step"] >= end for end in (steps, planned))


def _check_same_run(before: dict, now: dict, run_dir: Path) -> None:
    before = _ADDED_LATER | before
    for key in now:
        if key not in _FREE and before.get(key) != now[key]:
            raise UserError(
                f"{run_dir} was begun with {key} {before.get(key)}, and now it is {now[key]}: use another --run, or"
                " --fresh true to begin anew"
            )


def _comparable(config: dict) -> dict:
    """Flat options of a config, with those of the model as the family takes them today."""
    return flat(config | {"model": upgraded(config["family"], config.get("model") or {})})


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
    m = pack.manifest
    return {
        "name": config.loop.run.rstrip("/").rsplit("/", 1)[-1],
        "family": config.family, "model": config.model, "size": config.data.size,
        "parameters": published_parameter_count(colorizer),
        "trained_on": {k: m[k] for k in ("source", "split", "count", "grey", "content", "mean_ab")},
        "steps": step, "planned_steps": last_step, "images": step * config.loop.batch_size,
        "seconds": round(seconds, 1),
        "seed": config.loop.seed, "precision": precision, "machine": machine(), "validation": scores,
        "versions": {p: version(p) for p in ("torch", "colorization-lab")}, "config": config.to_dict(),
    }  # fmt: skip
