"""The update rules of the optimiser, as a table: everything that settings, training and the memory
plan need to know about a rule.
"""

from dataclasses import dataclass
from enum import Enum, auto


class Average(Enum):
    """Average of gradients from which a direction is computed."""

    NONE = auto()
    """The gradient itself."""
    MOMENTUM = auto()
    """The exponential moving average of the gradients, with the decay ``optimizer.momentum``."""
    NESTEROV = auto()
    """The same, or Nesterov's if ``optimizer.nesterov`` is set."""


class Direction(Enum):
    """Direction of an update."""

    ADAM = auto()
    """The first moment over the root of the second moment."""
    SIGN = auto()
    """The sign of the average."""
    ORTHOGONAL = auto()
    """The nearest orthogonal matrix of the average."""
    STEEPEST = auto()
    """Steepest descent in the norm of ``optimizer.geometry`` and ``optimizer.p``."""


@dataclass(frozen=True, slots=True)
class UpdateRule:
    """A rule that updates tensors.

    Attributes:
        direction: Direction of an update.
        average: Average of gradients from which the direction is computed.
        only_hidden_matrices: Whether AdamW updates all tensors except hidden matrices.
    """

    direction: Direction
    average: Average
    only_hidden_matrices: bool = False

    @property
    def has_moments(self) -> bool:
        """Whether AdamW updates some tensors, so that they have two moments."""
        return self.direction is Direction.ADAM or self.only_hidden_matrices

    @property
    def has_momentum(self) -> bool:
        """Whether the average is a state of each tensor."""
        return self.average is not Average.NONE

    @property
    def needs_matrices(self) -> bool:
        """Whether an update needs whole tensors instead of shards."""
        return self.direction in (Direction.ORTHOGONAL, Direction.STEEPEST)

    @property
    def allows_variance_reduction(self) -> bool:
        """Whether the average is a momentum that ``optimizer.variance_reduction`` can correct."""
        return self.average in (Average.MOMENTUM, Average.NESTEROV)


UPDATE_RULES = {
    "adamw": UpdateRule(Direction.ADAM, Average.NONE),
    "muon": UpdateRule(Direction.ORTHOGONAL, Average.NESTEROV, only_hidden_matrices=True),
    "signsgd": UpdateRule(Direction.SIGN, Average.NONE),
    "signum": UpdateRule(Direction.SIGN, Average.MOMENTUM),
    "steepest": UpdateRule(Direction.STEEPEST, Average.MOMENTUM),
}
"""The rules by ``optimizer.name``; ``OptimizerSection.rule`` adapts ``steepest`` to its norm."""
