"""What a check found."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        about: what was looked at, one or two words.
        status: ``failure`` where a job could not run; ``warning`` where it would run worse than it
            might.
        what: what there is.
        fix: what to do about it; empty when all is well.
    """

    about: str
    status: Status
    what: str
    fix: str = ""
