"""Compare the training speed of this project with that of a usual PyTorch training loop on the same machine.

examples:
  python -m scripts.benchmark train --data 'imagenette160-train-*.tar' --size 224 --seconds 60
  python -m scripts.benchmark train --network pix2pix --data 'imagenette160-train-*.tar' --size 256 --batch_size 8
  python -m scripts.benchmark train --data demo --size 64 --seconds 10

`train` measures images/s of this project's engine and of the usual loop: a folder of JPEG files, a DataLoader with one
worker per processor, scikit-image's rgb2lab per image, fp32, contiguous layout. Networks, losses, batch size and
augmentation (random crop, flip) are the same. The two alternate, so that other load on the machine affects both.
`resnet18` is the ResNet18 regressor. `pix2pix` is the published U-Net with the 70-pixel PatchGAN; its usual loop trains
the discriminator first and runs the generator twice per batch, once for each network's step.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

from common.utils.errors import UserError, entry_point
from common.utils.files import write_text
from scripts.arguments import Parser, positive


@entry_point
def main(argv: list[str] | None = None) -> int:
    """Parse, measure, print."""
    parser = Parser("python -m scripts.benchmark", __doc__)
    parser.add_argument("what", choices=["train"])
    parser.add_argument("--network", choices=["resnet18", "pix2pix"], default="resnet18")
    parser.add_argument("--data", default="demo", help="folder, tar shards, named set, or demo")
    parser.add_argument("--size", type=positive, default=224)
    parser.add_argument("--batch_size", type=positive, default=32)
    parser.add_argument("--seconds", type=float, default=40, help="for each of the two, in each of the rounds")
    parser.add_argument("--rounds", type=positive, default=2)
    parser.add_argument("--cache", help="folder for packs (default: ~/.cache/colorization-lab)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photographs"
        count = write_folder(args.data, folder)
        packing = pack_seconds(args)
        ours, usual = [], []
        for round_number in range(args.rounds):
            usual.append(usual_loop(folder, args))
            ours.append(engine_loop(args, Path(scratch) / f"run{round_number}"))
            print(f"round {round_number + 1}: usual {usual[-1]:.1f}, engine {ours[-1]:.1f} images/s", flush=True)
    from common.utils.device import machine

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


def _data_config(args):  # noqa: ANN001
    from common.data.batches import DataConfig

    return DataConfig(train=args.data, size=args.size, cache=args.cache, val_limit=1)


def pack_seconds(args) -> float:  # noqa: ANN001
    """Seconds that packing takes. It is done once for all runs."""
    from common.data.batches import training_packs
    from common.utils.progress import Progress

    start = time.perf_counter()
    training_packs(_data_config(args), Progress(quiet=True))
    return time.perf_counter() - start


def usual_loop(folder: Path, args) -> float:  # noqa: ANN001
    """images/s of the usual loop, data loading included, after two steps of warm-up."""
    import os

    import numpy as np
    import torch
    from PIL import Image
    from skimage.color import rgb2lab
    from torchvision.transforms import v2 as transforms

    from common.utils.device import pick_device

    size, batch_size, seconds = args.size, args.batch_size, args.seconds
    packed = size + size // 8
    change = transforms.Compose(
        [
            transforms.Resize((packed, packed)),
            transforms.RandomCrop(size),
            transforms.RandomHorizontalFlip(),
        ]
    )

    class Folder(torch.utils.data.Dataset):
        def __init__(self) -> None:
            self.files = sorted(folder.iterdir())

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            rgb = np.asarray(change(Image.open(self.files[index]).convert("RGB")))
            lab = torch.from_numpy(rgb2lab(rgb).astype("float32")).permute(2, 0, 1).contiguous()
            return lab[:1] / 50 - 1, lab[1:] / 110

    torch.manual_seed(0)
    dataset = Folder()
    loader = torch.utils.data.DataLoader(
        dataset, batch_size, shuffle=True, num_workers=os.cpu_count() or 1, drop_last=len(dataset) >= batch_size
    )
    device = pick_device("auto")
    train_on = {"resnet18": _usual_regression, "pix2pix": _usual_pix2pix}[args.network](size, device)
    images, start = 0, 0.0
    for step, (L, ab) in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
        if step == 2:
            start = time.perf_counter()
        elif start and time.perf_counter() - start > seconds:
            break
        train_on(L.to(device), ab.to(device)).item()  # reading the loss, as for a log, waits for the device
        images += len(L) if step >= 2 else 0
    return images / (time.perf_counter() - start)


def _step(optimizer, loss):  # noqa: ANN001
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss


def _usual_regression(size, device):  # noqa: ANN001
    import torch

    from baselines.resnet18 import ResNet18Regressor

    network = ResNet18Regressor().to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    return lambda L, ab: _step(optimizer, torch.nn.functional.mse_loss(network(L), ab))


def _usual_pix2pix(size, device):  # noqa: ANN001
    import torch
    import torch.nn.functional as F

    from gan.generators import GeneratorConfig, build_generator
    from gan.patchgan import PatchGAN

    generator, discriminator = build_generator(GeneratorConfig(), size).to(device), PatchGAN(70).to(device)
    adam = {"lr": 2e-4, "betas": (0.5, 0.999)}
    of_generator = torch.optim.Adam(generator.parameters(), **adam)
    of_discriminator = torch.optim.Adam(discriminator.parameters(), **adam)

    def adversarial(L, ab, real):  # noqa: ANN001
        logits = discriminator(torch.cat([L, ab], dim=1))
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, real))

    def train_on(L, ab):  # noqa: ANN001
        discriminator.requires_grad_(True)
        _step(of_discriminator, (adversarial(L, ab, 1.0) + adversarial(L, generator(L).detach(), 0.0)) / 2)
        discriminator.requires_grad_(False)
        fake = generator(L)
        return _step(of_generator, adversarial(L, fake, 1.0) + 100 * F.l1_loss(fake, ab))

    return train_on


def engine_loop(args, run_dir: Path) -> float:  # noqa: ANN001
    """images/s of the same training in this project's engine, from its log, without the first interval."""
    from common.data.augment import AugmentConfig
    from common.training.config import OptimConfig, RunConfig, TrainConfig
    from common.training.logger import read_metrics
    from common.training.loop import train
    from common.utils.progress import Progress

    loop = RunConfig(
        run=str(run_dir),
        budget=f"{args.seconds}s",
        batch_size=args.batch_size,
        log_every=2,
        eval_every=10**9,
        sample_every=0,
        save_every=10**9,
    )
    if args.network == "resnet18":
        family, model, optim = "baselines", {"network": "resnet18", "loss": "mse"}, OptimConfig()
    else:
        family, model = "gan", {"size": args.size}
        optim = OptimConfig("adam", lr=2e-4, betas=(0.5, 0.999), weight_decay=0.0, schedule="constant")
    train(TrainConfig(family, model, _data_config(args), AugmentConfig(), optim, loop), Progress(quiet=True))
    lines = read_metrics(run_dir, "train")[1:]
    if not lines:
        raise UserError(f"--seconds {args.seconds} is too short for two steps at this size: give more")
    return len(lines) / sum(1 / line["images_per_s"] for line in lines)


if __name__ == "__main__":
    sys.exit(main())
