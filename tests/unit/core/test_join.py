"""Pieces of a sequence, joined in order of time."""

import numpy as np

from mmtpp.core.events import EventSequence
from mmtpp.core.join import join_pieces


def _piece(*events: tuple[float, int, str, str | None]) -> EventSequence:
    """A piece of these events: time, type, text, image."""
    times, types, texts, images = zip(*events, strict=True)
    return EventSequence("a", np.array(times), np.array(types, dtype=np.int16), texts, images)


def _events(sequence: EventSequence) -> list[tuple]:
    columns = (sequence.times.tolist(), sequence.types.tolist(), sequence.texts, sequence.images)
    return list(zip(*columns, strict=True))


def test_pieces_in_order_of_time_are_only_put_together():
    pieces = [_piece((0.0, 1, "x", None)), _piece((0.0, 2, "y", "i"))]
    assert _events(join_pieces(pieces)) == [(0.0, 1, "x", None), (0.0, 2, "y", "i")]
    assert _events(join_pieces(pieces[::-1])) == [(0.0, 2, "y", "i"), (0.0, 1, "x", None)]


def test_all_columns_of_pieces_follow_their_times():
    day, night = _piece((1.0, 1, "b", None), (3.0, 3, "d", "i")), _piece((0.0, 0, "a", "j"))
    evening = _piece((3.0, 4, "e", None), (2.0, 2, "c", "k"))
    joined = join_pieces([day, night, evening])
    assert _events(joined) == [
        (0.0, 0, "a", "j"),
        (1.0, 1, "b", None),
        (2.0, 2, "c", "k"),
        (3.0, 3, "d", "i"),
        (3.0, 4, "e", None),
    ]
    assert joined.sequence_id == "a"
