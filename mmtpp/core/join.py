"""Sequences whose events lie in several files: one sequence of all their events."""

from collections.abc import Sequence

import numpy as np

from mmtpp.core.events import EventSequence


def join_pieces(pieces: Sequence[EventSequence]) -> EventSequence:
    """One sequence with the events of all pieces, in order of time.

    Events at the same time stay in the order of the pieces, and within a piece in its order. No
    event is dropped, also if two pieces have equal ones.

    Args:
        pieces: Pieces of a sequence, at least one, in the order of their files.
    """
    if len(pieces) == 1:
        return pieces[0]
    times = np.concatenate([piece.times for piece in pieces])
    types = np.concatenate([piece.types for piece in pieces])
    texts: list[str] = [text for piece in pieces for text in piece.texts]
    images: list[str | None] = [image for piece in pieces for image in piece.images]
    if (np.diff(times) < 0).any():
        order = np.argsort(times, kind="stable")
        times, types = times[order], types[order]
        texts = [texts[index] for index in order]
        images = [images[index] for index in order]
    return EventSequence(
        sequence_id=pieces[0].sequence_id,
        times=times,
        types=types,
        texts=tuple(texts),
        images=tuple(images),
        questions=tuple(question for piece in pieces for question in piece.questions),
    )
