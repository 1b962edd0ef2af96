"""Ways to learn from each new period of events, for a prequential evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mmtpp.config.schema import ExpertSection, UpdateSection
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.new_events import targets_between
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import count_events
from mmtpp.train.build_expert_fit import build_continued_fit, build_expert, build_new_fit
from mmtpp.train.expert_inputs import ContinuedTraining, ExpertInputs
from mmtpp.train.launch.continued_expert import continue_settings
from mmtpp.train.launch.expert_job import fit_settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """Trains experts on the events up to a time.

    Attributes:
        inputs: Inputs of a training on all events.
        expert: Section ``expert`` of the settings.
        update: Section ``update`` of the settings.
        training: Training sequences, whole.
        validation: Validation sequences, whole; none trains without early stopping.
    """

    inputs: ExpertInputs
    expert: ExpertSection
    update: UpdateSection
    training: Sequence[ScoredSequence]
    validation: Sequence[ScoredSequence]

    def train(self, end: float) -> Expert:
        """Train a new expert on the events before a time.

        Args:
            end: The time, in the source's unit.

        Raises:
            DataError: No event before the time is scored, or all intervals are zero.
        """
        training, validation = self._events_before(end)
        inputs = replace(
            self.inputs,
            fit_settings=fit_settings(
                self.expert,
                self.inputs.fit_settings.seed,
                num_events=count_events(training),
                num_types=len(self.inputs.trained_tasks.type_codes),
                has_validation=bool(validation),
            ),
        )
        return _finish(build_new_fit(inputs, training, validation), inputs)

    def learn(self, strategy: str, expert: Expert, start: float, end: float) -> Expert:
        """Learn from the events of a period.

        Args:
            strategy: One of ``prequential.strategies``.
            expert: The expert before the period.
            start: Start of the period, in the source's unit.
            end: End of the period, in the source's unit.

        Returns:
            The expert after the period; the same one where there is nothing to learn from.
        """
        if strategy == "frozen":
            return expert
        if strategy == "retrained":
            return self.train(end)
        training, validation = self._events_before(end)
        if not targets_between(training, start, None):
            return expert
        has_prompts = strategy == "prompts"
        inputs = replace(
            self.inputs,
            fit_settings=continue_settings(
                self.inputs.fit_settings, self.update, trains_prompts=has_prompts
            ),
            continued=ContinuedTraining(
                model_uri="",
                new_from=start,
                replay=self.update.replay if strategy == "replay" else 0.0,
                num_prompts=self.update.num_prompts if has_prompts else 0,
            ),
        )
        return _finish(build_continued_fit(inputs, expert, training, validation), inputs)

    def _events_before(self, end: float) -> tuple[list[ScoredSequence], list[ScoredSequence]]:
        """The training and the validation sequences before a time."""
        training, validation = (
            targets_between(sequences, None, end) for sequences in (self.training, self.validation)
        )
        return training, validation


def _finish(fit: ExpertFit, inputs: ExpertInputs) -> Expert:
    fit.run()
    return build_expert(fit, inputs)
