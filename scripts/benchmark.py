"""Compare the training speed of this project with that of a usual PyTorch training loop on the same machine.

`hints`, `variants` and `repair` measure those of `colorize`: see python -m scripts.benchmark hints --help.

examples:
  python -m scripts.benchmark train --data 'imagenette160-train-*.tar' --size 224 --seconds 60
  python -m scripts.benchmark train --network pix2pix --data 'imagenette160-train-*.tar' --size 256 --batch_size 8
  python -m scripts.benchmark train --data demo --size 64 --seconds 10
  python -m scripts.benchmark film --help      the colors of films: steadiness, error and speed

`train` measures images/s of this project's engine and of the usual loop: a folder of JPEG files, a DataLoader with one
worker per processor, scikit-image's rgb2lab per image, fp32, contiguous layout. Networks, losses, batch size and
augmentation (random crop, flip) are the same. The two alternate, so that other load on the machine affects both.
`resnet18` is the ResNet18 regressor. `pix2pix` is the published U-Net with the 70-pixel PatchGAN; its usual loop runs
the generator twice per batch, once for the discriminator's step and once for its own.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.utils.errors import UserError, entry_point
from common.utils.files import check_writable, write_text
from scripts.arguments import Parser, above_zero, positive

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from common.data.batches import DataConfig


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] in (["hints"], ["variants"], ["repair"]):
        from scripts import benchmark_photo

        return benchmark_photo.main(argv)
    if argv[:1] == ["film"]:
        from scripts.benchmark_film import benchmark_films

        return benchmark_films(argv[1:])
    parser = Parser("python -m scripts.benchmark", __doc__)
    parser.add_argument("what", choices=["train"], help="what to measure")
    parser.add_argument("--network", choices=["resnet18", "pix2pix"], default="resnet18",
                        help="network to train (default: resnet18)")  # fmt: skip
    parser.add_argument("--data", default="demo", help="folder, tar shards, named set, or demo")
    parser.add_argument("--size", type=positive, default=224, help="side of the training square (default: 224)")
    parser.add_argument("--batch_size", type=positive, default=32, help="photographs per step (default: 32)")
    parser.add_argument("--seconds", type=above_zero, default=40,
                        help="duration of each of the two loops per round (default: 40)")  # fmt: skip
    parser.add_argument("--rounds", type=positive, default=2,
                        help="number of rounds, of which the best counts (default: 2)")  # fmt: skip
    parser.add_argument("--cache", help="folder for packs (default: ~/.cache/colorization-lab)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)
    if args.json:
        check_writable(args.json)

    from common.data.batches import DataConfig
    from common.utils.device import machine

    data = DataConfig(train=args.data, size=args.size, cache=args.cache, val_limit=1, max_enlargement=math.inf)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photographs"
        count = write_folder(args.data, folder)
        packing = pack_seconds(data)
        ours, usual = [], []
        for round_number in range(args.rounds):
            usual.append(usual_loop(folder, args.network, args.size, args.batch_size, args.seconds))
            run_dir = Path(scratch) / f"run{round_number}"
            ours.append(engine_loop(run_dir, args.network, data, args.batch_size, args.seconds))
            print(f"round {round_number + 1}: usual {usual[-1]:.1f}, engine {ours[-1]:.1f} images/s", flush=True)
    result = {
        "usual": max(usual),
        "engine": max(ours),
        "ratio": max(ours) / max(usual),
        "packing_seconds": packing,
        "network": args.network,
        "photographs": count,
        "size": args.size,
        "batch_size": args.batch_size,
        "machine": machine(),
    }
    print(
        f"training {args.network} at {args.size} px, batch {args.batch_size}, {count} photographs,"
        f" {result['machine']}:\n"
        f"  usual loop  {result['usual']:6.1f} images/s\n"
        f"  engine      {result['engine']:6.1f} images/s  ({result['ratio']:.2f} times as fast)\n"
        f"  packing     {packing:6.1f} s, once (0 if the pack existed)"
    )
    if args.json:
        write_text(args.json, json.dumps(result, indent=1))
    return 0


def write_folder(source: str, folder: Path) -> int:
    """Write the photographs of a source as files, unchanged. Returns their number."""
    from common.data.sources import list_photos

    folder.mkdir()
    photos = list_photos(source).photos
    for i, photo in enumerate(photos):
        (folder / f"{i:07d}{Path(photo.name).suffix or '.jpg'}").write_bytes(photo.read())
    if not photos:
        raise UserError(f"source {source} is empty")
    return len(photos)


def pack_seconds(data: DataConfig) -> float:
    """Pack the photographs, which happens once for all runs, and return the seconds it takes."""
    from common.data.batches import training_packs
    from common.utils.progress import Progress

    start = time.perf_counter()
    training_packs(data, Progress(quiet=True))
    return time.perf_counter() - start


def usual_loop(folder: Path, network: str, size: int, batch_size: int, seconds: float) -> float:
    """images/s of the usual loop, with data loading, after two steps of warm-up. folder: of photographs."""
    import numpy as np
    import torch
    from PIL import Image
    from skimage.color import rgb2lab
    from torchvision.transforms import v2 as transforms

    from common.utils.device import pick_device

    packed = size + size // 8
    augment = transforms.Compose(
        [transforms.Resize((packed, packed)), transforms.RandomCrop(size), transforms.RandomHorizontalFlip()]
    )

    class Folder(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.files = sorted(folder.iterdir())

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
            rgb = np.asarray(augment(Image.open(self.files[index]).convert("RGB")))
            lab = torch.from_numpy(rgb2lab(rgb).astype("float32")).permute(2, 0, 1).contiguous()
            return lab[:1] / 50 - 1, lab[1:] / 110

    torch.manual_seed(0)
    dataset = Folder()
    loader = torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=os.cpu_count() or 1, drop_last=len(dataset) >= batch_size
    )
    device = pick_device("auto")
    train_step = _usual_pix2pix(size, device) if network == "pix2pix" else _usual_regression(device)
    images, start = 0, 0.0
    for step, (L, ab) in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
        if step == 2:
            start = time.perf_counter()
        elif start and time.perf_counter() - start > seconds:
            break
        train_step(L.to(device), ab.to(device)).item()  # reading the loss, as for a log, waits for the device
        images += len(L) if step >= 2 else 0
    return images / (time.perf_counter() - start)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _usual_regression(device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    import torch

    from baselines.resnet18 import ResNet18Regressor

    network = ResNet18Regressor().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    return lambda L, ab: _step(optimizer, torch.nn.functional.mse_loss(network(L), ab))


def _usual_pix2pix(size: int, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    import torch
    import torch.nn.functional as F

    from gan.generators import GeneratorConfig, build_generator
    from gan.patchgan import PatchGAN

    generator, discriminator = build_generator(GeneratorConfig(), size).to(device), PatchGAN(70).to(device)
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    generator_optimizer = torch.optim.Adam(generator.parameters(), **adam)
    discriminator_optimizer = torch.optim.Adam(discriminator.parameters(), **adam)

    def adversarial(L: Tensor, ab: Tensor, real: float) -> Tensor:
        logits = discriminator(torch.cat([L, ab], dim=1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))

    def train_step(L: Tensor, ab: Tensor) -> Tensor:
        discriminator.requires_grad_(True)
        _step(discriminator_optimizer, (adversarial(L, ab, 1.0) + adversarial(L, generator(L).detach(), 0.0)) / 2)
        discriminator.requires_grad_(False)
        fake = generator(L)
        return _step(generator_optimizer, adversarial(L, fake, 1.0) + 100 * F.l1_loss(fake, ab))

    return train_step


def engine_loop(run_dir: Path, network: str, data: DataConfig, batch_size: int, seconds: float) -> float:
    """images/s of the same training by this project's engine, from its log, without the first interval."""
    from common.data.augment import AugmentConfig
    from common.training.config import OptimConfig, RunConfig, TrainConfig
    from common.training.logger import read_metrics
    from common.training.loop import train
    from common.utils.progress import Progress

    never = 10**9
    loop = RunConfig(
        run=str(run_dir), budget=f"{seconds}s", batch_size=batch_size, log_every=2, eval_every=never, sample_every=0,
        save_every=never,
    )  # fmt: skip
    if network == "resnet18":
        family, model, optim = "baselines", {"network": "resnet18", "loss": "mse"}, OptimConfig()
    else:
        family, model = "gan", {"size": data.size}
        optim = OptimConfig("adam", lr=2e-4, betas=(0.5, 0.999), weight_decay=0.0, schedule="constant")
    train(TrainConfig(family, model, data, AugmentConfig(), optim, loop), Progress(quiet=True))
    lines = read_metrics(run_dir, "train")[1:]
    if not lines:
        raise UserError(f"--seconds {seconds:g} is too short for two steps at this size: give more")
    return len(lines) / sum(1 / line["images_per_s"] for line in lines)


if __name__ == "__main__":
    sys.exit(main())
