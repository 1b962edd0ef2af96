"""Losses by rejected records: sequences without their newest event, or without any event."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmtpp.core.events import Rejected

MAX_NAMED = 20


def by_sequence(rejected: Iterable[Rejected]) -> dict[str, list[Rejected]]:
    """Records by the name of their sequence; those of unknown sequences under the empty name."""
    found: dict[str, list[Rejected]] = {}
    for record in rejected:
        found.setdefault(record.sequence_id, []).append(record)
    return found


def newest_rejected(records: Sequence[Rejected], last_time: float) -> str:
    """Cause for which the newest event of a sequence was rejected.

    A record is newer than the kept events by its time; where the time cannot be read or is that of
    the newest kept event, by its position in the file.

    Args:
        records: rejected records of the sequence.
        last_time: time of the newest kept event.

    Returns:
        The cause of the newest record; empty where a kept event is newer than all records.
    """
    newer = [
        record
        for record in records
        if (record.is_last if record.time in (None, last_time) else record.time > last_time)
    ]
    times = [(last_time if each.time is None else each.time, each.row) for each in newer]
    return newer[times.index(max(times))].cause if newer else ""


@dataclass(frozen=True, slots=True)
class Losses:
    """Sequences and files that lost their newest event, or all of their events.

    Attributes:
        newest: cause for which the newest event was rejected, by sequence.
        gone: names of the sequences of which no event was kept.
        files: paths of the files that could not be read at all.
        unknown: number of records that do not say to which sequence they belong.
    """

    newest: Mapping[str, str]
    gone: tuple[str, ...]
    files: tuple[str, ...]
    unknown: int = 0

    @classmethod
    def of(cls, rejected: Iterable[Rejected], last_times: Mapping[str, float]) -> "Losses":
        """Find the losses.

        Args:
            rejected: all rejected records.
            last_times: time of the newest kept event, for every sequence that has one; sequences
                without rejected records may be missing.
        """
        found = by_sequence(rejected)
        files = [each.path for records in found.values() for each in records if each.row < 0]
        unknown = sum(each.row >= 0 for each in found.pop("", []))
        newest = {
            name: newest_rejected(records, last_times[name])
            for name, records in found.items()
            if name in last_times
        }
        return cls(
            {name: cause for name, cause in sorted(newest.items()) if cause},
            tuple(sorted(set(found) - set(last_times))),
            tuple(sorted(set(files))),
            unknown,
        )

    def __bool__(self) -> bool:
        return bool(self.newest or self.gone or self.files or self.unknown)

    def report(self) -> dict[str, object]:
        """Counts and the first ``MAX_NAMED`` names, as JSON values."""
        return {
            "newest_event_rejected": len(self.newest),
            "newest_event_rejected_of": dict(list(self.newest.items())[:MAX_NAMED]),
            "sequences_without_events": len(self.gone),
            "sequences_without_events_are": list(self.gone[:MAX_NAMED]),
            "files_rejected": len(self.files),
            "files_rejected_are": list(self.files[:MAX_NAMED]),
            "rejected_of_unknown_sequence": self.unknown,
        }

    def sentences(self) -> list[str]:
        """One sentence for each kind of loss, with the first names."""
        newest = [f"{name!r} ({cause})" for name, cause in self.newest.items()]
        kinds = (
            ("sequences whose newest event was rejected", newest),
            ("sequences without any event that was kept", [repr(name) for name in self.gone]),
            ("files that could not be read", [repr(path) for path in self.files]),
        )
        found = [f"{kind}: {_named(names)}" for kind, names in kinds if names]
        if self.unknown:
            found.append(f"rejected records that name no sequence: {self.unknown:,}")
        return found


def _named(names: list[str]) -> str:
    more = f", and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return f"{len(names):,}, {', '.join(names[:MAX_NAMED])}{more}"
