"""Data-parallel training: every rank has the whole model and a share of each batch, gradients are added.

Started by ``mpirun``, ranks talk through mpi4py; by ``torchrun``, through torch.distributed (NCCL where there are
GPUs, else gloo). All ranks make the same step from the same sum, so their weights stay equal.
"""

import os

import torch

from deepmd_lite.launch import check_launcher, started_ranks


class Ranks:
    """One process alone."""

    rank, size, local_rank, neighbors = 0, 1, 0, 1  # neighbors: ranks on this machine

    def add(self, tensor):
        """Replace a tensor by its sum over all ranks."""

    def abort(self, code):
        """End all ranks."""
        raise SystemExit(code)

    def sums(self, numbers):
        """Sums over all ranks of a few numbers, a list."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers, dtype=torch.float64)
        self.add(tensor)
        return [int(v) for v in tensor]

    def largest(self, number):
        """The largest of a small number ≥ 0 that each rank has."""
        return max(self.sums([number * (k == self.rank) for k in range(self.size)]))

    def total(self, errors):
        """Sums over all ranks of a tuple of scalar tensors, of which some may be None, on all ranks alike."""
        if self.size == 1:
            return errors
        there = torch.stack([v for v in errors if v is not None])
        self.add(there)
        values = iter(there)
        return type(errors)(*(None if v is None else next(values) for v in errors))

    def add_gradients(self, parameters):
        """Replace the gradients of parameters that are trained by their sums over all ranks, in one message."""
        if self.size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        for dtype in dict.fromkeys(p.dtype for p in trained):
            some = [p for p in trained if p.dtype == dtype]
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
            flat = torch.cat([g.flatten() for g in grads])
            self.add(flat)
            for p, part in zip(some, flat.split([p.numel() for p in some])):
                p.grad = part.view_as(p)


class MpiRanks(Ranks):
    """Those that ``mpirun`` has started."""

    def __init__(self):
        from mpi4py import MPI

        comm, self.sum, self.in_place = MPI.COMM_WORLD, MPI.SUM, MPI.IN_PLACE
        check_launcher(comm)
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        machine = comm.Split_type(MPI.COMM_TYPE_SHARED)
        self.local_rank, self.neighbors = machine.rank, machine.size

    def add(self, tensor):
        host = tensor if tensor.device.type == "cpu" else tensor.cpu()
        self.comm.Allreduce(self.in_place, host.numpy(), op=self.sum)
        if host is not tensor:
            tensor.copy_(host)

    def abort(self, code):
        self.comm.Abort(code)


class TorchRanks(Ranks):
    """Those that ``torchrun`` has started."""

    def __init__(self):
        self.local_rank = int(os.environ["LOCAL_RANK"])
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.set_device(self.local_rank)
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
        self.rank, self.size = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.neighbors = int(os.environ["LOCAL_WORLD_SIZE"])
        self.device = torch.device("cuda", self.local_rank) if cuda else torch.device("cpu")

    def add(self, tensor):
        there = tensor.to(self.device)
        torch.distributed.all_reduce(there)
        if there is not tensor:
            tensor.copy_(there)

    def abort(self, code):
        os._exit(code)  # torchrun ends the others


def find_ranks():
    """The `Ranks` that this process is one of, as its environment says.

    Raises
    ------
    ConfigError
        An mpirun of another MPI than mpi4py's.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ and torch.distributed.is_available():
        return TorchRanks()
    if started_ranks()[1] > 1:
        return MpiRanks()
    return Ranks()
