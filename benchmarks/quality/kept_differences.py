"""Paired differences that were computed before: the sums by sequence stay on one machine.

``differences.jsonl`` has one line for each pair of models of a set, as it was last computed. A line
counts only as long as both models have the mean NLL that they had then.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.quality.differences import Difference

_ROUNDING = 1e-3  # nats an event


@dataclass(frozen=True, slots=True)
class KeptDifference:
    """A difference with the pair that it is of.

    Attributes:
        set: Name of the data set.
        first: Name of the first model.
        second: Name of the second model.
        mean_nll: Mean NLL of both models over their seeds, in nats per event.
        difference: The difference.
    """

    set: str
    first: str
    second: str
    mean_nll: tuple[float, float]
    difference: Difference

    def is_of(self, mean_nll: tuple[float, float]) -> bool:
        """Whether the models still have the means that the difference is of.

        Args:
            mean_nll: Present mean NLL of both models.
        """
        deviations = [abs(then - now) for then, now in zip(self.mean_nll, mean_nll, strict=True)]
        return max(deviations) < _ROUNDING


def read_kept(path: Path) -> list[KeptDifference]:
    """Read the kept differences; none if there is no file."""
    if not path.exists():
        return []
    trees = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [
        KeptDifference(
            tree["set"],
            tree["first"],
            tree["second"],
            tuple(tree["mean_nll"]),
            Difference(**tree["difference"]),
        )
        for tree in trees
    ]


def write_kept(path: Path, kept: Sequence[KeptDifference]) -> None:
    """Write the kept differences."""
    lines = [json.dumps(asdict(difference)) + "\n" for difference in kept]
    path.write_text("".join(lines), encoding="utf-8")
