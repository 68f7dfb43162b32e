import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import rgb2lab

from common.color.ab_bins import NEAREST, ABBins, in_gamut_bins
from common.utils.errors import UserError


def plane(points):
    """[n, 2] -> [1, 2, 1, n]."""
    return torch.as_tensor(np.asarray(points), dtype=torch.float32).T[None, :, None]


@pytest.mark.parametrize(("grid", "count"), [(5, 969), (10, 261), (20, 77)])
def test_the_number_of_in_gamut_cells(grid, count):
    bins = in_gamut_bins(grid)
    assert len(bins) == count
    assert (bins % grid == 0).all()


@pytest.mark.parametrize("grid", [10, 20])
def test_the_bins_are_the_cells_of_scikit_images_lab(grid):
    """Computed by scikit-image from every second level of each channel and from all colors of the six faces."""
    line = np.append(np.arange(0, 255, 6), 255)
    cube = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    full = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), axis=-1).reshape(-1, 2)
    faces = [np.insert(full, axis, edge, axis=1)[:, None] for axis in range(3) for edge in (0, 255)]
    colors = np.concatenate([cube, *faces]).astype(np.uint8)
    cells = np.unique(np.round(rgb2lab(colors)[:, 0, 1:] / grid), axis=0) * grid + 0.0
    assert np.array_equal(cells, in_gamut_bins(grid).numpy())


@pytest.mark.parametrize("grid", [5, 10, 20])
@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(-138, 138), st.floats(-138, 138)), min_size=1, max_size=20))
def test_the_nearest_are_those_of_an_exhaustive_search(grid, points):
    bins = ABBins(grid)
    ab = plane(points)
    distances = (ab[0, :, 0].T[:, None] - bins.ab_bins).norm(dim=-1)
    expected = distances.topk(NEAREST, largest=False).values
    indices, found = bins.k_nearest(ab)
    torch.testing.assert_close(found[0, 0], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(distances.gather(1, indices[0, 0]), expected, atol=1e-4, rtol=1e-5)
    assert all(len(set(row)) == NEAREST for row in indices[0, 0].tolist())
    nearest = bins.nearest(ab)[0, 0]
    torch.testing.assert_close(distances.gather(1, nearest[:, None])[:, 0], expected[:, 0], atol=1e-4, rtol=1e-5)


def test_a_bin_is_nearest_to_itself():
    bins = ABBins(10)
    assert torch.equal(bins.nearest(plane(bins.ab_bins))[0, 0], torch.arange(bins.num_bins))


def test_the_tables_are_not_saved_and_a_grid_must_be_one():
    assert not ABBins(10).state_dict()
    for grid in (0, -5, 1, 51, 2.5):
        with pytest.raises(UserError, match=f"grid is {grid}: expected a whole number"):
            ABBins(grid)
