import pytest
import torch
from torch import nn

from common.checkpoint import (
    Ema,
    averaged_weights,
    bare_state_dict,
    load_bare_state_dict,
    published_state,
    read_state,
    read_weights,
    save_state,
    save_weights,
)
from common.colorizer import frozen
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
    state, read = read_weights(path)
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
    [(b"", "no whole .safetensors"), (b"\x00" * 100, "no whole .safetensors"), (None, "do not exist")],
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


def test_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1, "weights": {"x": torch.ones(3)}})

    def torn(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.checkpoint.torch.save", torn)
    with pytest.raises(UserError, match="No space left"):
        save_state(tmp_path, {"step": 2})
    monkeypatch.undo()
    assert read_state(tmp_path)["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


def test_a_damaged_state_is_one_sentence(tmp_path):
    assert read_state(tmp_path) is None
    (tmp_path / "state.pt").write_bytes(b"garbage")
    with pytest.raises(UserError, match="--fresh true"):
        read_state(tmp_path)


def test_ema_is_the_weighted_sum_of_the_past():
    colorizer = build_colorizer("baselines", network="cnn_deep")
    ema = Ema(colorizer, decay=0.5)
    key = "network.up.5.bias"
    expected = colorizer.state_dict()[key].clone()
    for step in range(30):
        with torch.no_grad():
            colorizer.state_dict()[key].fill_(float(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        ema.update(colorizer, step)
    torch.testing.assert_close(ema.average[key], expected)
    with averaged_weights(colorizer, ema):
        assert not colorizer.training
        torch.testing.assert_close(colorizer.state_dict()[key], expected)
    assert colorizer.training
    assert float(colorizer.state_dict()[key][0]) == 29


def test_a_wrapped_network_has_bare_names(tmp_path):
    colorizer = small_gan()
    names = list(colorizer.state_dict())
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        colorizer.generator = nn.parallel.DistributedDataParallel(colorizer.generator)
        state = bare_state_dict(colorizer)
        assert list(state) == names
        load_bare_state_dict(colorizer, {k: v.clone().fill_(1) for k, v in state.items()})
        assert all((p == 1).all() for p in colorizer.generator.parameters())
        with frozen(colorizer.generator) as bare:
            assert bare is colorizer.generator.module
            assert not any(p.requires_grad for p in bare.parameters())
        assert all(p.requires_grad for p in colorizer.generator.parameters())
    finally:
        torch.distributed.destroy_process_group()
