"""Summary of rejected records: which sequences lost their newest event, or all their events."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mmtpp.core.events import Rejected

MAX_NAMED = 20


def rejected_by_sequence(rejected: Iterable[Rejected]) -> dict[str, list[Rejected]]:
    """Group records by their sequence; the empty name holds records of unknown sequences."""
    groups: dict[str, list[Rejected]] = {}
    for record in rejected:
        groups.setdefault(record.sequence_id, []).append(record)
    return groups


def newest_rejection_cause(records: Sequence[Rejected], last_time: float) -> str:
    """The cause why the newest event of a sequence was rejected.

    Records and kept events are compared by their times. A record without a readable time, or with
    the time of the newest kept event, is compared by its position in the file.

    Args:
        records: Rejected records of the sequence.
        last_time: Time of the newest kept event.

    Returns:
        The cause of the newest record; empty if a kept event is newer than all records.
    """
    newer = [
        record
        for record in records
        if (record.is_last if record.time in (None, last_time) else record.time > last_time)
    ]
    keys = [(last_time if record.time is None else record.time, record.row) for record in newer]
    return newer[keys.index(max(keys))].cause if newer else ""


@dataclass(frozen=True, slots=True)
class RejectionSummary:
    """Sequences and files that lost their newest event or all their events.

    Attributes:
        newest_causes: Cause why the newest event was rejected, by sequence.
        empty_sequences: Names of the sequences without any event that was kept.
        unreadable_files: Paths of the files that could not be read at all.
        num_unknown: Number of records that do not name their sequence.
    """

    newest_causes: Mapping[str, str]
    empty_sequences: tuple[str, ...]
    unreadable_files: tuple[str, ...]
    num_unknown: int = 0

    @classmethod
    def from_records(
        cls, rejected: Iterable[Rejected], last_times: Mapping[str, float]
    ) -> "RejectionSummary":
        """Summarise rejected records.

        Args:
            rejected: All rejected records.
            last_times: Time of the newest kept event, by sequence. A sequence without kept events
                has none; a sequence without rejected records may be missing.
        """
        groups = rejected_by_sequence(rejected)
        files = [record.path for records in groups.values() for record in records if record.row < 0]
        num_unknown = sum(record.row >= 0 for record in groups.pop("", []))
        causes = {
            name: newest_rejection_cause(records, last_times[name])
            for name, records in groups.items()
            if name in last_times
        }
        return cls(
            {name: cause for name, cause in sorted(causes.items()) if cause},
            tuple(sorted(set(groups) - set(last_times))),
            tuple(sorted(set(files))),
            num_unknown,
        )

    def __bool__(self) -> bool:
        return bool(
            self.newest_causes or self.empty_sequences or self.unreadable_files or self.num_unknown
        )

    def report(self) -> dict[str, object]:
        """Counts and the first ``MAX_NAMED`` names, as JSON values."""
        return {
            "newest_event_rejected": len(self.newest_causes),
            "newest_event_rejected_of": dict(list(self.newest_causes.items())[:MAX_NAMED]),
            "sequences_without_events": len(self.empty_sequences),
            "sequences_without_events_are": list(self.empty_sequences[:MAX_NAMED]),
            "files_rejected": len(self.unreadable_files),
            "files_rejected_are": list(self.unreadable_files[:MAX_NAMED]),
            "rejected_of_unknown_sequence": self.num_unknown,
        }

    def sentences(self) -> list[str]:
        """One sentence for each loss that occurred, with the first names."""
        newest = [f"{name!r} ({cause})" for name, cause in self.newest_causes.items()]
        losses = (
            ("sequences whose newest event was rejected", newest),
            (
                "sequences without any event that was kept",
                [repr(name) for name in self.empty_sequences],
            ),
            ("files that could not be read", [repr(path) for path in self.unreadable_files]),
        )
        sentences = [f"{loss}: {_first_names(names)}" for loss, names in losses if names]
        if self.num_unknown:
            sentences.append(f"rejected records that name no sequence: {self.num_unknown:,}")
        return sentences


def _first_names(names: list[str]) -> str:
    more = f", and {len(names) - MAX_NAMED:,} more" if len(names) > MAX_NAMED else ""
    return f"{len(names):,}, {', '.join(names[:MAX_NAMED])}{more}"
