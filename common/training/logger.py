"""Log of a run: TensorBoard, metrics.jsonl, and the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

from common.utils.files import write_atomically
from common.utils.progress import Progress


class Logger:
    """Writes scalars and pictures into a run folder. With `run_dir=None`, as on other processes, it writes nothing."""

    def __init__(self, run_dir: Path | None, step: int, config: dict, progress: Progress) -> None:
        self.run_dir, self.progress = run_dir, progress
        if run_dir is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._drop_after(step)
        self._writer = SummaryWriter(str(run_dir), purge_step=step + 1)
        self._jsonl = open(run_dir / "metrics.jsonl", "a")  # noqa: SIM115 - closed by close()
        if step == 0:
            text = yaml.safe_dump(config, sort_keys=False)
            self._writer.add_text("config", "\n".join("    " + line for line in text.splitlines()), 0)

    def _drop_after(self, step: int) -> None:
        """Drop entries of steps after the last saved state: a resumed run repeats these steps."""
        path = self.run_dir / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step_of(line) <= step and step > 0]
            write_atomically(path, lambda p: p.write_text("".join(line + "\n" for line in lines)))

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Log numbers under a kind such as train or val."""
        if self.run_dir is None:
            return
        for name, value in values.items():
            self._writer.add_scalar(f"{kind}/{name}", value, step)
        self._jsonl.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._jsonl.flush()

    def picture(self, name: str, step: int, image: np.ndarray) -> None:
        """Log a picture, uint8 [H, W, 3], and save it as a PNG in a folder of that name."""
        if self.run_dir is None:
            return
        self._writer.add_image(name, image, step, dataformats="HWC")
        folder = self.run_dir / name
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{step:08d}.png")

    def say(self, line: str) -> None:
        """Print a line at the terminal."""
        self.progress.say(line)

    def close(self) -> None:
        """Flush and close the files."""
        if self.run_dir is not None:
            self._writer.close()
            self._jsonl.close()


def _step_of(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the incomplete last line of a killed run


def read_metrics(run_dir: Path, kind: str) -> list[dict]:
    """The entries of one kind (train, val) by step; an empty list where the run has no log."""
    path = run_dir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = [json.loads(line) for line in path.read_text().splitlines() if _step_of(line) < float("inf")]
    return [line for line in lines if line["kind"] == kind]
