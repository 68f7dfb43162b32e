import pytest
import torch

from common.training.state import read_state, save_state
from common.utils.errors import UserError


def test_state_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_state(tmp_path, {"step": 1, "weights": {"x": torch.ones(3)}})

    def torn(state, path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("common.training.state.torch.save", torn)
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
