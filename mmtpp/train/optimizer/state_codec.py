"""How momentum and moments are kept between updates: in 4, 2 or 1 bytes."""

from typing import Any

import torch

from mmtpp.config.optimizer_settings import StoredStates
from mmtpp.config.schema import OptimizerPrecisionSection
from mmtpp.core.errors import ConfigError
from mmtpp.experiments.rounding import round_

State = dict[str, torch.Tensor]
# Elements computed at once from states that are not float32; a multiple of BLOCK.
CHUNK = 2**24
BLOCK = 256  # 8-bit numbers that share a scale
SQUARES = ("exp_avg_sq",)  # states that are averages of squares
# number of elements; 8 bits of a smaller tensor save too little memory for the error they cause
_MIN_CODED = 4096


class StateCodec:
    """Converts an optimiser's states between float32 and their stored precision.

    Args:
        optimizer_precision: Stored type and simulated rounding of the states.
    """

    def __init__(self, optimizer_precision: OptimizerPrecisionSection) -> None:
        self._rounding = optimizer_precision.states
        self._stored = optimizer_precision.stored_states
        self.is_exact = (
            optimizer_precision.stored_states == "float32" and self._rounding.changes_nothing
        )
        if self._stored == "int8":
            _quantization()  # fails here rather than in the first step

    def zeros(self, like: torch.Tensor, key: str) -> State:
        """A new state of zeros.

        Args:
            like: Tensor that the state belongs to.
            key: Name of the state.

        Returns:
            The state's tensors by name: one tensor ``key`` shaped like ``like``, or codes and
            scales.
        """
        if self._is_coded(like):
            num_blocks = -(-like.numel() // BLOCK)
            zero = int((_levels(key, like.device) == 0).nonzero())
            codes = torch.full((num_blocks * BLOCK,), zero, dtype=torch.uint8, device=like.device)
            scales = torch.zeros(num_blocks, device=like.device)
            return {f"{key}/codes": codes, f"{key}/scales": scales}
        dtype = torch.float32 if self._stored == "float32" else torch.bfloat16
        return {key: torch.zeros_like(like, dtype=dtype)}

    def read(self, state: State, key: str, first: int, end: int) -> torch.Tensor:
        """Elements ``first`` to ``end - 1`` of a flattened state as float32.

        The result is a view where the state is kept in float32.

        Args:
            state: All states of a tensor.
            key: Name of the state.
            first: Index of the first element, a multiple of ``BLOCK``.
            end: Index after the last element.
        """
        if key in state:
            return state[key].view(-1)[first:end].float()
        blocks = slice(first // BLOCK, -(-end // BLOCK))
        codes = state[f"{key}/codes"].view(-1, BLOCK)[blocks].reshape(-1)
        values = _quantization().dequant_with_qmap(
            codes, _levels(key, codes.device), state[f"{key}/scales"][blocks]
        )
        # Squares are stored as codes of their roots. Otherwise a square much smaller than the
        # largest square of its block would become 0. AdamW divides by it, so the update would be
        # far too large.
        return (values.square_() if key in SQUARES else values)[: end - first]

    def write(
        self,
        state: State,
        key: str,
        values: torch.Tensor,
        first: int,
        generator: torch.Generator | None = None,
    ) -> None:
        """Round values and keep them as elements of a flattened state.

        Args:
            state: All states of a tensor.
            key: Name of the state.
            values: (N,) float32; may be the view that ``read`` returned.
            first: Index of the first element, a multiple of ``BLOCK``.
            generator: Random generator of stochastic rounding.
        """
        self._store(state, key, round_(values, self._rounding, generator), first)

    def decode(self, state: State, key: str, like: torch.Tensor) -> None:
        """Add the state in floating point under its name, next to its codes."""
        if key not in state:
            state[key] = self.read(state, key, 0, like.numel()).view_as(like)

    def encode(self, state: State, key: str) -> None:
        """Undo ``decode``: keep the present values as codes only."""
        if f"{key}/codes" in state:
            values = state.pop(key)
            self._store(state, key, values.reshape(-1), 0)  # not rounded again: they already are

    def _store(self, state: State, key: str, values: torch.Tensor, first: int) -> None:
        if key in state:
            state[key].view(-1)[first : first + len(values)].copy_(values)
            return
        for start in range(0, len(values), CHUNK):  # bounds the memory that coding takes
            part = values[start : start + CHUNK]
            part = part.sqrt() if key in SQUARES else part
            padded = torch.nn.functional.pad(part, (0, -len(part) % BLOCK))
            first_block = (first + start) // BLOCK
            blocks = slice(first_block, first_block + len(padded) // BLOCK)
            scaled, scales = _quantization().scale_tensor(padded, BLOCK)
            codes = _quantization().quantize_8bit_with_qmap(scaled, _levels(key, padded.device))
            state[f"{key}/codes"].view(-1, BLOCK)[blocks] = codes.view(-1, BLOCK)
            state[f"{key}/scales"][blocks] = scales

    def _is_coded(self, tensor: torch.Tensor) -> bool:
        return self._stored == "int8" and tensor.numel() >= _MIN_CODED


def bytes_per_parameter(stored: StoredStates) -> float:
    """Bytes that one state takes per parameter."""
    return {"float32": 4.0, "bfloat16": 2.0, "int8": 1.0 + 4.0 / BLOCK}[stored]


def _levels(key: str, device: torch.device) -> torch.Tensor:
    """(256,) numbers that the codes stand for; roots of squares have no sign."""
    levels = _LEVELS.get((key, device))
    if levels is None:
        numbers = _quantization().create_dynamic_map(signed=key not in SQUARES)
        levels = _LEVELS[key, device] = torch.tensor(numbers, device=device)
    return levels


_LEVELS: dict[tuple[str, torch.device], torch.Tensor] = {}


def _quantization() -> Any:
    """torchao's functions for 8-bit numbers.

    Raises:
        ConfigError: torchao is not installed.
    """
    try:
        from torchao.optim import quant_utils
    except ImportError as error:
        raise ConfigError(
            "8-bit optimiser states need torchao, which is not installed on this machine",
            cause="install it on every machine: pip install -c constraints.txt 'mmtpp[lowbit]'",
            setting="optimizer_precision.stored_states = int8",
        ) from error
    return quant_utils
