"""A study from a source: who may take part, and what stays the same from start to start."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from common.data.packing import open_pack
from common.evaluation.rows import load_rows
from common.turing.pictures import DISPLAY_SIZE, make_gallery, plan_study, study_predictors
from common.turing.trials import Trial, color_donor
from common.utils.errors import UserError
from tests.common.turing.conftest import COUNTS


def planned(weights, folder, *names, **changes):
    rows = load_rows([str(weights), *names], "cpu")
    return plan_study(rows, open_pack(str(folder), 32), **({"photographs": None, "seed": 3} | COUNTS | changes))


def test_a_study_is_the_same_at_every_start(weights, color_folder, made):
    again = planned(weights, color_folder, "shuffled")
    assert again.study == made.inputs.study
    assert len(again.study.photos) == 16
    assert not any(name.startswith("grey") for name in again.study.photos)
    other = planned(weights, color_folder, "shuffled", seed=4)
    assert other.study.content != again.study.content
    fewer = planned(weights, color_folder, "shuffled", photographs=9)
    assert len(fewer.study.photos) == 9


def test_other_weights_are_another_study(weights, color_folder, made, tmp_path):
    copy = tmp_path / weights.name
    copy.write_bytes(weights.read_bytes())
    assert planned(copy, color_folder, "shuffled").study == made.inputs.study
    from common.checkpoint import read_weights, save_weights

    state, card, _ = read_weights(weights)
    state[next(iter(state))] += 0.01
    save_weights(copy, state, card)
    assert planned(copy, color_folder, "shuffled").study.content != made.inputs.study.content


@pytest.mark.parametrize(
    ("names", "changes", "says"),
    [
        ((), {}, "one model only"),
        (("original",), {}, "leave the row original out"),
        (("nowhere.safetensors",), {}, "row nowhere.safetensors is not a run folder"),
        (("grey",), {"test": 15}, "16 color photographs are fewer than the 17 pairs"),
        (("grey",), {"photographs": 6}, "6 color photographs are fewer than the 7 pairs"),
    ],
)
def test_what_makes_no_study(weights, color_folder, names, changes, says):
    with pytest.raises(UserError, match=says):
        planned(weights, color_folder, *names, **changes)


def test_the_mean_is_that_of_the_training_set(weights, color_folder):
    pack = open_pack(str(color_folder), 32)
    predict = study_predictors(load_rows([str(weights), "mean"], "cpu"), pack, 0)["mean"]
    from common.colorizer import Batch

    ab = predict(Batch(*pack.lab(np.arange(2))), np.arange(2))
    assert torch.equal(ab[:, :, 0, 0], torch.tensor([[3.0, 5.0]] * 2))


def test_colors_that_are_not_finite(made):
    bad = made.inputs._replace(predictors={"broken": lambda batch, rows: batch.ab * float("nan")})
    with pytest.raises(UserError, match="broken predicts colors that are not finite"):
        make_gallery(bad)


def test_vigilance_paints_the_colors_of_another(made):
    """The mean ab of the evident fake is that of the photograph that `color_donor` names, where it fits in sRGB."""
    from common.color.lab import rgb8_to_lab

    study, pack, rows = made.inputs.study, made.inputs.pack, made.inputs.indices
    errors, chance = [], []
    for photo in range(len(rows)):
        data = made.gallery.pair(study.models[0], Trial("vigilance", photo, "left"))
        rgb = np.array(Image.open(io.BytesIO(data)))[:, :DISPLAY_SIZE]
        ab = rgb8_to_lab(torch.from_numpy(rgb).permute(2, 0, 1))[1:].mean(dim=(1, 2))
        other = color_donor(photo, len(rows), study.seed)
        wanted = pack.lab(rows)[1].mean(dim=(2, 3))
        distance = (wanted - ab).norm(dim=1)
        errors.append(float(distance[other]))
        chance.append(float(distance.mean()))
    assert np.mean(errors) < np.mean(chance) / 2
    assert len(made.gallery) == len(rows) * (len(study.models) + 1) * 2
