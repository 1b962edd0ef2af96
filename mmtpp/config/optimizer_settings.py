"""Settings of the optimiser and of its number formats."""

import math
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from mmtpp.config.affects import Affects
from mmtpp.config.section import Fraction, Section
from mmtpp.config.update_rules import UPDATE_RULES, Direction, UpdateRule


def _named_infinity(value: object) -> object:
    return "inf" if value == math.inf else value


Exponent = Annotated[
    Literal["inf"] | Annotated[float, Field(ge=1)], BeforeValidator(_named_infinity)
]


Geometry = Literal["entrywise", "schatten"]
StoredStates = Literal["float32", "bfloat16", "int8"]


class OptimizerSection(Section):
    """The update rule. Learning rate and weight decay are settings of ``training``."""

    name: Annotated[Literal["adamw", "muon", "signsgd", "signum", "steepest"], Affects.RUN] = (
        "adamw"
    )
    """Update rule. ``adamw``; ``muon``: the orthogonalised momentum for each hidden matrix, LoRA's
    included, and AdamW for all other tensors; ``signsgd``: the sign of the gradient; ``signum``:
    the sign of the momentum; ``steepest``: steepest descent in the norm of ``geometry`` and
    ``p``."""
    beta1: Annotated[Fraction, Affects.RUN] = 0.9
    """Decay of AdamW's first moment, at least 0 and less than 1."""
    beta2: Annotated[Fraction, Affects.RUN] = 0.95
    """Decay of AdamW's second moment, at least 0 and less than 1."""
    momentum: Annotated[Fraction, Affects.RUN] = 0.95
    """Decay of the momentum of ``muon``, ``signum`` and ``steepest``, at least 0 and less than 1; 0
    for no momentum."""
    nesterov: Annotated[bool, Affects.RUN] = True
    """Whether the momentum is Nesterov's; ``muon`` only."""
    geometry: Annotated[Geometry, Affects.RUN] = "schatten"
    """Values whose norm is taken: a tensor's entries, or the singular values of a hidden matrix
    (AdamW then updates all other tensors); ``steepest`` only."""
    p: Annotated[Exponent, Affects.RUN] = "inf"
    """Exponent of the norm, at least 1, or "inf"; ``steepest`` only. Entrywise: inf is the sign, 2
    the normalised gradient, 1 its largest entry. Schatten: inf is exactly Muon, 2 is like
    entrywise."""
    match_rms: Annotated[bool, Affects.RUN] = True
    """Whether each tensor's update is scaled to a root mean square of 0.2, about AdamW's, so that
    learning rates carry over; ``muon`` always does this. False scales to norm 1; ``steepest``
    only."""
    variance_reduction: Annotated[bool, Affects.RUN] = False
    """Whether the momentum is corrected by the gradient of the same samples at the previous weights
    (STORM), at twice the time and one more copy of the trained weights. Not for ``adamw`` and
    ``signsgd``."""

    @model_validator(mode="after")
    def _reduces_variance_of_momentum(self) -> "OptimizerSection":
        allows = self.rule.allows_variance_reduction and self.momentum > 0
        if self.variance_reduction and not allows:
            raise ValueError(
                "variance_reduction corrects a momentum: it needs name = muon, signum or steepest "
                f"with momentum above 0; here name = {self.name}, momentum = {self.momentum:g}"
            )
        return self

    @property
    def rule(self) -> UpdateRule:
        """The rule that ``name`` means with these settings."""
        rule = UPDATE_RULES[self.name]
        if rule.direction is not Direction.STEEPEST:
            return rule
        if self.geometry == "schatten":
            return replace(rule, only_hidden_matrices=True)
        return replace(rule, direction=Direction.SIGN) if self.p == "inf" else rule

    @property
    def has_momentum(self) -> bool:
        """Whether a tensor that AdamW does not update has a momentum."""
        return self.rule.has_momentum and self.momentum > 0


class RoundingSection(Section):
    """Simulated rounding to a floating-point format with fewer bits."""

    mantissa_bits: Annotated[int, Field(ge=0, le=23), Affects.RUN] = 23
    """Number of stored bits of the mantissa, 0 to 23: 23 for float32, 7 for bfloat16, 3 for float8
    e4m3."""
    exponent_bits: Annotated[int, Field(ge=2, le=8), Affects.RUN] = 8
    """Number of bits of the exponent, 2 to 8: 8 for float32 and bfloat16. Values out of range
    become the largest value."""
    mode: Annotated[Literal["nearest", "stochastic"], Affects.RUN] = "nearest"
    """Direction of rounding. ``nearest``: to the nearest value, ties to even; ``stochastic``: up or
    down at random, unbiased."""

    @model_validator(mode="after")
    def _has_something_to_round(self) -> "RoundingSection":
        if self.mode == "stochastic" and self.changes_nothing:
            raise ValueError(
                "mode = stochastic rounds nothing at float32's mantissa_bits = 23, exponent_bits = "
                "8: lower one of them"
            )
        return self

    @property
    def changes_nothing(self) -> bool:
        """Whether float32 values stay unchanged."""
        return self.mantissa_bits == 23 and self.exponent_bits == 8


class OptimizerPrecisionSection(Section):
    """Number formats of the optimiser. ``model.precision`` is the format of the model."""

    gradients: RoundingSection = RoundingSection()
    """Rounding of gradients, after clipping."""
    weights: RoundingSection = RoundingSection()
    """Rounding of trained weights, after every update."""
    states: RoundingSection = RoundingSection()
    """Rounding of momentum and moments, after every update."""
    stored_states: Annotated[StoredStates, Affects.RUN] = "float32"
    """Storage format of momentum and moments: 4, 2 or 1 bytes. ``int8`` uses blocks of 256 values
    with a scale each, and bfloat16 for tensors of fewer than 4,096 values; it needs the extra
    ``lowbit``."""

    @model_validator(mode="after")
    def _rounds_states_once(self) -> "OptimizerPrecisionSection":
        if self.stored_states != "float32" and not self.states.changes_nothing:
            raise ValueError(
                "states are either stored in fewer bits or rounded as if they were: "
                f"stored_states = {self.stored_states} with states.mantissa_bits = "
                f"{self.states.mantissa_bits}, states.exponent_bits = {self.states.exponent_bits}"
            )
        return self
