"""Data-parallel training under ``torchrun``: every process trains the same subnet on its share of the same batch.

Which subnet a step trains follows from the recipe's seed and the step's number (`fn3hw.training.ordered`), so there is
no index to broadcast (paper, appendix A); what is checked once is that all processes mean the same training. Gradients
are averaged here instead of by DistributedDataParallel, which expects every parameter in every pass: a removed branch
has no gradient, in no process.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import distributed, nn

from fn3hw.errors import InputError


@dataclass(frozen=True)
class Ranks:
    """The processes of one training.

    Args:
        rank: number of this one, from 0. The first one writes files and reports.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> Ranks:
        """Join the others that ``torchrun`` started; a process that was started alone trains alone."""
        if not distributed.is_available() or int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return cls()
        if not distributed.is_initialized():
            if torch.cuda.is_available():
                torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
            distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
            # Threads of the group that outlive the interpreter would now and then abort a process that is done.
            atexit.register(_leave)
        return cls(distributed.get_rank(), distributed.get_world_size())

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and reports."""
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This process's images or labels of a batch (N, ...): every size-th one."""
        return batch[self.rank :: self.size] if self.size > 1 else batch

    def check_alike(self, digest: str) -> None:
        """Raise `InputError` in every process unless all have the same digest of what they train."""
        if self.size == 1:
            return
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        own = torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8, device=device)
        gathered = [torch.empty_like(own) for _ in range(self.size)]
        distributed.all_gather(gathered, own)
        if odd := [rank for rank, other in enumerate(gathered) if not torch.equal(other, gathered[0])]:
            raise InputError(
                f"Processes {', '.join(map(str, odd))} train another recipe, network or data set than process 0.",
                hint="Start all of them with the same command, code and files.",
            )

    def average_gradients(self, net: nn.Module, *, share: float) -> None:
        """Replace gradients by their mean over all images of the batch.

        Args:
            net: the network.
            share: this process's part of the batch, in (0, 1]; shares differ where a batch does not divide.
        """
        if self.size == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) * share
        distributed.all_reduce(flat)
        start = 0
        for gradient in gradients:
            gradient.copy_(flat[start : start + gradient.numel()].reshape(gradient.shape))
            start += gradient.numel()

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the processes of a tensor."""
        if self.size > 1:
            distributed.all_reduce(values)
            values = values / self.size
        return values

    def copy_from_first(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors, such as batch-norm statistics, with those of process 0."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            distributed.barrier()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()
