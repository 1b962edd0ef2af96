"""The result of one check."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        about: Subject of the check, one or two words.
        status: ``failure`` if jobs cannot run; ``warning`` if they run with limitations.
        what: Observed state of the subject.
        fix: Instruction that solves the problem; empty without a problem.
    """

    about: str
    status: Status
    what: str
    fix: str = ""
