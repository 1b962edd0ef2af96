"""Private parts of DeepSpeed, checked on DeepSpeed 0.19.8.

DeepSpeed is imported inside the functions that need it: a model is also used where DeepSpeed is not
installed.
"""

import itertools
import sys
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn


def import_without_mlflow() -> None:
    """Import DeepSpeed as if MLflow were not installed, which saves a second.

    Only ``deepspeed.autotuning.autotuner``, which nothing here runs, uses MLflow. Checked on
    DeepSpeed 0.19.8.
    """
    hidden: dict[str, Any] = sys.modules  # None makes an import fail
    is_loaded = "mlflow" in hidden
    if not is_loaded:
        hidden["mlflow"] = None
    try:
        import deepspeed  # noqa: F401
    finally:
        if not is_loaded:
            del hidden["mlflow"]


class FragmentAddress(Protocol):
    """Position of a fragment in a flat tensor, DeepSpeed's ``fragment_address``."""

    start: int
    numel: int


class FragmentMapping(Protocol):
    """Where the part of a parameter that this rank updates is, DeepSpeed's ``tensor_fragment``.

    Attributes:
        lp_fragment_address: Position in the flattened parameter.
        hp_fragment_address: Position in the float32 tensor that this rank updates.
    """

    lp_fragment_address: FragmentAddress
    hp_fragment_address: FragmentAddress


def full_shape(parameter: torch.Tensor) -> torch.Size:
    """Shape of a whole parameter, also where ZeRO-3 left this rank a shard of it.

    Uses ``ds_shape``. Checked on DeepSpeed 0.19.8.
    """
    return getattr(parameter, "ds_shape", parameter.shape)


def full_numel(parameter: torch.Tensor) -> int:
    """Number of elements of a whole parameter, also where ZeRO-3 left this rank a shard of it.

    Uses ``ds_numel``. Checked on DeepSpeed 0.19.8.
    """
    return getattr(parameter, "ds_numel", parameter.numel())


def is_sharded_by_zero3(parameter: torch.Tensor) -> bool:
    """Whether ZeRO-3 has replaced a parameter by shards.

    Uses ``ds_id``. Checked on DeepSpeed 0.19.8.
    """
    return hasattr(parameter, "ds_id")


def zero3_shard(parameter: torch.Tensor) -> torch.Tensor:
    """This rank's flat shard of a parameter under ZeRO-3.

    Uses ``ds_tensor``. Checked on DeepSpeed 0.19.8.
    """
    return parameter.ds_tensor  # pyright: ignore[reportAttributeAccessIssue]


def has_fragment_mapping(parameter: torch.Tensor) -> bool:
    """Whether ZeRO 1 or 2 or the bfloat16 optimiser keeps a parameter's float32 copy in fragments.

    Uses ``_hp_mapping``. Checked on DeepSpeed 0.19.8.
    """
    return hasattr(parameter, "_hp_mapping")


def fragment_mapping(parameter: torch.Tensor) -> FragmentMapping | None:
    """The fragment of a parameter that this rank updates; None when it updates none of it.

    Uses ``_hp_mapping``. Checked on DeepSpeed 0.19.8.
    """
    return parameter._hp_mapping  # pyright: ignore[reportAttributeAccessIssue]


def data_parallel_group(parameter: torch.Tensor) -> Any:
    """Process group of the ranks that share a parameter's float32 copy.

    Uses ``_dp_group``. Checked on DeepSpeed 0.19.8.
    """
    return parameter._dp_group  # pyright: ignore[reportAttributeAccessIssue]


def link_optimizer_states(zero_optimizer: Any) -> None:
    """Let parameters find their states after the states' tensors were replaced.

    Without ZeRO there is nothing to link. Uses ``_hp_optimizer_states_linked`` and
    ``_lazy_init_hp_params_optimizer_state``. Checked on DeepSpeed 0.19.8.

    Args:
        zero_optimizer: Optimiser of the engine: DeepSpeed's wrapper, or the plain one.
    """
    if hasattr(zero_optimizer, "_lazy_init_hp_params_optimizer_state"):
        zero_optimizer._hp_optimizer_states_linked = False
        zero_optimizer._lazy_init_hp_params_optimizer_state()


def flat_partitions(zero_optimizer: Any) -> Iterator[tuple[torch.Tensor, int]] | None:
    """Flat float32 tensors that this rank updates, each with the number of its parameter group.

    Uses ``single_partition_of_fp32_groups`` (ZeRO 1 and 2), ``fp32_groups_flat_partition``
    (bfloat16 without ZeRO), ``fp32_partitioned_groups_flat`` and ``sub_group_to_group_id``
    (ZeRO 3). Checked on DeepSpeed 0.19.8.

    Args:
        zero_optimizer: Optimiser of the engine: DeepSpeed's wrapper, or the plain one.

    Returns:
        None for a plain optimiser, which updates the parameters themselves.
    """
    for name in ("single_partition_of_fp32_groups", "fp32_groups_flat_partition"):
        if hasattr(zero_optimizer, name):
            return zip(getattr(zero_optimizer, name), itertools.count(), strict=False)
    if hasattr(zero_optimizer, "fp32_partitioned_groups_flat"):
        return (
            (partition, zero_optimizer.sub_group_to_group_id[index])
            for index, partition in enumerate(zero_optimizer.fp32_partitioned_groups_flat)
        )
    return None


def set_full_tensor(parameter: nn.Parameter, value: torch.Tensor, state: str | None) -> None:
    """Set this rank's fragment of a parameter's float32 weight or optimiser state.

    Uses ``deepspeed.utils.tensor_fragment.set_full_hp_param``, which has no public counterpart for
    states that other ranks share. Checked on DeepSpeed 0.19.8.

    Args:
        parameter: Parameter that ZeRO 1 or 2 keeps in fragments.
        value: The whole tensor.
        state: Name of the optimiser's state; None for the weight.
    """
    from deepspeed.utils.tensor_fragment import set_full_hp_param

    set_full_hp_param(parameter, value, state)
