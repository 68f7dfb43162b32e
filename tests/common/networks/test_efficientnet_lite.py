import copy

import pytest
import timm
import torch

from common.networks.efficientnet_lite import INPUT_STATISTICS, NAME, EfficientNetLite0


@pytest.fixture(scope="module")
def pair():
    networks = []
    for build in (lambda: EfficientNetLite0(1), lambda: timm.create_model(NAME, features_only=True, in_chans=1)):
        torch.manual_seed(0)
        networks.append(build())
    return networks


def test_initial_weights_and_names_are_those_of_timm(pair):
    own, reference = (network.state_dict() for network in pair)
    assert list(own) == list(reference)
    assert all(torch.equal(own[key], reference[key]) for key in own)


@pytest.mark.parametrize("size", [(64, 64), (96, 160), (33, 51)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_are_those_of_timm(pair, size, layout):
    """In eval and in train mode, which also updates the statistics of batch norm; at odd sizes, too."""
    own, reference = (copy.deepcopy(network).to(memory_format=layout) for network in pair)
    x = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(0)).to(memory_format=layout)
    for training in (True, False):
        maps = [network.train(training)(x) for network in (own, reference)]
        assert len(maps[0]) == len(maps[1]) == 5
        assert all(torch.equal(a, b) for a, b in zip(*maps, strict=True))
    assert torch.equal(own.bn1.running_var, reference.bn1.running_var)


def test_gradients_are_those_of_timm(pair):
    own, reference = (copy.deepcopy(network) for network in pair)
    x = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    for network in (own, reference):
        sum(m.square().mean() for m in network(x)).backward()
    expected = dict(reference.named_parameters())
    for name, parameter in own.named_parameters():
        assert torch.equal(parameter.grad, expected[name].grad), name


def test_feature_maps_are_described_as_in_timm(pair):
    own, reference = (network.feature_info for network in pair)
    assert own.reduction() == reference.reduction() == [2, 4, 8, 16, 32]
    assert own.channels() == reference.channels()
    assert [own.module_name(i) for i in range(5)] == [reference.module_name(i) for i in range(5)]


def test_input_statistics_are_those_of_timm():
    config = timm.get_pretrained_cfg(NAME)
    assert (sum(config.mean) / 3, sum(config.std) / 3) == INPUT_STATISTICS
