"""Whole matrices of a ZeRO optimiser's shards.

ZeRO 1 and 2 lay the parameters of a group end to end and give each rank an equal piece to update,
whose borders fall anywhere in a matrix. DeepSpeed remembers which part of a parameter a rank has.
"""

from collections.abc import Callable, Iterator, Sequence

import deepspeed.comm as dist
import torch
from torch import nn

BUCKET = 2**25  # elements gathered at once: 128 MiB


def apply_to_whole(
    parameters: Sequence[nn.Parameter],
    piece: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Replace what this rank has of each parameter's tensor by its part of a function of the whole.

    A call for all ranks; a rank computes the function only where it has a part.

    Args:
        parameters: of the group, in order.
        piece: (N,) float32, this rank's piece of tensors laid end to end like the parameters.
        function: of a tensor of a parameter's shape, to the same shape.
    """
    for bucket in _buckets(parameters):
        whole = piece.new_zeros(sum(each.numel() for each in bucket))
        parts = whole.split([each.numel() for each in bucket])
        for parameter, part in zip(bucket, parts, strict=True):
            mapping = parameter._hp_mapping  # pyright: ignore[reportAttributeAccessIssue]
            if mapping is not None:
                _within(part, mapping.lp_fragment_address).copy_(
                    _within(piece, mapping.hp_fragment_address)
                )
        # every element is of one rank, so the sum is exact
        dist.all_reduce(whole, group=bucket[0]._dp_group)  # pyright: ignore[reportAttributeAccessIssue]
        for parameter, part in zip(bucket, parts, strict=True):
            mapping = parameter._hp_mapping  # pyright: ignore[reportAttributeAccessIssue]
            if mapping is not None:
                found = function(part.view(parameter.shape)).reshape(-1)
                _within(piece, mapping.hp_fragment_address).copy_(
                    _within(found, mapping.lp_fragment_address)
                )


def _within(flat: torch.Tensor, address: "_Address") -> torch.Tensor:
    return flat.narrow(0, address.start, address.numel)


class _Address:
    """As DeepSpeed's ``fragment_address``."""

    numel: int
    start: int


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(each.numel() for each in bucket) + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
