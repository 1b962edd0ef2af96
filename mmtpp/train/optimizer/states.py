"""How momentum and moments are kept between updates: in 4, 2 or 1 bytes."""

from typing import Any, Literal

import torch

from mmtpp.config.schema import Precision
from mmtpp.core.errors import ConfigError
from mmtpp.experiments.rounding import round_

State = dict[str, torch.Tensor]
CHUNK = 2**24  # elements computed at once from states that are not float32, a multiple of BLOCK
BLOCK = 256  # 8-bit numbers that share a scale
SQUARES = ("exp_avg_sq",)  # states that are averages of squares
_SMALL = 4096  # elements up to which 8 bits would save nothing worth their error


class States:
    """Reads and writes the states of an optimiser as float32.

    Args:
        precision: how they are kept and rounded.
    """

    def __init__(self, precision: Precision) -> None:
        self._rounding = precision.states
        self._stored = precision.stored_states
        self.are_exact = precision.stored_states == "float32" and self._rounding.changes_nothing
        if self._stored == "int8":
            _low_bit()  # fails here rather than in the first step

    def zeros(self, like: torch.Tensor, key: str) -> State:
        """A new state: its tensors by name. What is ``key`` alone has the shape of ``like``."""
        if self._is_coded(like):
            num_blocks = -(-like.numel() // BLOCK)
            zero = int((_levels(key, like.device) == 0).nonzero())
            codes = torch.full((num_blocks * BLOCK,), zero, dtype=torch.uint8, device=like.device)
            scales = torch.zeros(num_blocks, device=like.device)
            return {f"{key}/codes": codes, f"{key}/scales": scales}
        dtype = torch.float32 if self._stored == "float32" else torch.bfloat16
        return {key: torch.zeros_like(like, dtype=dtype)}

    def read(self, state: State, key: str, first: int, end: int) -> torch.Tensor:
        """Elements ``first`` to ``end`` of a flattened state; float32, a view where it is kept so.

        Args:
            state: of a tensor.
            key: of the state.
            first: a multiple of ``BLOCK``.
            end: after the last one.
        """
        if key in state:
            return state[key].view(-1)[first:end].float()
        blocks = slice(first // BLOCK, -(-end // BLOCK))
        codes = state[f"{key}/codes"].view(-1, BLOCK)[blocks].reshape(-1)
        read = _low_bit().dequant_with_qmap(
            codes, _levels(key, codes.device), state[f"{key}/scales"][blocks]
        )
        # of squares the roots are coded: what is small beside its block's largest would be 0 else,
        # and a step divided by it huge
        return (read.square_() if key in SQUARES else read)[: end - first]

    def write(
        self,
        state: State,
        key: str,
        values: torch.Tensor,
        first: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """Keep elements from ``first`` on: (N,) float32, what ``read`` gave, changed."""
        self._keep(state, key, round_(values, self._rounding, generator), first)

    def _keep(self, state: State, key: str, values: torch.Tensor, first: int) -> None:
        if key in state:
            state[key].view(-1)[first : first + len(values)].copy_(values)
            return
        for start in range(0, len(values), CHUNK):  # bounds what coding needs beside the codes
            part = values[start : start + CHUNK]
            part = part.sqrt() if key in SQUARES else part
            padded = torch.nn.functional.pad(part, (0, -len(part) % BLOCK))
            begin = (first + start) // BLOCK
            blocks = slice(begin, begin + len(padded) // BLOCK)
            scaled, scales = _low_bit().scale_tensor(padded, BLOCK)
            codes = _low_bit().quantize_8bit_with_qmap(scaled, _levels(key, padded.device))
            state[f"{key}/codes"].view(-1, BLOCK)[blocks] = codes.view(-1, BLOCK)
            state[f"{key}/scales"][blocks] = scales

    def expand(self, state: State, key: str, like: torch.Tensor) -> None:
        """Put the state in float32 beside its codes, for those who read it whole."""
        if key not in state:
            state[key] = self.read(state, key, 0, like.numel()).view_as(like)

    def collapse(self, state: State, key: str) -> None:
        """Undo ``expand``, keeping what the state has become."""
        if f"{key}/codes" in state:
            values = state.pop(key)
            self._keep(state, key, values.reshape(-1), 0)  # they were rounded when they came to be

    def _is_coded(self, tensor: torch.Tensor) -> bool:
        return self._stored == "int8" and tensor.numel() >= _SMALL


def bytes_per_parameter(stored: Literal["float32", "bfloat16", "int8"]) -> float:
    """Of one state."""
    return {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0 + 4.0 / BLOCK}[stored]


def _levels(key: str, device: torch.device) -> torch.Tensor:
    """(256,) what the codes stand for; roots of squares have no sign."""
    found = _LEVELS.get((key, device))
    if found is None:
        levels = _low_bit().create_dynamic_map(signed=key not in SQUARES)
        found = _LEVELS[key, device] = torch.tensor(levels, device=device)
    return found


_LEVELS: dict[tuple[str, torch.device], torch.Tensor] = {}


def _low_bit() -> Any:
    """The 8-bit numbers of torchao.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from torchao.optim import quant_utils
    except ImportError as error:
        raise ConfigError(
            "8-bit optimiser states need torchao, which is not installed on this machine",
            cause="pip install -c constraints.txt 'mmtpp[lowbit]' on every machine",
            setting="precision.stored_states = int8",
        ) from error
    return quant_utils
