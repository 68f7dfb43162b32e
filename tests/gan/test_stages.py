import pytest
import torch

from common.utils.errors import UserError
from gan.stages import WON_STEPS, ImagePool, StageConfig, StageSchedule, check_stages

THREE = [StageConfig("generator", 0.4), StageConfig("discriminator", 0.2, until_accuracy=0.8), StageConfig("both", 0.4)]


def test_stages_turn_at_their_shares():
    schedule = StageSchedule(THREE)
    found = []
    for step in range(10):
        found.append(schedule.stage.train)
        schedule.after_step((step + 1) / 10)
    assert found == ["generator"] * 4 + ["discriminator"] * 2 + ["both"] * 4


def test_a_discriminator_that_wins_ends_its_stage_early():
    schedule = StageSchedule(THREE)
    schedule.after_step(0.4)
    steps = 0
    while schedule.stage.train == "discriminator":
        schedule.add_accuracy(torch.tensor(1.0), torch.tensor(1.0))
        schedule.after_step(0.41)
        steps += 1
    # the running accuracy goes 1 - 0.5 * 0.98 ** n
    assert steps == next(n for n in range(99) if 1 - 0.5 * 0.98**n >= 0.8)
    schedule.after_step(0.42)
    assert schedule.stage.train == "both"


def test_a_long_step_may_jump_over_a_stage():
    schedule = StageSchedule(THREE)
    schedule.after_step(0.9)
    assert schedule.stage.train == "both"


def test_the_warning_of_a_won_game_needs_long_and_goes_away():
    schedule = StageSchedule([StageConfig("both", 1.0)])
    for _ in range(WON_STEPS):
        schedule.add_accuracy(torch.tensor(1.0), torch.tensor(1.0))
        schedule.after_step(0.5)
    assert not schedule.warnings()  # it had to rise above the limit first
    for _ in range(200):
        schedule.add_accuracy(torch.tensor(1.0), torch.tensor(0.98))
        schedule.after_step(0.5)
    assert "discriminator has won" in schedule.warnings()[0]
    for _ in range(20):
        schedule.add_accuracy(torch.tensor(0.5), torch.tensor(0.5))
        schedule.after_step(0.5)
    assert not schedule.warnings()


def test_the_state_goes_on():
    one = StageSchedule(THREE)
    one.after_step(0.45)
    one.add_accuracy(torch.tensor(0.9), torch.tensor(0.7))
    one.after_step(0.5)
    other = StageSchedule(THREE)
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == one.state_dict()
    assert other.stage.train == "discriminator"


def test_the_pool_gives_new_and_past_fakes():
    torch.manual_seed(0)
    pool = ImagePool(4)
    first = torch.arange(4.0).view(4, 1, 1, 1)
    assert torch.equal(pool.query(first), first)  # it fills
    given = {0.0, 1.0, 2.0, 3.0}
    swapped = 0
    for step in range(1, 200):
        new = (torch.arange(4.0) + 4 * step).view(4, 1, 1, 1)
        out = pool.query(new).flatten().tolist()
        swapped += sum(value < 4 * step for value in out)
        for place, value in enumerate(out):  # each comes back once at most: they are exchanged, not copied
            assert value == 4 * step + place or value in given
            given.discard(value)
        given |= {value for value in new.flatten().tolist() if value not in out}
        assert sorted(given) == sorted(pool.pictures.flatten().tolist())
    assert swapped / (199 * 4) == pytest.approx(0.5, abs=0.06)


def test_a_pool_smaller_than_a_batch_and_none():
    torch.manual_seed(0)
    pool = ImagePool(2)
    new = torch.arange(5.0).view(5, 1, 1, 1)
    assert torch.equal(pool.query(new[:1]), new[:1])
    out = pool.query(new)
    assert out.shape == new.shape
    assert len(pool.pictures) == 2
    assert ImagePool(0).query(new) is new


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "is empty"),
        ([("generator", 0.5), ("both", 0.6)], "shares of sum 1.1"),
        ([("generator", -0.5), ("both", 1.5)], "share -0.5"),
        ([("generator", 0.5), ("discriminator", 0.5)], "ends with the discriminator"),
        ([("discriminator", 0.5), ("generator", 0.5)], "trains the discriminator, but no later stage trains both"),
        ([("both", 1.0, False, 0.9)], "until_accuracy 0.9 in a stage of the both"),
        ([("discriminator", 0.5, False, 1.5), ("both", 0.5)], "a number in (0.5, 1)"),
        ([("discriminator", 0.5, True), ("both", 0.5)], "freezes the encoder"),
    ],
)
def test_stages_that_make_no_sense_are_one_sentence(stages, says):
    with pytest.raises(UserError) as caught:
        check_stages([StageConfig(*stage) for stage in stages])
    assert says in str(caught.value)
    assert str(caught.value).startswith("model.stages ")
