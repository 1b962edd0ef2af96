"""Gathers whole matrices from a ZeRO optimiser's shards.

ZeRO 1 and 2 lay the parameters of a group end to end and give each rank an equal piece to update.
The borders of the pieces fall anywhere in a matrix. DeepSpeed records which part of a parameter a
rank updates.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from mmtpp.compat.deepspeed_hooks import (
    FragmentAddress,
    data_parallel_group,
    fragment_mapping,
)

BUCKET = 2**25  # elements gathered at once: 128 MiB


def apply_to_gathered_matrices(
    parameters: Sequence[nn.Parameter],
    piece: torch.Tensor,
    function: Callable[[torch.Tensor], torch.Tensor],
) -> None:
    """Replace this rank's part of each matrix by its part of a function of the whole matrix.

    All ranks must call this. A rank computes the function only for matrices it has a part of.

    Args:
        parameters: Parameters of the group, in order.
        piece: (N,) float32 piece of this rank; the pieces of all ranks are tensors of the shapes of
            the parameters, laid end to end.
        function: Maps a tensor of a parameter's shape to one of the same shape.
    """
    import deepspeed.comm as dist  # plans use this module where DeepSpeed is not installed

    for bucket in _buckets(parameters):
        whole = piece.new_zeros(sum(parameter.numel() for parameter in bucket))
        parts = whole.split([parameter.numel() for parameter in bucket])
        for parameter, part in zip(bucket, parts, strict=True):
            mapping = fragment_mapping(parameter)
            if mapping is not None:
                _within(part, mapping.lp_fragment_address).copy_(
                    _within(piece, mapping.hp_fragment_address)
                )
        # exactly one rank contributes each element, so the sum is exact
        dist.all_reduce(whole, group=data_parallel_group(bucket[0]))
        for parameter, part in zip(bucket, parts, strict=True):
            mapping = fragment_mapping(parameter)
            if mapping is not None:
                result = function(part.view(parameter.shape)).reshape(-1)
                _within(piece, mapping.hp_fragment_address).copy_(
                    _within(result, mapping.lp_fragment_address)
                )


def _within(flat: torch.Tensor, address: FragmentAddress) -> torch.Tensor:
    return flat.narrow(0, address.start, address.numel)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        bucket_size = sum(gathered.numel() for gathered in bucket)
        if bucket and bucket_size + parameter.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
