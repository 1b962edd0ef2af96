"""The parts of the start-up of a training, from the job to its first update.

The driver and the first worker each add the parts that they do. The times are those of the clocks
of their machines.
"""

import time
from dataclasses import dataclass, replace

import psutil

PREFIX, TOTAL = "start_up/", "total"


@dataclass(frozen=True, slots=True)
class StartUp:
    """A start-up so far.

    Attributes:
        began_at: Beginning of the first part, in seconds since 1970.
        ends: Name and end of each part, in order; ends in seconds since 1970.
    """

    began_at: float
    ends: tuple[tuple[str, float], ...] = ()

    @classmethod
    def begin(cls) -> "StartUp":
        """A start-up that begins now."""
        return cls(time.time())

    def with_part(self, part: str, *, at: float | None = None) -> "StartUp":
        """The start-up with a further part, which has just ended.

        Args:
            part: Name of the part.
            at: End of the part in seconds since 1970, not before that of the part before; None for
                now.
        """
        end = max(self._end, time.time() if at is None else at)
        return replace(self, ends=(*self.ends, (part, end)))

    def in_worker(self, *, resumes: bool) -> "StartUp":
        """The start-up when the function of this worker is called.

        A worker that resumes may have started long after the driver, so it counts its own parts
        only.

        Args:
            resumes: Whether the run has a checkpoint.
        """
        process_began_at = psutil.Process().create_time()
        if resumes:
            return StartUp(process_began_at).with_part("processes")
        return self.with_part("scheduling", at=process_began_at).with_part("processes")

    def metrics(self) -> dict[str, float]:
        """Seconds of each part and of all parts, by the name of the metric."""
        begins = [self.began_at, *(end for _, end in self.ends)]
        seconds = {part: end - begin for (part, end), begin in zip(self.ends, begins, strict=False)}
        seconds[TOTAL] = self._end - self.began_at
        return {f"{PREFIX}{part}_s": value for part, value in seconds.items()}

    def __str__(self) -> str:
        seconds = {
            name.removeprefix(PREFIX).removesuffix("_s"): value
            for name, value in self.metrics().items()
        }
        total = seconds.pop(TOTAL)
        parts = ", ".join(f"{part} {value:.1f}" for part, value in seconds.items())
        return f"{total:.1f} s ({parts})"

    @property
    def _end(self) -> float:
        return self.ends[-1][1] if self.ends else self.began_at
