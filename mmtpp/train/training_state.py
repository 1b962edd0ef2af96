"""The state of training, free of its topology: whole tensors by name.

DeepSpeed's own checkpoints are shards that only as many ranks of the same ZeRO stage read back.
Here every trained parameter has its float32 weight and its states in the optimiser, as DeepSpeed
gathers them, so a run goes on with any number of ranks and any stage. The ranks take turns in
keeping and writing parameters: none holds or writes them all. Frozen weights are not part of it.
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
from deepspeed.utils.tensor_fragment import set_full_hp_param
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from mmtpp.core.errors import ModelError
from mmtpp.train.optimizer.optimizer import Optimizer

WEIGHT, BEFORE = "weight", "weight_before"
_FILE = "state-{rank:05d}-of-{num_ranks:05d}.safetensors"
_PATTERN = "state-*-of-*.safetensors"


class TrainingState:
    """Reads and writes the state of a DeepSpeed engine; every call is one for all ranks.

    Args:
        engine: of ``deepspeed.initialize``.
        optimizer: that it updates with.
        before: the weights before the last update, by names in the model, of every rank whole;
            where the optimiser needs them.
        rank: of this process.
        num_ranks: in the group.
    """

    def __init__(
        self,
        engine: Any,
        optimizer: Optimizer,
        *,
        before: Mapping[str, torch.Tensor],
        rank: int,
        num_ranks: int,
    ) -> None:
        self._engine, self._optimizer, self._before = engine, optimizer, before
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
        self.start(0)

    def save(self, folder: Path) -> None:
        """Write this rank's share; there has been an update."""
        kept: dict[str, torch.Tensor] = {}
        turn = {name: index % self._num_ranks for index, name in enumerate(self._trained)}

        def keep(name: str, key: str, whole: torch.Tensor) -> None:
            if turn[name] == self._rank:
                kept[f"{name}/{key}"] = whole.detach().to("cpu", copy=True).contiguous()

        for key, members in self._shown():
            for name, parameter in members.items():
                keep(name, key, self._whole(parameter, key))
        for name, before in self._before.items():
            keep(name, BEFORE, before)
        save_file(kept, folder / _FILE.format(rank=self._rank, num_ranks=self._num_ranks))

    def load(self, folder: Path, *, num_updates: int) -> None:
        """Restore what any number of ranks have written.

        Args:
            folder: all their files.
            num_updates: made until then, which corrects the bias of the moments.

        Raises:
            ModelError: files or tensors are missing or do not fit.
        """
        with ExitStack() as stack:
            found = {
                key: file
                for path in _whole_set(folder)
                for file in [stack.enter_context(safe_open(path, framework="pt"))]
                for key in file.keys()  # noqa: SIM118 # it is no dict
            }
            wanted = {f"{name}/{key}" for name, keys in self._keys.items() for key in keys}
            wanted |= {f"{name}/{BEFORE}" for name in self._before}
            if found.keys() != wanted:
                different = sorted(found.keys() ^ wanted)
                raise ModelError(
                    f"the checkpoint does not fit the model: {len(different)} tensors are missing "
                    f"or unexpected, {different[0]} is one",
                    where=str(folder),
                    cause="the base model, lora.rank, the optimiser or the parameters that are "
                    "trained changed",
                )
            self.start(num_updates)
            for key, members in self._shown():
                for name, parameter in members.items():
                    value = _tensor(found, f"{name}/{key}", parameter, folder)
                    self._set(parameter, key, value)
            for name, before in self._before.items():
                before.copy_(_tensor(found, f"{name}/{BEFORE}", before, folder))

    def start(self, num_updates: int) -> None:
        """Give the optimiser states of zeros.

        Args:
            num_updates: made until then.
        """
        self._optimizer.start(self._updated(), num_updates)
        self._link()

    def _shown(self) -> Iterator[tuple[str, dict[str, nn.Parameter]]]:
        """Weights and then each state, with the parameters that have it.

        A state that is kept in codes is numbers meanwhile: one at a time, as they take memory.
        """
        for key in (WEIGHT, *dict.fromkeys(itertools.chain(*self._keys.values()))):
            members = {
                name: each for name, each in self._trained.items() if key in self._keys[name]
            }
            if key == WEIGHT:
                yield key, members
                continue
            self._optimizer.expand(key)
            self._link()
            yield key, members
            self._optimizer.collapse(key)
            self._link()

    def _link(self) -> None:
        """Let parameters find their states in the optimiser's."""
        outer = self._engine.optimizer
        if hasattr(outer, "_lazy_init_hp_params_optimizer_state"):
            outer._hp_optimizer_states_linked = False
            outer._lazy_init_hp_params_optimizer_state()

    def _whole(self, parameter: nn.Parameter, key: str) -> torch.Tensor:
        if _is_managed(parameter):
            if key == WEIGHT:
                return safe_get_full_fp32_param(parameter)  # pyright: ignore[reportReturnType]
            return safe_get_full_optimizer_state(parameter, key)  # pyright: ignore[reportReturnType]
        return parameter if key == WEIGHT else self._optimizer.state[parameter][key]

    def _set(self, parameter: nn.Parameter, key: str, value: torch.Tensor) -> None:
        if hasattr(parameter, "ds_id"):
            part = self._part(parameter, value)
            if key != WEIGHT:
                safe_set_local_optimizer_state(parameter, part, key)
                return
            safe_set_local_fp32_param(parameter, part)
            with deepspeed.zero.GatheredParameters(parameter, modifier_rank=0):
                if self._rank == 0:
                    parameter.data.copy_(value)
            return
        if _is_managed(parameter):
            set_full_hp_param(parameter, value, None if key == WEIGHT else key)
        elif key != WEIGHT:
            self._optimizer.state[parameter][key].copy_(value)
        if key == WEIGHT:
            parameter.data.copy_(value)

    def _part(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """What ZeRO-3 keeps of a parameter on this rank: equal parts, the last one padded."""
        size = parameter.ds_tensor.numel()  # pyright: ignore[reportAttributeAccessIssue]
        flat = value.flatten()
        padding = size * self._num_ranks - flat.numel()
        return nn.functional.pad(flat, (0, padding))[self._rank * size :][:size]

    def _updated(self) -> Iterator[tuple[torch.Tensor, int]]:
        """What the optimiser itself updates, with its group: parameters, or what this rank has of
        them in one piece."""
        outer = self._engine.optimizer
        for name in (
            "single_partition_of_fp32_groups",  # ZeRO 1 and 2
            "fp32_groups_flat_partition",  # bfloat16 without ZeRO
        ):
            if hasattr(outer, name):
                yield from zip(getattr(outer, name), itertools.count(), strict=False)
                return
        if hasattr(outer, "fp32_partitioned_groups_flat"):  # ZeRO 3
            for index, flat in enumerate(outer.fp32_partitioned_groups_flat):
                yield flat, outer.sub_group_to_group_id[index]
            return
        for index, group in enumerate(self._optimizer.param_groups):
            for parameter in group["params"]:
                yield parameter, index


def _tensor(found: Mapping[str, Any], key: str, fits: torch.Tensor, folder: Path) -> torch.Tensor:
    """A saved tensor of the shape of a parameter.

    Raises:
        ModelError: it has another.
    """
    value = found[key].get_tensor(key)
    shape = getattr(fits, "ds_shape", fits.shape)
    if value.shape != shape:
        raise ModelError(
            f"the checkpoint does not fit the model: {key.rpartition('/')[0]} has the shape "
            f"{tuple(value.shape)}, here {tuple(shape)}",
            where=str(folder),
        )
    return value


def _is_managed(parameter: nn.Parameter) -> bool:
    """Whether DeepSpeed keeps weight and moments of a parameter apart from it."""
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def _whole_set(folder: Path) -> list[Path]:
    """The files of all ranks.

    Raises:
        ModelError: some are missing.
    """
    paths = sorted(folder.glob(_PATTERN))
    num_ranks = int(paths[0].stem.rpartition("-")[2]) if paths else 0
    expected = [_FILE.format(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    if not paths or [path.name for path in paths] != expected:
        raise ModelError(
            f"the checkpoint is not whole: {[path.name for path in paths]}", where=str(folder)
        )
    return paths
