import csv
import io

import numpy as np
import pytest

from common.evaluation.evaluate import trivial_predictor
from common.evaluation.mean_chroma import mean_chroma


def test_reference_rows_have_known_means(demo_pack):
    rows = {name: trivial_predictor(name, demo_pack, mean_ab=(6.0, -2.0)) for name in ("grey", "original")}
    means = mean_chroma(rows, demo_pack, batch_size=5)
    assert len(means.names) == len(demo_pack)
    assert means.mse("original") == pytest.approx(0, abs=0.01)  # colors of 8-bit sRGB are at most at the gamut's edge
    assert np.abs(means.predicted["grey"]).max() == 0
    assert means.mse("grey") == pytest.approx(float(np.square(means.true).mean()))
    lab = demo_pack.lab(np.arange(len(demo_pack)))[1].mean(dim=(2, 3)).numpy()
    np.testing.assert_allclose(means.true, lab, atol=1e-4)


def test_the_table_and_its_file(demo_pack):
    means = mean_chroma({"grey": trivial_predictor("grey", demo_pack)}, demo_pack, limit=12)
    rows = list(csv.DictReader(io.StringIO(means.to_csv())))
    assert [row["image"] for row in rows] == means.names
    assert float(rows[3]["true_mean_b"]) == pytest.approx(means.true[3, 1], abs=1e-3)
    assert np.mean([float(row["mse"]) for row in rows]) == pytest.approx(means.mse("grey"), abs=1e-2)
    printed = means.table()
    assert f"| {means.names[0]} | 0.0, 0.0 | " in printed
    assert "(2 more)" in printed
    assert f"| MSE | {means.mse('grey'):.2f} | |" in printed
