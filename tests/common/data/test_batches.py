import shutil
import threading
from contextlib import closing
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.color.lab import lab_to_rgb, rgb8_to_lab
from common.data.augment import AugmentConfig, augment
from common.data.batches import DataConfig, TrainingData, derived_seed, grey_photographs, index_stream, training_packs
from common.data.packing import open_pack
from common.data.prefetch import Prefetcher
from common.utils.errors import UserError
from common.utils.progress import Progress
from tests.conftest import photo_array


@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 5))
def test_the_stream_is_one_permutation_after_another(count, batch_size, seed):
    rows = np.arange(count) * 3
    steps = -(-3 * count // batch_size)
    stream = np.concatenate([index_stream(rows, step, batch_size, seed) for step in range(steps)])
    for epoch in range(3):
        assert sorted(stream[epoch * count : (epoch + 1) * count]) == sorted(rows)


def test_epochs_and_seeds_differ():
    rows = np.arange(1000)
    assert not np.array_equal(index_stream(rows, 0, 1000, 0), index_stream(rows, 1, 1000, 0))
    assert not np.array_equal(index_stream(rows, 0, 1000, 0), index_stream(rows, 0, 1000, 1))
    assert derived_seed(0, 1, 2) != derived_seed(0, 2, 1)


def test_shards_make_up_the_batch(photos, tmp_path):
    pack = open_pack(str(photos), 20, cache=str(tmp_path))
    data = TrainingData(pack, 16, 12, 3, AugmentConfig(hue=20, brightness=0.2), torch.device("cpu"))
    whole = data.batch(5)
    parts = [data.batch(5, shard, 4) for shard in range(4)]
    for i in range(2):
        torch.testing.assert_close(torch.cat([part[i] for part in parts]), whole[i], atol=0, rtol=0)
    assert not torch.equal(whole.L, data.batch(6).L)
    other_seed = TrainingData(pack, 16, 12, 4, AugmentConfig(crop="centre", flip=False), torch.device("cpu"))
    same_seed = TrainingData(pack, 16, 12, 3, AugmentConfig(crop="centre", flip=False), torch.device("cpu"))
    assert not torch.equal(other_seed.batch(5).L, same_seed.batch(5).L)  # other photographs, or in another order


def test_grey_photographs_are_not_trained_on(photos, tmp_path):
    pack = open_pack(str(photos), 16, cache=str(tmp_path))
    pack.grey[:6] = True
    data = TrainingData(pack, 16, 6, 0, AugmentConfig(), torch.device("cpu"))
    assert sorted(data.indices) == list(range(6, 12))


def limited(photos, tmp_path, limit, **options):
    config = DataConfig(str(photos), size=16, val_fraction=0.3, cache=str(tmp_path), train_limit=limit, **options)
    return training_packs(config, Progress(quiet=True))


def test_fewer_training_photographs_are_a_part_of_more(photos, tmp_path):
    """Validation photographs stay the same, and none of them is trained on."""
    whole, val = limited(photos, tmp_path, None)
    chosen = []
    for limit in (1, 3, 5, len(whole.color_indices), 1000):
        train, same = limited(photos, tmp_path, limit)
        assert same.names == val.names
        chosen.append({train.names[i] for i in train.color_indices})
        assert len(chosen[-1]) == min(limit, len(whole.color_indices))
        assert not chosen[-1] & set(val.names)
    assert all(few <= many for few, many in pairwise(chosen))
    three = limited(photos, tmp_path, 3)[0]
    assert "3 of them used (data.train_limit)" in three.describe()
    ab = three.lab(three.color_indices)[1].mean(dim=(0, 2, 3))
    assert three.manifest["mean_ab"] == pytest.approx(ab.tolist(), abs=1e-4)
    assert limited(photos, tmp_path, 1000)[0].manifest == whole.manifest
    data = TrainingData(three, 16, 2, 0, AugmentConfig(), torch.device("cpu"))
    assert set(data.indices) == set(three.color_indices)
    assert len(data.fingerprints) == 3


def unpaired(photos, tmp_path, **options):
    config = DataConfig(str(photos), size=16, val_fraction=0.3, cache=str(tmp_path), **options)
    train, val = training_packs(config, Progress(quiet=True))
    grey = grey_photographs(config, train, val, Progress(quiet=True))
    plain = AugmentConfig(crop="centre", flip=False)
    return TrainingData(train, 16, 4, 0, plain, torch.device("cpu"), grey), train, val


def test_unpaired_without_a_grey_source_is_two_halves(photos, tmp_path):
    """No photograph is used both in grey and in color."""
    data, train, _ = unpaired(photos, tmp_path)
    center = slice((train.size - 16) // 2, (train.size - 16) // 2 + 16)
    lightness = [rgb8_to_lab(torch.from_numpy(np.array(p)).permute(2, 0, 1))[:1, center, center] for p in train.images]
    seen = {"color": set(), "grey": set()}
    for step in range(8):
        batch = data.batch(step)
        for name, L in (("color", batch.L), ("grey", batch.grey)):
            seen[name] |= {next(i for i, own in enumerate(lightness) if torch.allclose(own, one)) for one in L}
    assert not seen["color"] & seen["grey"]
    assert seen["color"] | seen["grey"] == set(train.color_indices)


def test_unpaired_with_a_grey_source(photos, tmp_path):
    """Its grey photographs are used, its validation photographs are not."""
    other = tmp_path / "old"
    other.mkdir()
    for i in range(3):
        grey = np.repeat(photo_array(40 + i)[..., :1], 3, axis=2)
        Image.fromarray(grey).save(other / f"old{i}.png")
    _, train, val = unpaired(photos, tmp_path)
    held_out = next(p for p in photos.rglob("*.png") if p.name == val.names[0].rsplit("/", 1)[-1])
    shutil.copy(held_out, other / "held_out.png")
    data, train, _ = unpaired(photos, tmp_path, grey=str(other))
    assert len(data._grey_indices) == 3
    assert list(data.indices) == list(train.color_indices)
    assert data.content != unpaired(photos, tmp_path)[0].content


def test_unpaired_shards_make_up_the_batch(photos, tmp_path):
    data, *_ = unpaired(photos, tmp_path)
    parts = [data.batch(3, shard, 2).grey for shard in range(2)]
    torch.testing.assert_close(torch.cat(parts), data.batch(3).grey, atol=0, rtol=0)


IMAGES = torch.from_numpy(np.stack([photo_array(i, 20, 20) for i in range(6)]))


def noise(seed=0):
    return torch.rand(len(IMAGES), 8, generator=torch.Generator().manual_seed(seed))


def windows(image, size):
    """Every window of a picture and its mirror image."""
    for y in range(image.shape[0] - size + 1):
        for x in range(image.shape[1] - size + 1):
            window = image[y : y + size, x : x + size].permute(2, 0, 1)
            yield rgb8_to_lab(window)
            yield rgb8_to_lab(window.flip(2))


def test_a_random_crop_is_a_window_of_the_photograph():
    L, ab = augment(IMAGES, noise(), 16, AugmentConfig())
    for i, image in enumerate(IMAGES):
        assert any(torch.equal(torch.cat([L[i], ab[i]]), window) for window in windows(image, 16))


def test_the_central_crop_is_the_center():
    L, ab = augment(IMAGES, noise(), 16, AugmentConfig(crop="centre", flip=False))
    torch.testing.assert_close(torch.cat([L, ab], 1), rgb8_to_lab(IMAGES[:, 2:18, 2:18].permute(0, 3, 1, 2)))


def test_half_of_the_photographs_are_flipped():
    images = IMAGES[:1].expand(400, -1, -1, -1)
    L, _ = augment(images, torch.rand(400, 8), 20, AugmentConfig())
    assert 0.4 < (L[0] == L).flatten(1).all(1).float().mean() < 0.6


def test_a_resized_crop_of_the_whole_is_the_whole():
    L, ab = augment(IMAGES, noise(), 20, AugmentConfig(crop="resized", min_scale=1.0, flip=False))
    expected = rgb8_to_lab(IMAGES.permute(0, 3, 1, 2))
    torch.testing.assert_close(torch.cat([L, ab], 1), expected, atol=0.05, rtol=0)


def test_a_resized_crop_stays_within_the_photograph():
    """A window of a horizontal ramp is a part of that ramp, enlarged."""
    ramp = torch.arange(0, 200, 10, dtype=torch.uint8).view(1, 1, 20, 1).expand(50, 20, 20, 3)
    L, _ = augment(ramp, torch.rand(50, 8), 20, AugmentConfig(crop="resized", min_scale=0.5, flip=False))
    spans = L[:, 0, 0, -1] - L[:, 0, 0, 0]
    full = rgb8_to_lab(ramp[:1].permute(0, 3, 1, 2))[0, 0, 0]
    assert float(spans.max()) <= float(full[-1] - full[0]) + 1e-3
    assert float(spans.min()) > 0.3 * float(full[-1] - full[0])


def test_hue_and_saturation_leave_lightness_alone():
    plain = augment(IMAGES, noise(), 16, AugmentConfig())
    L, ab = augment(IMAGES, noise(), 16, AugmentConfig(hue=90, saturation=0.5))
    assert torch.equal(L, plain[0])
    ratio = ab.norm(dim=1) / plain[1].norm(dim=1).clamp(min=1)
    assert float((ratio.flatten(1).quantile(0.99, 1) - ratio.flatten(1).quantile(0.5, 1)).abs().max()) < 0.01
    assert not torch.allclose(ab, plain[1], atol=1)


def test_intensity_scales_rgb_by_one_factor_of_each_photograph():
    random = noise()
    lab = torch.cat(augment(IMAGES, random, 16, AugmentConfig(crop="centre", flip=False, intensity=0.6)), dim=1)
    plain = torch.cat(augment(IMAGES, random, 16, AugmentConfig(crop="centre", flip=False)), dim=1)
    factor = (1 - 0.4 * random[:, 4]).view(-1, 1, 1, 1)
    assert 0.6 <= factor.min() < factor.max() <= 1
    torch.testing.assert_close(lab_to_rgb(lab), lab_to_rgb(plain) * factor, atol=1e-4, rtol=0)


def test_a_hue_shift_turns_every_color_by_the_same_angle():
    plain_L, plain = augment(IMAGES, noise(), 16, AugmentConfig())
    for degrees in (90, -30, 180):
        L, ab = augment(IMAGES, noise(), 16, AugmentConfig(hue_shift=degrees))
        assert torch.equal(L, plain_L)
        turned = torch.complex(plain[:, 0], plain[:, 1]) * np.exp(1j * np.deg2rad(degrees))
        torch.testing.assert_close(torch.complex(ab[:, 0], ab[:, 1]), turned.to(torch.complex64), atol=1e-3, rtol=1e-4)
    both = augment(IMAGES, noise(), 16, AugmentConfig(hue_shift=90, hue=10))[1]
    angle = torch.rad2deg(torch.atan2(both[:, 1], both[:, 0]) - torch.atan2(plain[:, 1], plain[:, 0])) % 360
    angle = angle[plain.norm(dim=1) > 5]
    assert 80 - 1e-2 <= angle.min() < angle.max() <= 100 + 1e-2  # random about the shift


@pytest.mark.parametrize("crop", ["random", "centre", "resized"])
def test_rotated_constant_pictures_stay_constant(crop):
    """No corner is empty, at any angle."""
    color = torch.tensor([200, 90, 30], dtype=torch.uint8)
    images = color.expand(64, 20, 20, 3)
    numbers = torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    L, ab = augment(images, numbers, 16, AugmentConfig(crop=crop, rotate=45))
    wanted = rgb8_to_lab(color.view(1, 3, 1, 1))
    torch.testing.assert_close(torch.cat([L, ab], dim=1), wanted.expand(64, 3, 16, 16), atol=2e-3, rtol=1e-4)


@pytest.mark.parametrize("crop", ["random", "centre", "resized"])
def test_rotated_windows_lie_within_the_photograph(crop):
    """The outermost pixels are black, and a window that lies within the photograph at most touches them."""
    images = torch.zeros(64, 40, 40, 3, dtype=torch.uint8)
    images[:, 1:-1, 1:-1] = 255
    numbers = torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    L, _ = augment(images, numbers, 32, AugmentConfig(crop=crop, rotate=30, flip=True))
    inner = L[:, :, 2:-2, 2:-2]
    assert inner.min() > 99


def test_rotation_turns_by_at_most_the_angle_in_both_directions():
    """The slope of a ramp shows the angle. Mirrored windows show it mirrored."""
    ramp = torch.linspace(40, 215, 64).round().to(torch.uint8)
    images = ramp[None, None, :, None].expand(200, 64, 64, 3)
    numbers = torch.rand(200, 8, generator=torch.Generator().manual_seed(0))
    for flip in (False, True):
        config = AugmentConfig(crop="centre", rotate=20, flip=flip)
        L = augment(images, numbers, 32, config)[0]
        across, down = L.diff(dim=3).mean(dim=(1, 2, 3)), L.diff(dim=2).mean(dim=(1, 2, 3))
        angle = torch.rad2deg(torch.atan2(down, across.abs()))
        assert angle.abs().max() < 20.5
        assert angle.min() < -17
        assert angle.max() > 17
        assert (across < 0).any() == flip
    still = augment(images, numbers, 32, AugmentConfig(crop="centre", rotate=0, flip=False))[0]
    assert still.diff(dim=2).abs().max() == 0


def test_rotation_does_not_depend_on_other_random_numbers():
    """Its angle and the flip come from one number; they are independent."""
    ramp = torch.linspace(40, 215, 64).round().to(torch.uint8)
    images = ramp[None, None, :, None].expand(2000, 64, 64, 3)
    numbers = torch.rand(2000, 8, generator=torch.Generator().manual_seed(1))
    L = augment(images, numbers, 8, AugmentConfig(crop="centre", rotate=20))[0]
    left = L.diff(dim=3).mean(dim=(1, 2, 3)) < 0
    clockwise = L.diff(dim=2).mean(dim=(1, 2, 3)) > 0
    for one in (left, clockwise):
        assert 0.46 < one.float().mean() < 0.54
    assert abs(torch.corrcoef(torch.stack([left, clockwise]).float())[0, 1]) < 0.07


def test_brightness_changes_input_and_target():
    L, ab = augment(IMAGES, noise(), 16, AugmentConfig(brightness=0.5, contrast=0.3))
    plain = augment(IMAGES, noise(), 16, AugmentConfig())
    assert not torch.allclose(L, plain[0], atol=1)
    assert L.min() >= 0
    assert L.max() <= 100.01
    assert ab.isfinite().all()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DataConfig(size=4), "data.size is 4"),
        (lambda: AugmentConfig(intensity=0.0), "augment.intensity is 0.0"),
        (lambda: DataConfig(margin=-1), "data.margin"),
        (lambda: DataConfig(val_fraction=1.0), "data.val_fraction"),
        (lambda: DataConfig(workers=0), "data.workers"),
        (lambda: AugmentConfig(min_scale=0), "augment.min_scale"),
        (lambda: AugmentConfig(hue=200), "augment.hue"),
        (lambda: AugmentConfig(hue_shift=181), "augment.hue_shift is 181: expected degrees in"),
        (lambda: AugmentConfig(hue_shift=-200), "augment.hue_shift is -200"),
        (lambda: AugmentConfig(rotate=46), "augment.rotate is 46: expected degrees in"),
        (lambda: AugmentConfig(rotate=-1), "augment.rotate is -1"),
        (lambda: AugmentConfig(saturation=1.0), "augment.saturation"),
        (lambda: DataConfig(train_limit=0), "data.train_limit is 0"),
    ],
)
def test_impossible_values(make, says):
    with pytest.raises(UserError, match=says):
        make()


@pytest.mark.parametrize("grey", [False, True])
def test_prefetched_batches_are_the_same(photos, tmp_path, grey):
    data, train, _ = unpaired(photos, tmp_path)
    if not grey:
        data = TrainingData(train, 16, 4, 0, AugmentConfig(hue=20, damage=0.5), torch.device("cpu"))
    with closing(Prefetcher(data)) as batches:
        for step in (3, 4, 5, 9, 10, 4, 4):  # in order, skipped, back and repeated
            for shard in (0, 1):
                for got, wanted in zip(batches.batch(step, shard, 2), data.batch(step, shard, 2), strict=True):
                    assert got is wanted is None or torch.equal(got, wanted)
    assert not any(t.name.startswith("prefetch") for t in threading.enumerate())


def test_the_next_step_is_prepared_before_it_is_requested(photos, tmp_path):
    data = unpaired(photos, tmp_path)[0]
    requested, gather, ready = [], data.gather, threading.Event()

    def recorded(step, *shard):
        requested.append(step)
        if step == 8:
            ready.set()
        return gather(step, *shard)

    data.gather = recorded
    with closing(Prefetcher(data)) as batches:
        batches.batch(7)
        assert ready.wait(10)
        batches.batch(8)
    assert requested[:2] == [7, 8]
    assert 8 not in requested[2:]


def test_an_error_while_prefetching_is_raised_where_the_batch_is_requested(photos, tmp_path):
    data = unpaired(photos, tmp_path)[0]
    gather = data.gather

    def broken(step, *shard):
        if step == 2:
            raise OSError("the disk went away")
        return gather(step, *shard)

    data.gather = broken
    with closing(Prefetcher(data)) as batches:
        batches.batch(1)
        with pytest.raises(OSError, match="the disk went away"):
            batches.batch(2)
    assert not any(t.name.startswith("prefetch") for t in threading.enumerate())
