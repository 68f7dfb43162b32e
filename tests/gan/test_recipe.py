import pytest
import torch

from common.utils.errors import UserError
from gan.recipe import WON_FOR, FakePool, Recipe, StageConfig, check_stages

THREE = [StageConfig("generator", 0.4), StageConfig("discriminator", 0.2, until_accuracy=0.8), StageConfig("both", 0.4)]


def test_stages_turn_at_their_shares():
    recipe = Recipe(THREE)
    found = []
    for step in range(10):
        found.append(recipe.stage.train)
        recipe.after_step((step + 1) / 10)
    assert found == ["generator"] * 4 + ["discriminator"] * 2 + ["both"] * 4


def test_a_discriminator_that_wins_ends_its_stage_early():
    recipe = Recipe(THREE)
    recipe.after_step(0.4)
    steps = 0
    while recipe.stage.train == "discriminator":
        recipe.judged(torch.tensor(1.0), torch.tensor(1.0))
        recipe.after_step(0.41)
        steps += 1
    # the running accuracy goes 1 - 0.5 * 0.98 ** n
    assert steps == next(n for n in range(99) if 1 - 0.5 * 0.98**n >= 0.8)
    recipe.after_step(0.42)
    assert recipe.stage.train == "both"


def test_a_long_step_may_jump_over_a_stage():
    recipe = Recipe(THREE)
    recipe.after_step(0.9)
    assert recipe.stage.train == "both"


def test_the_warning_of_a_won_game_needs_long_and_goes_away():
    recipe = Recipe([StageConfig("both", 1.0)])
    for _ in range(WON_FOR):
        recipe.judged(torch.tensor(1.0), torch.tensor(1.0))
        recipe.after_step(0.5)
    assert not recipe.warnings()  # it had to rise above the limit first
    for _ in range(200):
        recipe.judged(torch.tensor(1.0), torch.tensor(0.98))
        recipe.after_step(0.5)
    assert "discriminator has won" in recipe.warnings()[0]
    for _ in range(20):
        recipe.judged(torch.tensor(0.5), torch.tensor(0.5))
        recipe.after_step(0.5)
    assert not recipe.warnings()


def test_the_state_goes_on():
    one = Recipe(THREE)
    one.after_step(0.45)
    one.judged(torch.tensor(0.9), torch.tensor(0.7))
    one.after_step(0.5)
    other = Recipe(THREE)
    other.load(one.state())
    assert other.state() == one.state()
    assert other.stage.train == "discriminator"


def test_the_pool_gives_new_and_past_fakes():
    torch.manual_seed(0)
    pool = FakePool(4)
    first = torch.arange(4.0).view(4, 1, 1, 1)
    assert torch.equal(pool.mix(first), first)  # it fills
    given = {0.0, 1.0, 2.0, 3.0}
    swapped = 0
    for step in range(1, 200):
        new = (torch.arange(4.0) + 4 * step).view(4, 1, 1, 1)
        out = pool.mix(new).flatten().tolist()
        swapped += sum(value < 4 * step for value in out)
        for place, value in enumerate(out):  # each comes back once at most: they are exchanged, not copied
            assert value == 4 * step + place or value in given
            given.discard(value)
        given |= {value for value in new.flatten().tolist() if value not in out}
        assert sorted(given) == sorted(pool.pictures.flatten().tolist())
    assert swapped / (199 * 4) == pytest.approx(0.5, abs=0.06)


def test_a_pool_smaller_than_a_batch_and_none():
    torch.manual_seed(0)
    pool = FakePool(2)
    new = torch.arange(5.0).view(5, 1, 1, 1)
    assert torch.equal(pool.mix(new[:1]), new[:1])
    out = pool.mix(new)
    assert out.shape == new.shape
    assert len(pool.pictures) == 2
    assert FakePool(0).mix(new) is new


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "is empty"),
        ([("generator", 0.5), ("both", 0.6)], "shares of sum 1.1"),
        ([("generator", -0.5), ("both", 1.5)], "share -0.5"),
        ([("generator", 0.5), ("discriminator", 0.5)], "ends with the discriminator"),
        ([("discriminator", 0.5), ("generator", 0.5)], "never lets the generator meet the discriminator"),
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
