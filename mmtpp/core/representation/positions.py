"""Multimodal rotary positions (M-RoPE) of packed rows, vectorised."""

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.row import HISTORY, Branches


def mrope_positions(
    is_image_pad: NDArray[np.bool_], segment: NDArray[np.integer], *, image_side: int
) -> NDArray[np.int64]:
    """Time, height and width positions of all tokens; they restart at 0 in every segment.

    A text token takes one position in all three rows. An image of ``image_side`` x ``image_side``
    merged cells starts where the previous text ended: its time position is constant, height and
    width count rows and columns, and the next text starts ``image_side`` positions later.

    Args:
        is_image_pad: (T,) True at image placeholders; every image is whole and square.
        segment: (T,) packed window that a token belongs to; equal values are contiguous.
        image_side: Number of merged 28-pixel cells along one side of every image.

    Returns:
        (3, T) int64 positions.

    Source: Qwen2.5-VL (arXiv 2502.13923), still images; equal to ``get_rope_index`` of
        transformers, see tests/parity/test_model.py.
    """
    num_tokens = len(is_image_pad)
    cells = image_side * image_side
    within_image = (np.cumsum(is_image_pad) - 1) % cells  # meaningful at pads only
    advance = np.where(is_image_pad, np.where(within_image == 0, image_side, 0), 1)
    before = np.cumsum(advance) - advance
    starts = np.flatnonzero(np.diff(segment, prepend=segment[:1] - 1 if num_tokens else 0))
    lengths = np.diff(np.append(starts, num_tokens))
    text = before - np.repeat(before[starts], lengths)
    # all pads of an image share the position of its first
    base = np.where(is_image_pad & (within_image > 0), text - image_side, text)
    row, column = within_image // image_side, within_image % image_side
    return np.stack(
        [base, base + np.where(is_image_pad, row, 0), base + np.where(is_image_pad, column, 0)]
    ).astype(np.int64)


def branched_positions(
    is_image_pad: NDArray[np.bool_],
    segment: NDArray[np.integer],
    branches: Branches,
    *,
    image_side: int,
) -> NDArray[np.int64]:
    """Positions of a row with branches: a branch continues after the tokens that it sees.

    Args:
        is_image_pad: See ``mrope_positions``; an image lies within one history or branch.
        segment: See ``mrope_positions``.
        branches: Branches of the row.
        image_side: See ``mrope_positions``.

    Returns:
        (3, T) int64 positions.
    """
    is_history = branches.branch == HISTORY
    is_first = (np.diff(segment, prepend=-1) != 0) | (np.diff(branches.branch, prepend=-2) != 0)
    piece = np.cumsum(is_first) - 1  # index of the history or branch
    within = mrope_positions(is_image_pad, piece, image_side=image_side)
    highest = within.max(axis=0)
    # next position after a history token; an image ends at its largest position
    ends = np.where(is_history, highest, -1)
    step = len(segment) + 1  # separates the running maxima of the segments
    after = np.maximum.accumulate(ends + step * segment) - step * segment + 1
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    lengths = np.diff(np.append(starts, len(segment)))
    last_seen = np.repeat(starts, lengths) + branches.visible - 1
    after_history = np.where(~is_history & (branches.visible > 0), after[last_seen], 0)

    first = np.flatnonzero(is_first)
    sizes = np.maximum.reduceat(highest, first) + 1 if len(first) else highest
    piece_of = {
        key: index
        for index, key in enumerate(
            zip(segment[first].tolist(), branches.branch[first].tolist(), strict=True)
        )
    }
    offset = after_history[first]
    has_parent = (branches.branch[first] != HISTORY) & (branches.parent[first] != HISTORY)
    for index in np.flatnonzero(has_parent).tolist():  # a parent comes before its children
        parent = piece_of[int(segment[first[index]]), int(branches.parent[first[index]])]
        offset[index] = offset[parent] + sizes[parent]
    return within + offset[piece]
