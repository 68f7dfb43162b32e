"""Several processes that share one piece of work, as torchrun starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from common.utils.errors import UserError


@dataclass(frozen=True)
class Processes:
    """This process among those that share the work; by default it is alone."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that prints and writes."""
        return self.rank == 0

    def gather(self, mine: object) -> list:
        """What each process has, in order of rank, in every process. All must call it."""
        if self.count == 1:
            return [mine]
        import torch.distributed as dist

        out: list = [None] * self.count
        dist.all_gather_object(out, mine)
        return out

    def agree(self, work: Callable[[], object]) -> None:
        """Do this process's part. Where one fails with a UserError, all raise the first of them."""
        if self.count == 1:
            work()
            return
        error = None
        try:
            work()
        except UserError as raised:
            error = str(raised)
        for told in self.gather(error):
            if told:
                raise UserError(told)


ALONE = Processes()


def join_processes() -> Processes:
    """Join the processes that torchrun has started beside this one (gloo); alone where there are none."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def average_buffers(module: nn.Module, processes: Processes) -> None:
    """Replace every floating-point buffer of a module by its mean over the processes. All must call it."""
    if processes.count == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= processes.count


def leave(code: int) -> None:
    """End the program with an exit code, as the last thing a script does."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
        # one of several processes: a thread of torch's, still alive as the interpreter is taken down, aborts about one
        # run in ten after all its work is done and on the disk
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
