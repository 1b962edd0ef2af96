"""One packed sample in numpy, between the data pipeline and the model.

Axes: T tokens, F distinct frames of S x S pixels, I image occurrences, E events, N labels, Q
questions.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.tokens import Modality

HISTORY = -1  # the branch of a token that belongs to none


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring branches of a segment that attend as one.

    Attributes:
        start, end: their tokens, counted from the start of the segment.
        seen: leading tokens of the history that any of them may see.
        mask: (end - start, seen + end - start) True where the row's token may see the column's:
            first the history, then the block itself.
    """

    start: int
    end: int
    seen: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Branches:
    """Which tokens of a row are history and which belong to a branch (``core.branches``).

    A segment is a history followed by its branches, each in one piece and after its parent. A
    history token sees the history up to itself; a token of a branch sees the first tokens of the
    history, the branches its own continues, and its own branch up to itself.

    Attributes:
        branch: (T,) int32, ``HISTORY`` or the branch, distinct within a segment.
        parent: (T,) int32, the branch that a token's branch continues; ``HISTORY`` where it
            continues the history itself.
        visible: (T,) int32, how many leading history tokens of its segment a token may see.
        task: (T,) uint8, what a label trains: a key of ``core.branches.TASKS``, or
            ``HISTORY_TASK``.
    """

    branch: NDArray[np.int32]
    parent: NDArray[np.int32]
    visible: NDArray[np.int32]
    task: NDArray[np.uint8]

    def blocks(self, start: int, end: int, *, size: int) -> list[Block]:
        """What the branches of one segment see, in parts.

        Args:
            start: first token of the segment.
            end: the one after its last.
            size: tokens from which a block is full; branches that share a parent stay together.
        """
        branch, parent = self.branch[start:end], self.parent[start:end]
        visible = self.visible[start:end]
        num_history = int(np.searchsorted(branch != HISTORY, 1))
        begins = np.flatnonzero(
            (branch != HISTORY) & (parent == HISTORY) & (np.diff(branch, prepend=HISTORY) != 0)
        )
        blocks: list[Block] = []
        first = num_history
        while first < len(branch):
            place = int(np.searchsorted(begins, first + size))
            last = int(begins[place]) if place < len(begins) else len(branch)
            seen = int(visible[first:last].max(initial=0))
            of_history = np.arange(seen) < visible[first:last, None]
            own = _own(branch[first:last], parent[first:last])
            blocks.append(Block(first, last, seen, np.concatenate([of_history, own], axis=1)))
            first = last
        return blocks


def _own(branch: NDArray[np.int32], parent: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n, n) what the tokens of whole branches see of each other."""
    sees = branch[:, None] == branch
    distinct, first = np.unique(branch, return_index=True)
    parents = parent[first]
    above = parent
    while (above != HISTORY).any():
        sees |= (above[:, None] == branch) & (above != HISTORY)[:, None]
        place = np.minimum(np.searchsorted(distinct, above), len(distinct) - 1)
        above = np.where(above == HISTORY, HISTORY, parents[place]).astype(np.int32)
    return sees & np.tri(len(branch), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Questions:
    """What is asked in a row.

    Attributes:
        at: (Q,) int32, the last token of each question: the first of its answer is predicted there.
        event: (Q,) int32, event of the row that is asked about; for the event after the last of a
            sequence, the place that it would have.
        task: (Q,) uint8, key of ``core.branches.TASKS``.
        expansion: (Q,) int32, the first of the tokens that stand for possible answers, each seeing
            only the question; -1 where there are none.
    """

    at: NDArray[np.int32]
    event: NDArray[np.int32]
    task: NDArray[np.uint8]
    expansion: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Row:
    """A packed sample in numpy, as Ray Data delivers it.

    Attributes:
        sample_id: index of the sample in the plan.
        input_ids: (T,) int32.
        modality: (T,) uint8, a ``Modality``.
        segment: (T,) int32, which window of the row a token belongs to, from 0.
        event: (T,) int32, index of the event within the row; -1 in a prefix. It increases, but for
            branches, which follow all of their history.
        scored: (T,) bool, whether the token may be a label.
        frames: (F, S, S, 3) uint8, the distinct images of the row.
        image_frame: (I,) int32, the frame of each image in reading order.
        event_type: (E,) int16, types of the row's events.
        event_is_target: (E,) bool, events that evaluation scores.
        branches: of the row's segments; None where all of them are plain text.
        questions: of the branches.
    """

    sample_id: int
    input_ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    segment: NDArray[np.int32]
    event: NDArray[np.int32]
    scored: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    image_frame: NDArray[np.int32]
    event_type: NDArray[np.int16]
    event_is_target: NDArray[np.bool_]
    branches: Branches | None = None
    questions: Questions | None = None

    def predecessors(self) -> NDArray[np.int64]:
        """(T,) position of the token that predicts each; -1 for the first of a segment."""
        place = np.arange(len(self.segment))
        starts = np.diff(self.segment, prepend=-1) != 0
        before = np.where(starts, -1, place - 1)
        if self.branches is None:
            return before
        branches = self.branches
        begins = (branches.branch != HISTORY) & (
            starts | (np.diff(branches.branch, prepend=HISTORY) != 0)
        )
        first = np.flatnonzero(begins)
        segment_start = np.maximum.accumulate(np.where(starts, place, 0))[first]
        of_history = segment_start + branches.visible[first] - 1
        of_history = np.where(branches.visible[first] > 0, of_history, -1)
        key = self.segment.astype(np.int64) * (int(branches.branch.max(initial=0)) + 2)
        own, parent = (key + each for each in (branches.branch, branches.parent))
        ends = np.flatnonzero(np.diff(own, append=-2) != 0)  # of histories and branches
        order = np.argsort(own[ends], kind="stable")
        found = order[np.searchsorted(own[ends], parent[first], sorter=order) % len(ends)]
        before[first] = np.where(branches.parent[first] == HISTORY, of_history, ends[found])
        return before

    def label_positions(self) -> NDArray[np.int64]:
        """(N,) positions that are predicted: scored, not masked, and after another token."""
        follows = self.predecessors() >= 0
        return np.flatnonzero(follows & self.scored & (self.modality != Modality.MASKED))

    def before_question(
        self, question: int, *, image_pad: int, with_question: bool = False
    ) -> "Row":
        """The plain row that a question follows: what it sees of the history, and what it repeats.

        Args:
            question: index into ``questions``, one that begins its branch.
            image_pad: id of the image placeholder.
            with_question: the row goes on to the end of the question.
        """
        assert self.branches is not None
        assert self.questions is not None
        branches = self.branches
        place = int(self.questions.at[question])
        of_segment = self.segment == self.segment[place]
        in_history = of_segment & (branches.branch == HISTORY)
        tokens = np.flatnonzero(in_history)[: branches.visible[place]]
        above = int(branches.parent[place])
        parts: list[NDArray[np.int64]] = []
        while above != HISTORY:
            own = np.flatnonzero(of_segment & (branches.branch == above))
            parts.append(own)
            above = int(branches.parent[own[0]])
        tokens = np.concatenate([tokens, *reversed(parts)])
        if with_question:
            own = np.flatnonzero(of_segment & (branches.branch == branches.branch[place]))
            tokens = np.concatenate([tokens, own[own <= place]])
        is_pad = self.input_ids == image_pad
        pads_of_image = max(1, int(is_pad.sum()) // max(1, len(self.image_frame)))
        image = (np.cumsum(is_pad) - 1) // pads_of_image
        return replace(
            self,
            input_ids=self.input_ids[tokens],
            modality=self.modality[tokens],
            segment=np.zeros(len(tokens), dtype=np.int32),
            event=self.event[tokens],
            scored=np.zeros(len(tokens), dtype=np.bool_),
            image_frame=self.image_frame[np.unique(image[tokens][is_pad[tokens]])],
            branches=None,
            questions=None,
        )
