"""The state of training, free of its topology: whole tensors by name.

DeepSpeed's own checkpoints are shards that only as many ranks of the same ZeRO stage read back.
Here every trained parameter has its float32 weight and AdamW's two moments, as DeepSpeed gathers
them, so a run goes on with any number of ranks and any stage. The ranks take turns in keeping and
writing parameters: none holds or writes them all. Frozen weights are not part of it.
"""

from collections.abc import Iterator
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

WEIGHT = "weight"
MOMENTS = ("exp_avg", "exp_avg_sq")
_FILE = "state-{rank:05d}-of-{num_ranks:05d}.safetensors"
_PATTERN = "state-*-of-*.safetensors"


class TrainingState:
    """Reads and writes the state of a DeepSpeed engine; every call is one for all ranks.

    Args:
        engine: of ``deepspeed.initialize``, with torch's AdamW.
        rank: of this process.
        num_ranks: in the group.
    """

    def __init__(self, engine: Any, *, rank: int, num_ranks: int) -> None:
        self._engine = engine
        self._rank, self._num_ranks = rank, num_ranks
        self._trained: dict[str, nn.Parameter] = {
            name: parameter
            for name, parameter in engine.module.named_parameters()
            if parameter.requires_grad
        }

    def save(self, folder: Path) -> None:
        """Write this rank's share; there has been an update."""
        kept: dict[str, torch.Tensor] = {}
        for index, (name, parameter) in enumerate(self._trained.items()):
            for key in (WEIGHT, *MOMENTS):
                whole = self._whole(parameter, key)
                if index % self._num_ranks == self._rank:
                    kept[f"{name}/{key}"] = whole.detach().to("cpu", copy=True).contiguous()
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
            wanted = {f"{name}/{key}" for name in self._trained for key in (WEIGHT, *MOMENTS)}
            if found.keys() != wanted:
                different = sorted(found.keys() ^ wanted)
                raise ModelError(
                    f"the checkpoint does not fit the model: {len(different)} tensors are missing "
                    f"or unexpected, {different[0]} is one",
                    where=str(folder),
                    cause="the base model, lora.rank or the parameters that are trained changed",
                )
            self._start_moments(num_updates)
            for name, parameter in self._trained.items():
                for key in (WEIGHT, *MOMENTS):
                    value = found[f"{name}/{key}"].get_tensor(f"{name}/{key}")
                    shape = getattr(parameter, "ds_shape", parameter.shape)
                    if value.shape != shape:
                        raise ModelError(
                            f"the checkpoint does not fit the model: {name} has the shape "
                            f"{tuple(value.shape)}, here {tuple(shape)}",
                            where=str(folder),
                        )
                    self._set(parameter, key, value)

    def _whole(self, parameter: nn.Parameter, key: str) -> torch.Tensor:
        if _is_managed(parameter):
            if key == WEIGHT:
                return safe_get_full_fp32_param(parameter)  # pyright: ignore[reportReturnType]
            return safe_get_full_optimizer_state(parameter, key)  # pyright: ignore[reportReturnType]
        return parameter if key == WEIGHT else self._engine.optimizer.state[parameter][key]

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
            self._engine.optimizer.state[parameter][key].copy_(value)
        if key == WEIGHT:
            parameter.data.copy_(value)

    def _part(self, parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
        """What ZeRO-3 keeps of a parameter on this rank: equal parts, the last one padded."""
        size = parameter.ds_tensor.numel()  # pyright: ignore[reportAttributeAccessIssue]
        flat = value.flatten()
        padding = size * self._num_ranks - flat.numel()
        return nn.functional.pad(flat, (0, padding))[self._rank * size :][:size]

    def _start_moments(self, num_updates: int) -> None:
        """Give AdamW the state it else makes in its first update."""
        outer = self._engine.optimizer
        inner = getattr(outer, "optimizer", outer)
        for flat in self._flat_weights(outer):
            inner.state[flat] = {
                # on the weights' device, where the fused kernel reads it
                "step": torch.tensor(float(num_updates), device=flat.device),
                **{key: torch.zeros_like(flat) for key in MOMENTS},
            }
        if hasattr(outer, "_lazy_init_hp_params_optimizer_state"):
            outer._lazy_init_hp_params_optimizer_state()  # so that parameters find their moments

    def _flat_weights(self, optimizer: Any) -> Iterator[torch.Tensor]:
        """What AdamW itself updates: parameters, or what this rank has of them in one piece."""
        for name in (
            "fp32_partitioned_groups_flat",  # ZeRO 3
            "single_partition_of_fp32_groups",  # ZeRO 1 and 2
            "fp32_groups_flat_partition",  # bfloat16 without ZeRO
        ):
            if hasattr(optimizer, name):
                yield from getattr(optimizer, name)
                return
        yield from self._trained.values()


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
