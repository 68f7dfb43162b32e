import torch

from common.registry import build_colorizer
from common.training.ema import MovingAverage


def test_it_is_the_weighted_sum_of_the_past_and_warms_up():
    colorizer = build_colorizer("baselines", network="cnn_deep")
    average = MovingAverage(colorizer, decay=0.99)
    key, counter = "network.up.5.bias", "network.standardise.num_batches_tracked"
    expected = 0.0
    for step in range(30):
        with torch.no_grad():
            colorizer.state_dict()[key].fill_(float(step))
            colorizer.state_dict()[counter].fill_(step)
        decay = min(0.99, (1 + step) / (10 + step)) if step else 0.0  # the first update copies
        expected = decay * expected + (1 - decay) * step
        average.update_parameters(colorizer)
    state = average.module.state_dict()
    torch.testing.assert_close(state[key], torch.full_like(state[key], expected))
    assert int(state[counter]) == 29
    assert float(colorizer.state_dict()[key][0]) == 29
    assert not average.module.training


def test_its_state_round_trips():
    colorizer = build_colorizer("baselines", network="cnn_deep")
    average, other = MovingAverage(colorizer, 0.9), MovingAverage(colorizer, 0.9)
    for _ in range(3):
        with torch.no_grad():
            for parameter in colorizer.parameters():
                parameter.add_(1)
        average.update_parameters(colorizer)
    other.load_state_dict(average.state_dict())
    for one in (average, other):
        one.update_parameters(colorizer)
    for key, value in average.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
