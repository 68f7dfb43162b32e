import pytest
import torch

from common.checkpoint import published_state, read_weights, save_weights
from common.registry import build_colorizer, load_colorizer
from common.utils.errors import UserError

SMALL = {"size": 16, "generator": {"width": 4}, "discriminator": {"width": 4, "receptive_field": 16}}


def small_gan():
    torch.manual_seed(0)
    return build_colorizer("gan", **SMALL)


def test_weights_come_back_without_what_only_training_needs(tmp_path):
    colorizer = small_gan().to(memory_format=torch.channels_last)
    card = {"family": "gan", "model": SMALL, "size": 16}
    path = tmp_path / "w.safetensors"
    save_weights(path, published_state(colorizer), card)
    state, read, _ = read_weights(path)
    assert read == card
    assert state
    assert not [key for key in state if key.startswith("discriminator")]
    loaded = load_colorizer(path)
    L = torch.rand(2, 1, 16, 16) * 100
    with torch.no_grad():
        assert torch.equal(loaded(L), colorizer.eval()(L))
    save_weights(tmp_path / "again.safetensors", published_state(colorizer), card)
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "not a whole .safetensors"), (b"\x00" * 100, "not a whole .safetensors"), (None, "do not exist")],
)
def test_bad_weights_are_one_sentence(tmp_path, content, says):
    path = tmp_path / "w.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=says):
        load_colorizer(path)
    with pytest.raises(UserError, match="holds no weights"):
        load_colorizer(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    colorizer = small_gan()
    path = tmp_path / "w.safetensors"
    for model in (SMALL | {"generator": {"width": 8}}, SMALL | {"size": 32}):
        save_weights(path, colorizer.state_dict(), {"family": "gan", "model": model, "size": 16})
        with pytest.raises(UserError, match="do not fit"):
            load_colorizer(path)
    save_weights(path, colorizer.state_dict(), {"name": "no family"})
    with pytest.raises(UserError, match="no card"):
        load_colorizer(path)
