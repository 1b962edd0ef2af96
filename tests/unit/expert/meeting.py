"""Ranks of a training as threads of one process."""

import threading

import torch


class Meeting:
    """Sums tensors of threads, as ``torch.distributed`` sums those of processes."""

    def __init__(self, num_ranks: int) -> None:
        self._num_ranks, self._barrier = num_ranks, threading.Barrier(num_ranks)
        self._values: dict[int, torch.Tensor] = {}

    def total(self, values: torch.Tensor) -> torch.Tensor:
        self._barrier.wait()
        self._values[threading.get_ident()] = values.clone()
        self._barrier.wait()
        parts = [self._values[key] for key in sorted(self._values)]
        self._barrier.wait()
        return torch.stack(parts).sum(0)

    def wrap(self, network: torch.nn.Module) -> torch.nn.Module:
        for parameter in network.parameters():
            parameter.register_hook(lambda gradient: self.total(gradient) / self._num_ranks)
        return network
