import json

import numpy as np
from scipy import ndimage

from scripts import benchmark
from scripts.benchmark_photo import random_outline


def test_hints_variants_and_repairs_are_measured(tmp_path, capsys):
    for what in ("hints", "variants", "repair"):
        argv = [what, "--data=demo", "--limit=4", "--model=calm64", f"--json={tmp_path / what}.json"]
        assert benchmark.main(argv) == 0
        assert "4 photographs of demo, calm64, seed 0" in capsys.readouterr().out
    found = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    hints, variants, repair = found["hints"], found["variants"], found["repair"]
    assert hints["rmse_ab, 10 dots, edges of L"] < hints["rmse_ab, no dots"]
    assert 0 <= hints["leak, edges of L"] < hints["fill, edges of L"] <= 1
    assert hints["leak, features"] == hints["leak, edges of L"]  # this network has no features
    assert variants["rmse_ab of the best of four"] < variants["rmse_ab of one"]
    assert variants["distance of two"] > 1
    assert repair["PSNR, undamaged"] > repair["PSNR, scratched"] > 10


def test_features_reduce_leaks():
    from common.registry import load_colorizer
    from scripts.benchmark_photo import measure_hints, read_photographs

    colorizer = load_colorizer("photo")
    found = measure_hints(colorizer, read_photographs("demo", colorizer, 5, 0, None), 0)
    assert found["leak, features"] < 0.7 * found["leak, edges of L"]
    assert found["fill, features"] > 0.5 * found["fill, edges of L"]


def test_outlines_are_connected_and_away_from_the_border():
    for seed in range(10):
        mask = random_outline(np.random.default_rng(seed), 64, 80)
        assert ndimage.label(mask)[1] <= 2
        assert 0.1 < mask.mean() < 0.5


def test_models_without_a_distribution_are_refused(capsys):
    assert benchmark.main(["hints", "--data=demo", "--model=regression128"]) == 2
    assert "expected a classifier" in capsys.readouterr().err
