"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        subject: Subject of the check, one or two words.
        status: ``failure`` if jobs cannot run; ``warning`` if they run with limitations.
        observed: Observed state of the subject.
        fix: Instruction that solves the problem; empty without a problem.
    """

    subject: str
    status: Status
    observed: str
    fix: str = ""
