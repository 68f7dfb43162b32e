"""Scalars and pictures of a run -> TensorBoard, metrics.jsonl, console."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from common.utils.files import write_atomically
from common.utils.progress import Progress


class Logger:
    """Writes the log of one run; on another process than the first it is made with `run_dir=None` and is silent."""

    def __init__(self, run_dir: Path | None, step: int, config: dict, progress: Progress) -> None:
        self.run_dir, self.progress = run_dir, progress
        if run_dir is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._keep_until(step)
        self._writer = SummaryWriter(str(run_dir), purge_step=step + 1)
        self._jsonl = open(run_dir / "metrics.jsonl", "a")  # noqa: SIM115 - closed by close()
        if step == 0:
            text = yaml.safe_dump(config, sort_keys=False)
            self._writer.add_text("config", "\n".join("    " + line for line in text.splitlines()), 0)

    def _keep_until(self, step: int) -> None:
        """Drop what a killed run logged after its last saved state: those steps come again."""
        path = self.run_dir / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step]
            write_atomically(path, lambda p: p.write_text("".join(line + "\n" for line in lines)))

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Log numbers under `kind` (train, val)."""
        if self.run_dir is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._jsonl.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._jsonl.flush()

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """Log a picture, uint8 [H, W, 3], and keep it as a file in a folder of that name."""
        if self.run_dir is None:
            return
        self._writer.add_image(name, image, step, dataformats="HWC")
        folder = self.run_dir / name
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{step:08d}.png")

    def say(self, line: str) -> None:
        """Tell the person at the terminal, and TensorBoard's readers nothing."""
        self.progress.say(line)

    def close(self) -> None:
        """Flush everything to disk."""
        if self.run_dir is not None:
            self._writer.close()
            self._jsonl.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the torn last line of a killed run


def read_metrics(run_dir: Path, kind: str) -> list[dict]:
    """The logged lines of one kind (train, val), in order of steps; none where the run has no log."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if _step_of(line) < float("inf")]
    return [line for line in lines if line["kind"] == kind]
