"""One packed sample in NumPy: the output of the data pipeline and the input of the model.

Axes: T tokens, F distinct frames of S x S pixels, I shown images, E events, N labels, L likelihoods
(N, or 2 N with soft tokens), Q questions.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.representation.older_events import OlderEvents, images_of
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.tokens import Modality, Tokens

HISTORY = -1  # branch of a token of the history


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring branches of a segment whose attention is computed together.

    Attributes:
        start, end: Range of the block's tokens, counted from the start of the segment.
        seen: Number of leading history tokens that at least one token may see.
        mask: (end - start, seen + end - start) True where the token of the row may see the token of
            the column. Columns are first the history, then the block itself.
    """

    start: int
    end: int
    seen: int
    mask: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Branches:
    """Which tokens of a row are history and which belong to a branch (``branches.py``).

    A segment is a history followed by its branches. The tokens of a branch are contiguous, and a
    branch follows its parent. A history token sees the history up to itself. A token of a branch
    sees the first tokens of the history, the ancestors of its branch, and its branch up to itself.

    Attributes:
        branch: (T,) int32, ``HISTORY`` or the number of the branch, unique within a segment.
        parent: (T,) int32, the branch that the token's branch continues; ``HISTORY`` if it
            continues the history itself.
        visible: (T,) int32, number of leading history tokens of its segment that a token may see.
        task: (T,) uint8, the task that a label trains: a value of ``tasks.TASKS``, or
            ``HISTORY_TASK``.
    """

    branch: NDArray[np.int32]
    parent: NDArray[np.int32]
    visible: NDArray[np.int32]
    task: NDArray[np.uint8]

    def blocks(self, start: int, end: int, *, size: int) -> list[Block]:
        """Divide the branches of one segment into blocks, with their attention masks.

        Args:
            start: First token of the segment.
            end: Token after the last of the segment.
            size: Minimum number of tokens in a block, except the last; a branch and its descendants
                are in the same block.
        """
        branch, parent = self.branch[start:end], self.parent[start:end]
        visible = self.visible[start:end]
        num_history = int(np.searchsorted(branch != HISTORY, 1))
        roots = np.flatnonzero(
            (branch != HISTORY) & (parent == HISTORY) & (np.diff(branch, prepend=HISTORY) != 0)
        )
        blocks: list[Block] = []
        first = num_history
        while first < len(branch):
            next_root = int(np.searchsorted(roots, first + size))
            last = int(roots[next_root]) if next_root < len(roots) else len(branch)
            seen = int(visible[first:last].max(initial=0))
            sees_history = np.arange(seen) < visible[first:last, None]
            sees_block = _sees_within(branch[first:last], parent[first:last])
            mask = np.concatenate([sees_history, sees_block], axis=1)
            blocks.append(Block(first, last, seen, mask))
            first = last
        return blocks

    def sees(self, first: int, end: int) -> NDArray[np.bool_]:
        """Which tokens some neighbouring tokens may see, in a row of one segment.

        Args:
            first: First of the tokens, in the history or the first token of a branch that continues
                the history.
            end: Token after the last.

        Returns:
            (end - first, end) True where the token of the row may see the token of the column.
        """
        num_history = min(self.num_history, end)
        sees = np.zeros((end - first, end), dtype=np.bool_)
        sees[:, :num_history] = np.arange(num_history) < self.visible[first:end, None]
        begin = max(first, num_history)
        sees[begin - first :, begin:] = _sees_within(self.branch[begin:end], self.parent[begin:end])
        return sees

    @property
    def num_history(self) -> int:
        """Number of tokens of the history, in a row of one segment."""
        return int(np.searchsorted(self.branch != HISTORY, 1))


def _sees_within(branch: NDArray[np.int32], parent: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(n, n) True where a token of whole branches may see another token of these branches."""
    sees = branch[:, None] == branch
    distinct, first = np.unique(branch, return_index=True)
    parents = parent[first]
    ancestor = parent
    while (ancestor != HISTORY).any():
        sees |= (ancestor[:, None] == branch) & (ancestor != HISTORY)[:, None]
        index = np.minimum(np.searchsorted(distinct, ancestor), len(distinct) - 1)
        ancestor = np.where(ancestor == HISTORY, HISTORY, parents[index]).astype(np.int32)
    return sees & np.tri(len(branch), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class QuestionColumns:
    """The questions of a row, one column for each of their properties.

    Attributes:
        at: (Q,) int32, the last token of the question. It predicts the first token of the answer.
        event: (Q,) int32, the event of the row that the question is about. A question about the
            event after the last has the index that this event would have.
        task: (Q,) uint8, a value of ``core.representation.tasks.TASKS``.
        expansion: (Q,) int32, the first of the tokens that stand for possible answers, which see
            only the question; -1 if there are none.
    """

    at: NDArray[np.int32]
    event: NDArray[np.int32]
    task: NDArray[np.uint8]
    expansion: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class PackedRow:
    """A packed sample in NumPy, as the feed delivers it.

    Attributes:
        sample_id: Index of the sample in the plan.
        input_ids: (T,) int32 token ids.
        modality: (T,) uint8, a ``Modality``.
        segment: (T,) int32, the window of the row that a token belongs to, from 0.
        event: (T,) int32, index of the event within the row; -1 in a prefix. It does not decrease
            within histories; branches follow their whole history.
        may_be_label: (T,) bool, False for tokens that are read only. ``label_positions`` says which
            of the other tokens are labels.
        frames: (F, S, S, 3) uint8, distinct images of the row.
        image_frame: (I,) int32, frame of each shown image, in token order.
        event_type: (E,) int16, types of the row's events.
        event_is_target: (E,) bool, True for events that evaluation scores.
        branches: Branches of the row's segments; None if the row has no branches.
        questions: Questions of the branches; None if the row has no branches.
        soft: Content of the soft tokens; None if the row has no soft tokens.
        older: Content of the older events; None where rows have none.
    """

    sample_id: int
    input_ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    segment: NDArray[np.int32]
    event: NDArray[np.int32]
    may_be_label: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    image_frame: NDArray[np.int32]
    event_type: NDArray[np.int16]
    event_is_target: NDArray[np.bool_]
    branches: Branches | None = None
    questions: QuestionColumns | None = None
    soft: SoftTokens | None = None
    older: OlderEvents | None = None

    @classmethod
    def from_window(
        cls,
        tokens: Tokens,
        event_type: NDArray[np.int16],
        frames: NDArray[np.uint8],
        *,
        may_be_label: NDArray[np.bool_] | None = None,
        branches: Branches | None = None,
        questions: QuestionColumns | None = None,
        soft: SoftTokens | None = None,
        older: OlderEvents | None = None,
    ) -> "PackedRow":
        """A row with one window, without targets.

        Args:
            tokens: Tokens of the window.
            event_type: (E,) types of the window's events.
            frames: (F, S, S, 3) images of the distinct ``images_of(tokens, older)``, in increasing
                order.
            may_be_label: (T,) True if the token may be a label; None if no token is one.
            branches: Branches of the window, if it has some.
            questions: Questions of the branches, if the window has some.
            soft: Content of the tokens, if they are soft tokens.
            older: Content of the window's older events, if windows have them.
        """
        num_tokens = len(tokens.ids)
        distinct = np.unique(images_of(tokens, older))
        return cls(
            sample_id=0,
            input_ids=tokens.ids,
            modality=tokens.modality,
            segment=np.zeros(num_tokens, dtype=np.int32),
            event=tokens.event,
            may_be_label=np.zeros(num_tokens, dtype=np.bool_)
            if may_be_label is None
            else may_be_label,
            frames=frames,
            image_frame=np.searchsorted(distinct, tokens.frames).astype(np.int32),
            event_type=event_type,
            event_is_target=np.zeros(len(event_type), dtype=np.bool_),
            branches=branches,
            questions=questions,
            soft=soft,
            older=None if older is None else older.with_frames(distinct),
        )

    @property
    def history_ids(self) -> NDArray[np.int32]:
        """Token ids of the history, in a row of one segment."""
        return (
            self.input_ids if self.branches is None else self.input_ids[: self.branches.num_history]
        )

    def predecessors(self) -> NDArray[np.int64]:
        """(T,) position of the token that predicts each token; -1 for the first of a segment.

        A token follows the token before it. The first token of a branch follows the last token of
        its parent, or the last token of the history that it sees.

        Example:
            A history of four tokens; branch 0 sees two of them and branch 1 all four; branch 2
            continues branch 0. H is ``HISTORY``::

                position       0  1  2  3  4  5  6  7  8
                branch         H  H  H  H  0  0  1  2  2
                parent         H  H  H  H  H  H  H  0  0
                visible        1  2  3  4  2  2  4  2  2
                predecessors  -1  0  1  2  1  4  3  5  7
        """
        position = np.arange(len(self.segment))
        starts = np.diff(self.segment, prepend=-1) != 0
        before = np.where(starts, -1, position - 1)
        if self.branches is None:
            return before
        branches = self.branches
        begins = (branches.branch != HISTORY) & (
            starts | (np.diff(branches.branch, prepend=HISTORY) != 0)
        )
        first = np.flatnonzero(begins)
        segment_start = np.maximum.accumulate(np.where(starts, position, 0))[first]
        last_seen = segment_start + branches.visible[first] - 1
        last_seen = np.where(branches.visible[first] > 0, last_seen, -1)
        # a key per segment and branch finds the last token of the parent
        key = self.segment.astype(np.int64) * (int(branches.branch.max(initial=0)) + 2)
        branch_key, parent_key = key + branches.branch, key + branches.parent
        ends = np.flatnonzero(np.diff(branch_key, append=-2) != 0)  # of histories and branches
        order = np.argsort(branch_key[ends], kind="stable")
        index = np.searchsorted(branch_key[ends], parent_key[first], sorter=order) % len(ends)
        parent_end = ends[order[index]]
        before[first] = np.where(branches.parent[first] == HISTORY, last_seen, parent_end)
        return before

    def label_positions(self) -> NDArray[np.int64]:
        """(N,) positions of the labels: tokens that may be labels, are not masked, and have a
        predecessor."""
        has_predecessor = self.predecessors() >= 0
        return np.flatnonzero(
            has_predecessor & self.may_be_label & (self.modality != Modality.MASKED)
        )

    def likelihood_modalities(self) -> NDArray[np.uint8]:
        """(L,) modality of every likelihood that the model returns for the row.

        There is one likelihood per label, but two per soft token: first that of the interval, then
        that of the type.
        """
        labels = self.label_positions()
        if self.soft is None:
            return self.modality[labels]
        return np.tile(np.array([Modality.TIME, Modality.TYPE], dtype=np.uint8), len(labels))

    def likelihood_events(self) -> NDArray[np.int32]:
        """(L,) event of every likelihood that the model returns for the row."""
        events = self.event[self.label_positions()]
        return events if self.soft is None else np.repeat(events, 2)

    def before_question(
        self, question: int, *, image_pad: int, with_question: bool = False
    ) -> "PackedRow":
        """The row without branches that precedes a question: its history and its ancestors.

        Args:
            question: Index into ``questions``; the question begins its branch.
            image_pad: Token id of the image placeholder.
            with_question: Whether the row includes the question.
        """
        assert self.branches is not None
        assert self.questions is not None
        branches = self.branches
        at = int(self.questions.at[question])
        in_segment = self.segment == self.segment[at]
        in_history = in_segment & (branches.branch == HISTORY)
        history = np.flatnonzero(in_history)[: branches.visible[at]]
        ancestor = int(branches.parent[at])
        ancestors: list[NDArray[np.int64]] = []
        while ancestor != HISTORY:
            positions = np.flatnonzero(in_segment & (branches.branch == ancestor))
            ancestors.append(positions)
            ancestor = int(branches.parent[positions[0]])
        tokens = np.concatenate([history, *reversed(ancestors)])
        if with_question:
            positions = np.flatnonzero(in_segment & (branches.branch == branches.branch[at]))
            tokens = np.concatenate([tokens, positions[positions <= at]])
        is_pad = self.input_ids == image_pad
        pads_per_image = max(1, int(is_pad.sum()) // max(1, len(self.image_frame)))
        image = (np.cumsum(is_pad) - 1) // pads_per_image
        return replace(
            self,
            input_ids=self.input_ids[tokens],
            modality=self.modality[tokens],
            segment=np.zeros(len(tokens), dtype=np.int32),
            event=self.event[tokens],
            may_be_label=np.zeros(len(tokens), dtype=np.bool_),
            image_frame=self.image_frame[np.unique(image[tokens][is_pad[tokens]])],
            branches=None,
            questions=None,
            older=None if self.older is None else self.older.within(tokens),
        )
