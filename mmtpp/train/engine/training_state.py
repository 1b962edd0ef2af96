"""The state of training, independent of ranks and ZeRO stage: whole tensors by name.

DeepSpeed's own checkpoints can be read only with the same number of ranks and ZeRO stage. Here
every trained parameter has its float32 weight and its optimiser states, as DeepSpeed gathers them,
so a run resumes with any number of ranks and any stage. The ranks take turns in keeping and writing
parameters: no rank holds or writes them all. Frozen weights are not saved.
"""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_local_fp32_param,
    safe_set_local_optimizer_state,
)
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmtpp.compat.deepspeed_hooks import (
    flat_partitions,
    full_shape,
    has_fragment_mapping,
    is_sharded_by_zero3,
    link_optimizer_states,
    set_full_tensor,
    zero3_shard,
)
from mmtpp.core.errors import ModelError
from mmtpp.train.optimizer.optimizer import Optimizer

WEIGHT, PREVIOUS_WEIGHT = "weight", "weight_before"
_FILE = "state-{rank:05d}-of-{num_ranks:05d}.safetensors"
_PATTERN = "state-*-of-*.safetensors"


class TrainingState:
    """Reads and writes the state of a DeepSpeed engine. All ranks must make every call.

    Args:
        engine: Engine made by ``deepspeed.initialize``.
        optimizer: Optimiser that the engine updates with.
        previous_weights: Weights before the last update by name, whole on every rank; empty unless
            the optimiser reduces variance.
        rank: Rank of this process.
        num_ranks: Number of ranks in the group.
    """

    def __init__(
        self,
        engine: Any,
        optimizer: Optimizer,
        *,
        previous_weights: Mapping[str, torch.Tensor],
        rank: int,
        num_ranks: int,
    ) -> None:
        self._engine, self._optimizer = engine, optimizer
        self._previous_weights = previous_weights
        self._rank, self._num_ranks = rank, num_ranks
        self._trained: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }
        self._keys = {
            name: (WEIGHT, *optimizer.state_names_of(parameter))
            for name, parameter in self._trained.items()
        }
        self.init_states(0)

    def save(self, folder: Path) -> None:
        """Write this rank's file, after at least one update."""
        kept: dict[str, torch.Tensor] = {}
        rank_of = {name: index % self._num_ranks for index, name in enumerate(self._trained)}

        def keep(name: str, key: str, whole: torch.Tensor) -> None:
            if rank_of[name] == self._rank:
                kept[f"{name}/{key}"] = whole.detach().to("cpu", copy=True).contiguous()

        for key, parameters in self._decoded_states():
            for name, parameter in parameters.items():
                keep(name, key, self._whole(parameter, key))
        for name, previous in self._previous_weights.items():
            keep(name, PREVIOUS_WEIGHT, previous)
        save_file(kept, folder / _FILE.format(rank=self._rank, num_ranks=self._num_ranks))

    def load(self, folder: Path, *, num_steps: int) -> None:
        """Restore a state that any number of ranks have written.

        Args:
            folder: Folder with the files of all ranks.
            num_steps: Number of updates made before it was written, which corrects the bias of
                the moments.

        Raises:
            ModelError: Files or tensors are missing or do not fit.
        """
        with ExitStack() as stack:
            files = {
                key: file
                for path in _paths_of_all_ranks(folder)
                for file in [stack.enter_context(safe_open(path, framework="pt"))]
                for key in file.keys()  # noqa: SIM118 # the file is no dict
            }
            expected = {f"{name}/{key}" for name, keys in self._keys.items() for key in keys}
            expected |= {f"{name}/{PREVIOUS_WEIGHT}" for name in self._previous_weights}
            if files.keys() != expected:
                different = sorted(files.keys() ^ expected)
                raise ModelError(
                    f"the checkpoint does not fit the model: {len(different)} tensors are missing "
                    f"or unexpected, for example {different[0]}",
                    where=str(folder),
                    cause="the base model, lora.rank, the optimiser or the set of trained "
                    "parameters changed",
                )
            self.init_states(num_steps)
            for key, parameters in self._decoded_states():
                for name, parameter in parameters.items():
                    value = _read_tensor(files, f"{name}/{key}", parameter, folder)
                    self._set(parameter, key, value)
            for name, previous in self._previous_weights.items():
                previous.copy_(_read_tensor(files, f"{name}/{PREVIOUS_WEIGHT}", previous, folder))

    def init_states(self, num_steps: int) -> None:
        """Give the optimiser states of zeros.

        Args:
            num_steps: Number of updates made so far.
        """
        self._optimizer.init_states(self._updated_tensors(), num_steps)
        link_optimizer_states(self._engine.optimizer)

    def _decoded_states(self) -> Iterator[tuple[str, dict[str, nn.Parameter]]]:
        """``WEIGHT`` and then each state, with the parameters that have it.

        Each state is decoded only until the next one is requested, to limit memory.
        """
        for key in (WEIGHT, *dict.fromkeys(itertools.chain(*self._keys.values()))):
            parameters = {
                name: parameter
                for name, parameter in self._trained.items()
                if key in self._keys[name]
            }
            if key == WEIGHT:
                yield key, parameters
                continue
            self._optimizer.decode_state(key)
            link_optimizer_states(self._engine.optimizer)
            yield key, parameters
            self._optimizer.encode_state(key)
            link_optimizer_states(self._engine.optimizer)

    def _whole(self, parameter: nn.Parameter, key: str) -> torch.Tensor:
        if _is_managed(parameter):
            if key == WEIGHT:
                return safe_get_full_fp32_param(parameter)  # pyright: ignore[reportReturnType]
            return safe_get_full_optimizer_state(parameter, key)  # pyright: ignore[reportReturnType]
        return parameter if key == WEIGHT else self._optimizer.state[parameter][key]

    def _set(self, parameter: nn.Parameter, key: str, value: torch.Tensor) -> None:
        if is_sharded_by_zero3(parameter):
            shard = self._shard_of(parameter, value)
            if key != WEIGHT:
                safe_set_local_optimizer_state(parameter, shard, key)
                return
            safe_set_local_fp32_param(parameter, shard)
            with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0):
                if self._rank == 0:
                    parameter.data.copy_(value)
            return
        if _is_managed(parameter):
            set_full_tensor(parameter, value, None if key == WEIGHT else key)
        elif key != WEIGHT:
            self._optimizer.state[parameter][key].copy_(value)
        if key == WEIGHT:
            parameter.data.copy_(value)

    def _shard_of(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """This rank's shard of a whole tensor under ZeRO-3: equal shards, the last one padded."""
        size = zero3_shard(parameter).numel()
        flat = value.flatten()
        padding = size * self._num_ranks - flat.numel()
        return nn.functional.pad(flat, (0, padding))[self._rank * size :][:size]

    def _updated_tensors(self) -> Iterator[tuple[torch.Tensor, int]]:
        """Tensors that the optimiser updates on this rank, each with the number of its group.

        These are the parameters themselves, or ZeRO's flat partitions of them.
        """
        partitions = flat_partitions(self._engine.optimizer)
        if partitions is not None:
            yield from partitions
            return
        for index, group in enumerate(self._optimizer.param_groups):
            for parameter in group["params"]:
                yield parameter, index


def _read_tensor(
    files: Mapping[str, Any], key: str, like: torch.Tensor, folder: Path
) -> torch.Tensor:
    """A saved tensor.

    Args:
        files: Open file of each tensor, by the tensor's key.
        key: Key of the tensor.
        like: Parameter that must have the tensor's shape.
        folder: Folder of the files, for errors.

    Raises:
        ModelError: The tensor has another shape.
    """
    value = files[key].get_tensor(key)
    shape = full_shape(like)
    if value.shape != shape:
        raise ModelError(
            f"the checkpoint does not fit the model: {key.rpartition('/')[0]} has the shape "
            f"{tuple(value.shape)} in the checkpoint and {tuple(shape)} in the model",
            where=str(folder),
        )
    return value


def _is_managed(parameter: nn.Parameter) -> bool:
    """Whether DeepSpeed keeps the float32 weight and the states of a parameter elsewhere."""
    return is_sharded_by_zero3(parameter) or has_fragment_mapping(parameter)


def _paths_of_all_ranks(folder: Path) -> list[Path]:
    """The files of all ranks.

    Raises:
        ModelError: Files are missing.
    """
    paths = sorted(folder.glob(_PATTERN))
    num_ranks = int(paths[0].stem.rpartition("-")[2]) if paths else 0
    expected = [_FILE.format(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    if not paths or [path.name for path in paths] != expected:
        raise ModelError(
            f"the checkpoint is not complete: it has {[path.name for path in paths]}",
            where=str(folder),
        )
    return paths
