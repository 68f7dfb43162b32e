import pytest

from common.training.config import OptimConfig
from common.training.schedule import Plateau, lr_factor


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("constant", {0.0: 1, 0.5: 1, 0.99: 1}),
        ("linear", {0.0: 1, 0.25: 1, 0.5: 1, 0.75: 0.5, 1.0: 0}),
        ("cosine", {0.0: 1, 0.5: 0.5, 1.0: 0}),
    ],
)
def test_schedules(schedule, at):
    config = OptimConfig(schedule=schedule, warmup=0.0)
    for progress, factor in at.items():
        assert lr_factor(config, progress) == pytest.approx(factor, abs=1e-9)


def test_warm_up_rises_to_the_peak():
    config = OptimConfig(schedule="cosine", warmup=0.1)
    rates = [lr_factor(config, p / 100) for p in range(11)]
    assert rates == sorted(rates)
    assert 0 < rates[0] < 0.02
    assert rates[-1] == pytest.approx(1)


def test_plateau_cuts_and_counts():
    config = OptimConfig(schedule="plateau", plateau_patience=2, plateau_factor=0.5)
    plateau = Plateau(higher_is_better=False)
    assert [plateau.update(v, config) for v in (5, 4, 4, 4.5, 4.2, 4.1, 3)] == [True, True] + [False] * 4 + [True]
    assert plateau.factor == 0.25
    assert plateau.since_best == 0
    floor = OptimConfig(schedule="plateau", plateau_patience=2, plateau_factor=0.5, plateau_min=0.4)
    for value in (5, 5, 5, 5):
        plateau.update(value, floor)
    assert plateau.factor == 0.4
    up = Plateau(higher_is_better=True)
    assert [up.update(v, config) for v in (0.5, 0.4, 0.6)] == [True, False, True]
