"""Multimodal rotary positions (M-RoPE) of packed rows, vectorised."""

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.row import HISTORY, Branches


def mrope_positions(
    is_image_pad: NDArray[np.bool_], segment: NDArray[np.integer], *, image_side: int
) -> NDArray[np.int64]:
    """Time, height and width positions of each token, restarting at 0 in every segment.

    A text token takes one position in all three rows. An image of ``image_side`` x ``image_side``
    merged cells starts where the text before it ended: its time position is constant, height and
    width count rows and columns, and the text after it continues ``image_side`` later.

    Args:
        is_image_pad: (T,) True at image placeholders; every image is whole and square.
        segment: (T,) which packed window a token belongs to; equal values are contiguous.
        image_side: merged 28-pixel cells along one side of every image.

    Returns:
        (3, T) int64.

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
    """Positions of a row with branches: those that each branch would have after what it sees.

    Args:
        is_image_pad: see ``mrope_positions``; no image crosses the border of a branch.
        segment: see ``mrope_positions``.
        branches: of the row.
        image_side: see ``mrope_positions``.

    Returns:
        (3, T) int64.
    """
    history = branches.branch == HISTORY
    change = (np.diff(segment, prepend=-1) != 0) | (np.diff(branches.branch, prepend=-2) != 0)
    run = np.cumsum(change) - 1  # a history or a branch
    own = mrope_positions(is_image_pad, run, image_side=image_side)
    reached = own.max(axis=0)
    # where text goes on after a history token; an image ends at its greatest position
    ends = np.where(history, reached, -1)
    step = len(segment) + 1  # keeps the running maximum of a segment from the next one's
    after = np.maximum.accumulate(ends + step * segment) - step * segment + 1
    starts = np.flatnonzero(np.diff(segment, prepend=-1))
    lengths = np.diff(np.append(starts, len(segment)))
    last_seen = np.repeat(starts, lengths) + branches.visible - 1
    begins = np.where(~history & (branches.visible > 0), after[last_seen], 0)

    first = np.flatnonzero(change)
    sizes = np.maximum.reduceat(reached, first) + 1 if len(first) else reached
    place = {
        (part, name): index
        for index, (part, name) in enumerate(
            zip(segment[first].tolist(), branches.branch[first].tolist(), strict=True)
        )
    }
    of_run = begins[first]
    continued = (branches.branch[first] != HISTORY) & (branches.parent[first] != HISTORY)
    for index in np.flatnonzero(continued).tolist():  # a parent comes before its children
        parent = place[int(segment[first[index]]), int(branches.parent[first[index]])]
        of_run[index] = of_run[parent] + sizes[parent]
    return own + of_run[run]
