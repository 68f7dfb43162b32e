"""Several processes, started by torchrun."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from common.utils.errors import UserError
from common.utils.startup import leave_at_once


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
        """Gather `mine` of all processes, in the order of ranks. All processes must call it."""
        if self.count == 1:
            return [mine]
        import torch.distributed as dist

        out: list = [None] * self.count
        dist.all_gather_object(out, mine)
        return out

    def agree(self, work: Callable[[], object]) -> None:
        """Call `work` in every process. If some raise UserError, all processes raise the first of these errors."""
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
    """Join the process group of torchrun (gloo or nccl). Returns `ALONE` if torchrun did not start this program."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return Processes(dist.get_rank(), dist.get_world_size())


def average_buffers(module: nn.Module, processes: Processes) -> None:
    """Replace every floating-point buffer by its mean over the processes. All processes must call it."""
    if processes.count == 1:
        return
    for buffer in module.buffers():
        if buffer.is_floating_point():
            torch.distributed.all_reduce(buffer)
            buffer /= processes.count


def leave(code: int) -> None:
    """Exit the program. It must be the last call of a script."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        import torch.distributed as dist

        if dist.is_initialized():
            dist.destroy_process_group()
        leave_at_once(code)  # with sys.exit, a thread of torch aborts about one run in ten
    sys.exit(code)
