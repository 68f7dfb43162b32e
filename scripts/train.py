"""Train a colorizer.

examples:
  python -m scripts.train --config experiments/baselines/cnn.yaml --steps 200
  python -m scripts.train --config experiments/gan/pix2pix.yaml --data.train 'shards/train-*.tar' \\
      --data.val shards/val-000000.tar --data.size 64 --budget 20m --run runs/pix2pix
  python -m scripts.train --config experiments/baselines/cnn.yaml --find_lr

The same command resumes an interrupted run. `tensorboard --logdir runs` shows the runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common.utils.distributed import leave
from common.utils.errors import entry_point


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, train, print."""
    from common.training.parser import parse_config

    argv = sys.argv[1:] if argv is None else argv
    config = parse_config(argv, __doc__, "python -m scripts.train")
    import torch

    from common.training.loop import train
    from common.training.lr_finder import CURVE, FOLDER, find_lr

    try:
        if "--find_lr" in argv:
            print(find_lr(config).describe())
            print(f"written: {Path(config.loop.run, FOLDER, CURVE)}")
        else:
            train(config)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    leave(main())
