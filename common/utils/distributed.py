"""Processes that torchrun started, which divide the work."""

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
    """The rank of this process and the number of processes; by default a single process."""

    rank: int = 0
    count: int = 1

    @property
    def main(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def gather(self, mine: object) -> list:
        """The values `mine` of all processes, in order of rank. Every process must call it."""
        if self.count == 1:
            return [mine]
        import torch.distributed as dist

        out: list = [None] * self.count
        dist.all_gather_object(out, mine)
        return out

    def agree(self, work: Callable[[], object]) -> None:
        """Call `work` in each process. Where it raises UserError in some, all processes raise the first one's."""
        if self.count == 1:
            work()
            return
        error = None
        try:
            work()
        except UserError as raised:
            error = str(raised)
        for message in self.gather(error):
            if message:
                raise UserError(message)


ALONE = Processes()


def join_processes() -> Processes:
    """Join the process group of torchrun (gloo). Returns `ALONE` where the program was not started by it."""
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
    """Exit the program with a code; must be the last call of a script."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
        # a thread of torch that outlives the interpreter aborts about one run in ten, after all work is on disk
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
