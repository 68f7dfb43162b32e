import torch
from torch import nn

from common.colorizer import frozen, unwrap
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
