"""Small versions of the data sets: 20 drawn training sequences and the original held-out ones."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.quality.converted import write_lines
from benchmarks.quality.sets import DataSet
from mmtpp import load_sequences
from mmtpp.api.sequences import Sequences
from mmtpp.core.events import EventSequence
from mmtpp.core.seeds import seed_from

MIN_EVENTS = 2  # a sequence of one event has no target


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of a draw.

    Attributes:
        num_training: Number of drawn sequences.
        num_validation: Number of the drawn sequences that are for validation.
        max_events: Maximum number of events of a drawn sequence.
        max_held_out: Maximum number of held-out sequences.
        max_held_out_events: Maximum number of events of a held-out sequence.
    """

    num_training: int = 20
    num_validation: int = 3
    max_events: int = 64
    max_held_out: int = 60
    max_held_out_events: int = 256


LITTLE = Limits()


@dataclass(frozen=True, slots=True)
class Draw:
    """One draw of the training sequences of a data set.

    Attributes:
        set: Name of the data set.
        number: Number of the draw, at least 0.
        held_out: Split of the full store whose sequences test the models: ``test``, or
            ``validation`` to choose settings without the test sequences.
        limits: Numbers of sequences and events.
    """

    set: str
    number: int
    held_out: str = "test"
    limits: Limits = LITTLE

    @property
    def name(self) -> str:
        """Name of the store and of the records."""
        return f"{self.set}_little_{self.held_out}_{self.number}"


def publish_draw(store_uri: str, draw: Draw, folder: Path) -> DataSet:
    """Write the sequences of a draw as JSON lines, and describe them as a data set.

    The images are left out; times, types and texts are those of the store.

    Args:
        store_uri: The prepared store of the full data set.
        draw: The draw.
        folder: Folder for the file.
    """
    training = load_sequences(store_uri, split="train")
    held_out = load_sequences(store_uri, split=draw.held_out)
    write_lines(folder / "sequences.jsonl", _lines(training, held_out, draw))
    columns = {name: name for name in ("time", "sequence", "type", "text", "split")}
    time_format = "epoch_s" if training.times_are_dates else "number"
    source = {
        "kind": "columns",
        "uri": str(folder),
        "seconds_per_unit": training.seconds_per_unit,
        "types": training.type_names,
        "columns": {**columns, "time_format": time_format},
    }
    settings = {"source": source, "split": {"by": "given"}}
    return DataSet(draw.name, settings, has_images=False, delta=0.0)


def draw_sequences(
    sequences: Iterable[EventSequence], draw: int, limits: Limits = LITTLE
) -> list[EventSequence]:
    """Draw training sequences, in the order of a stable hash.

    Of a sequence with too many events, consecutive events are kept, from an event that the hash
    chooses too.

    Args:
        sequences: Sequences to draw from; those of less than two events are never drawn.
        draw: Number of the draw.
        limits: Numbers of sequences and events.
    """
    long_enough = [sequence for sequence in sequences if len(sequence) >= MIN_EVENTS]
    chosen = _in_hashed_order(long_enough, draw)[: limits.num_training]
    return [_shorten(sequence, limits.max_events, draw) for sequence in chosen]


def held_out_sequences(
    sequences: Iterable[EventSequence], limits: Limits = LITTLE
) -> list[EventSequence]:
    """Held-out sequences, the same for every draw, as few as the limits say.

    Of a sequence with too many events, consecutive events are kept.
    """
    long_enough = [sequence for sequence in sequences if len(sequence) >= MIN_EVENTS]
    chosen = _in_hashed_order(long_enough, "held out")[: limits.max_held_out]
    return [_shorten(sequence, limits.max_held_out_events, "held out") for sequence in chosen]


def _in_hashed_order(sequences: Sequence[EventSequence], key: object) -> list[EventSequence]:
    return sorted(sequences, key=lambda sequence: seed_from("little", key, sequence.sequence_id))


def _shorten(sequence: EventSequence, max_events: int, key: object) -> EventSequence:
    num_starts = max(0, len(sequence) - max_events) + 1
    start = seed_from("little", "start", key, sequence.sequence_id) % num_starts
    return replace(sequence.slice(start, start + max_events), questions=())


def _lines(training: Sequences, held_out: Sequences, draw: Draw) -> Iterator[dict[str, object]]:
    # columns of dates are in seconds, other times in the unit of the source
    scale = training.seconds_per_unit if training.times_are_dates else 1.0
    limits = draw.limits
    drawn = draw_sequences(training, draw.number, limits)
    num_validation = limits.num_validation
    splits = ["validation"] * num_validation + ["train"] * (len(drawn) - num_validation)
    tested = held_out_sequences(held_out, limits)
    for sequence, split in zip([*drawn, *tested], [*splits, *["test"] * len(tested)], strict=True):
        names = training.type_names
        types = sequence.types.tolist()
        yield {
            "sequence": sequence.sequence_id,
            "split": split,
            "time": (sequence.times * scale).tolist(),
            "type": [names[code] for code in types] if names else types,
            "text": list(sequence.texts),
        }
