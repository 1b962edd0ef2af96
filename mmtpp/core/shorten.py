"""Texts that are longer than a context takes, cut to a number of tokens."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mmtpp.core.events import Events
from mmtpp.core.window import EventTooLongError

Cut = TypeVar("Cut")


def shorten(events: Events, longest: int | None, *, to: int | None = None) -> Events:
    """Cut long texts to their first tokens.

    Args:
        events: E events, with or without their token ids.
        longest: tokens of the longest text that is left whole, 0 or more; None cuts nothing.
        to: tokens that are left of a longer text, where that is less than ``longest``.

    Returns:
        The same events, the same object where no text is longer.
    """
    lengths = np.diff(events.text_offsets)
    if longest is None or not (lengths > longest).any():
        return events
    kept = np.where(lengths > longest, longest if to is None else min(longest, to), lengths)
    offsets = np.append(0, np.cumsum(kept))
    ids = events.text_ids
    if len(ids):
        within = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], kept)
        ids = ids[np.repeat(events.text_offsets[:-1], kept) + within]
    return replace(events, text_ids=ids, text_offsets=offsets)


def shorten_to_fit(events: Events, longest: int | None, *, max_tokens: int) -> Events:
    """Cut texts of more than ``longest`` tokens, to at most half of the context.

    The other half is for the events before, so that the model sees more than one.
    """
    return shorten(events, longest, to=max_tokens // 2)


def fit_texts(
    events: Events, cut: Callable[[Events], Cut], *, max_tokens: int
) -> tuple[Cut, int | None]:
    """Cut events into windows; where an event does not fit, shorten texts until all events do.

    Args:
        events: E events with their similar marks.
        cut: cuts events into windows, or raises an ``EventTooLongError``.
        max_tokens: the context.

    Returns:
        The windows, and the largest ``longest`` of ``shorten_to_fit`` with which every event fits;
        None where every event fits as it is.

    Raises:
        EventTooLongError: an event without its text does not fit either.
    """
    try:
        return cut(events), None
    except EventTooLongError:
        fits = 0
        found = cut(shorten(events, fits))
    does_not_fit = int(np.diff(events.text_offsets).max())
    while fits + 1 < does_not_fit:
        longest = (fits + does_not_fit) // 2
        try:
            found = cut(shorten_to_fit(events, longest, max_tokens=max_tokens))
            fits = longest
        except EventTooLongError:
            does_not_fit = longest
    return found, fits
