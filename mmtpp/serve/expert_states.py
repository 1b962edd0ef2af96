"""The states of live sequences after their last events, for a temporal expert.

A state is a cache: it is computed again from the log of events when it is missing.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_images import EventImages
from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.read_sequences import past_events
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.serve.drift_watch import DriftWatch


class ExpertStates:
    """Keeps the states of the sequences that were used last.

    Args:
        expert: The expert.
        vocabulary: Vocabulary that counts the tokens of texts.
        type_codes: Codes of the expert's types, in order.
        max_sequences: Largest number of states; the one that was not used for longest is dropped.
        watch: Compares new events with the forecasts before them.

    Attributes:
        num_dropped: Number of states that were dropped for others.
        num_computed: Number of states that were computed from the log.
    """

    def __init__(
        self,
        expert: Expert,
        vocabulary: Vocabulary,
        type_codes: Sequence[int],
        *,
        max_sequences: int,
        watch: DriftWatch,
    ) -> None:
        self._watch = watch
        self._expert, self._vocabulary = expert, vocabulary
        self._type_codes, self._max_sequences = tuple(type_codes), max_sequences
        self._states: OrderedDict[str, SequenceState] = OrderedDict()
        self.num_dropped = self.num_computed = 0

    def __len__(self) -> int:
        return len(self._states)

    def advance(self, added: Mapping[str, tuple[int, EventSequence]]) -> None:
        """Continue states with new events.

        Args:
            added: New events by sequence, and the number of events before them. A sequence whose
                state is missing is left out unless it begins; its state is computed when it is
                needed.
        """
        sequences: list[EventSequence] = []
        before: list[SequenceState | None] = []
        for name, (num_before, new) in added.items():
            state = self._states.get(name)
            if state is not None or not num_before:
                sequences.append(new)
                before.append(state if num_before else None)
        if not sequences:
            return
        past = self._past(sequences, [state is None for state in before])
        sizes = [len(sequence) for sequence in sequences]
        self._watch.add(before, past, sizes)
        states = SequenceState.advance(self._expert.memory, before, past, sizes)
        for sequence, state in zip(sequences, states, strict=True):
            self._keep(sequence.sequence_id, state)

    def get(self, sequence_id: str, read: Callable[[str], EventSequence]) -> SequenceState:
        """The state of a sequence; computed from all its events if it is missing.

        Args:
            sequence_id: Name of a sequence with at least one event.
            read: Reads all events of a sequence.

        Raises:
            DataError: An event has a type that the expert does not know.
        """
        state = self._states.get(sequence_id)
        if state is None:
            past = self._past([read(sequence_id)], [True])
            state = SequenceState.after(self._expert.memory, past)
            self.num_computed += 1
        self._keep(sequence_id, state)
        return state

    def remove(self, sequence_id: str) -> None:
        """Forget a sequence."""
        self._states.pop(sequence_id, None)

    def _keep(self, name: str, state: SequenceState) -> None:
        self._states[name] = state
        self._states.move_to_end(name)
        if len(self._states) > self._max_sequences:
            self._states.popitem(last=False)
            self.num_dropped += 1

    def _past(self, sequences: Sequence[EventSequence], begins: Sequence[bool]) -> PastEvents:
        """The events of sequences as the expert reads them, one sequence after the other.

        Args:
            sequences: At least one sequence.
            begins: Whether each sequence begins with its first event.
        """
        types = np.concatenate([sequence.types for sequence in sequences])
        texts = tuple(text for sequence in sequences for text in sequence.texts)
        # one call for all texts; the expert takes no times from the tokenised events
        joined = EventSequence("live", np.zeros(len(types)), types, texts, (None,) * len(types))
        [events] = tokenise_sequences([joined], self._vocabulary)
        times = np.concatenate([sequence.times for sequence in sequences])
        past = past_events(times, events, self._type_codes, self._expert.texts, where="live")
        is_first = np.zeros(len(past), dtype=np.bool_)
        starts = np.cumsum([0, *(len(sequence) for sequence in sequences[:-1])])
        is_first[starts] = begins
        if not self._expert.reads_images:
            return replace(past, is_first=is_first)
        images = EventImages.none(len(past))  # live events have no images
        return replace(past, is_first=is_first, images=images)
