import torch
from torch import nn

from common.colorizer import Colorizer, frozen, predict_ab, unwrap
from tests.gan.conftest import small


def test_frozen_yields_the_module_inside_of_its_replica_and_restores_it(tmp_path):
    colorizer = small()
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        replica = nn.parallel.DistributedDataParallel(colorizer.generator)
        assert unwrap(replica) is colorizer.generator
        with frozen(replica) as bare:
            assert bare is colorizer.generator
            assert not any(p.requires_grad for p in bare.parameters())
        assert all(p.requires_grad for p in colorizer.generator.parameters())
    finally:
        torch.distributed.destroy_process_group()


class Recorder(Colorizer):
    """Records what it is given."""

    multiple = 32

    def forward(self, L):
        self.given = L
        return L.expand(-1, 2, -1, -1)

    def training_step(self, batch):
        yield from ()

    def networks(self):
        return {}


def test_a_small_margin_is_padded_and_a_large_one_resized():
    """Padding 27 px to 32 adds 40 % of the pixels, padding 26 px adds 51 %: more than half is too much."""
    colorizer = Recorder()
    L = torch.rand(1, 1, 27, 27) * 100
    assert torch.equal(predict_ab(colorizer, L)[:, :1], L)
    assert torch.equal(colorizer.given[..., :27, :27], L)
    assert torch.equal(colorizer.given[..., 27:, :27], L[..., -1:, :].expand(-1, -1, 5, -1))
    L = torch.rand(1, 1, 26, 26) * 100
    assert predict_ab(colorizer, L).shape == (1, 2, 26, 26)
    assert colorizer.given.shape == (1, 1, 32, 32)
    assert not torch.equal(colorizer.given[..., :26, :26], L)
