import numpy as np

from common.evaluation.evaluate import trivial_predictor
from common.evaluation.sheets import color_columns, sheet, spread_indices


def test_columns_are_grey_models_original(demo_pack):
    rows = spread_indices(demo_pack, 3)
    columns = color_columns({"mine": trivial_predictor("original", demo_pack)}, demo_pack, rows)
    assert list(columns) == ["grey", "mine", "original"]
    assert np.ptp(columns["grey"].astype(int), axis=-1).max() <= 1
    assert np.array_equal(columns["mine"], columns["original"])
    assert np.array_equal(columns["original"], demo_pack.images[rows])


def test_rows_are_spread_and_in_color(demo_pack):
    rows = spread_indices(demo_pack, 5)
    assert rows == sorted(set(rows))
    assert rows[0] == 0
    assert rows[-1] == len(demo_pack) - 1
    assert len(spread_indices(demo_pack, 1000)) == len(demo_pack)


def test_a_sheet_shows_every_picture(demo_pack):
    columns = color_columns({}, demo_pack, [0, 1])
    drawn = sheet({"": columns}, tile=32)
    for pictures in columns.values():
        for picture in pictures:
            found = any(
                np.array_equal(drawn[y : y + 32, x : x + 32], picture)
                for y in range(drawn.shape[0] - 31)
                for x in range(0, drawn.shape[1] - 31)
                if np.array_equal(drawn[y, x], picture[0, 0])
            )
            assert found
    titled = sheet({"seen": columns, "unseen": columns}, tile=32)
    assert titled.shape[0] > 2 * drawn.shape[0] - 32
