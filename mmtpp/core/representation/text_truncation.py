"""Truncation of texts that are longer than a context allows."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np

from mmtpp.core.events import Events
from mmtpp.core.representation.window import EventTooLongError

Cut = TypeVar("Cut")


def truncate_texts(events: Events, longest: int | None, *, to: int | None = None) -> Events:
    """Truncate long texts to their first tokens.

    Args:
        events: E events, with or without their token ids.
        longest: Length of the longest text that stays whole, in tokens, 0 or more. None truncates
            no text.
        to: Number of tokens that a longer text keeps. None, or a number above ``longest``, keeps
            ``longest``.

    Returns:
        The events with their truncated texts; the same object if no text is longer.
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


def truncate_texts_to_fit(events: Events, longest: int | None, *, max_tokens: int) -> Events:
    """Truncate texts of more than ``longest`` tokens to at most half of the context.

    The other half holds earlier events, so that the model sees more than one event.
    """
    return truncate_texts(events, longest, to=max_tokens // 2)


def cut_with_truncation(
    events: Events, cut: Callable[[Events], Cut], *, max_tokens: int
) -> tuple[Cut, int | None]:
    """Cut events into windows; if an event does not fit, truncate texts until all events fit.

    Args:
        events: E events with their similar marks.
        cut: Function that cuts events into windows, or raises an ``EventTooLongError``.
        max_tokens: Length of the context, in tokens.

    Returns:
        windows: The result of ``cut``.
        longest: Largest ``longest`` of ``truncate_texts_to_fit`` with which every event fits; None
            if every event fits without truncation.

    Raises:
        EventTooLongError: An event does not fit even without its text.
    """
    try:
        return cut(events), None
    except EventTooLongError:
        fits = 0
        windows = cut(truncate_texts(events, fits))
    does_not_fit = int(np.diff(events.text_offsets).max())
    while fits + 1 < does_not_fit:
        longest = (fits + does_not_fit) // 2
        try:
            windows = cut(truncate_texts_to_fit(events, longest, max_tokens=max_tokens))
            fits = longest
        except EventTooLongError:
            does_not_fit = longest
    return windows, fits
