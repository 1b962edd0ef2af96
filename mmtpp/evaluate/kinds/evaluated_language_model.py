"""Forecasts of a language model, alone or mixed with a temporal expert."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import pyarrow as pa

from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.supervision import EveryEvent, FutureOrigins
from mmtpp.core.representation.tasks import EVENT_TASKS
from mmtpp.data.samples.actors import map_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.evaluate.actors.future_actor import FutureActor, FutureActorSettings
from mmtpp.evaluate.actors.target_scorer import TargetScorer, TargetScorerSettings
from mmtpp.evaluate.actors.target_texts import GenerationTargets
from mmtpp.evaluate.example import Example
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.evaluate.read_examples import read_examples
from mmtpp.inference.model_actor import ModelActorSettings


@dataclass(frozen=True, slots=True)
class _Windows:
    """Windows of held-out sequences with questions about every event.

    Attributes:
        sample_settings: Settings of the plan.
        plan: Plan of the windows.
    """

    sample_settings: SampleSettings
    plan: Plan


class EvaluatedLanguageModel(EvaluatedModel):
    """Forecasts of a language model, which reads windows of events in Ray Data actors."""

    def _target_tables(self) -> Iterable[pa.Table]:
        context, windows = self.context, self._planned_windows
        settings = TargetScorerSettings(
            sample_settings=windows.sample_settings,
            location=context.location,
            type_codes=self._type_codes,
            grid=self._grid,
            tick=context.manifest.tick,
            generation=self._choose_texts(),
        )
        return map_samples(
            windows.plan, TargetScorer, settings, context.actors, title="evaluate: forecasts"
        )

    def plan_targets(self) -> None:
        """Plan the windows of all targets, before any model is loaded.

        Raises:
            DataError: No event is a target.
        """
        _ = self._planned_windows

    def sample_futures(self) -> Iterable[pa.Table]:
        """Futures of all origins, ``future_actor.FUTURE_SCHEMA``, in any order."""
        context, evaluation = self.context, self.context.evaluation
        supervision = FutureOrigins(
            ("time",), num_origins=evaluation.origins_per_sequence, horizon=evaluation.horizon
        )
        sample_settings = replace(context.held_out_sample_settings, supervision=supervision)
        settings = FutureActorSettings(
            sample_settings=sample_settings,
            location=context.location,
            type_codes=self._type_codes,
            grid=self._grid,
            joint="joint" in self.trained_tasks.tasks,
            num_futures=evaluation.num_futures,
            horizon=evaluation.horizon,
            max_events=evaluation.max_future_events,
            seed=context.seed,
        )
        plan = make_plan(sample_settings, context.vocabulary.token_ids())
        return map_samples(plan, FutureActor, settings, context.actors, title="evaluate: futures")

    def examples(self, targets: pa.Table) -> list[Example]:
        """Windows of the report, with the model's attention."""
        actor = ModelActorSettings(
            sample_settings=self._planned_windows.sample_settings, location=self.context.location
        )
        return read_examples(actor, self._planned_windows.plan, targets, self.context.actors)

    def cut_text_counts(self) -> dict[str, float]:
        """Numbers of texts that were cut for the targets."""
        return self._planned_windows.plan.long_texts.metrics("targets_")

    def facts(self) -> dict[str, str]:
        """What the report says about the model."""
        model, compression = (
            self.context.location,
            self.context.held_out_sample_settings.compression,
        )
        return {
            "model": model.model_uri,
            **({"adapter": model.adapter_uri} if model.adapter_uri else {}),
            **({"mixed with the expert": model.expert_uri} if model.expert_uri else {}),
            "compression": f"{compression.strategy}, Delta {compression.delta:g}",
        }

    @property
    def _type_codes(self) -> tuple[int, ...]:
        return self.context.all_types(self.trained_tasks)

    @property
    def _grid(self) -> IntervalGrid:
        num_bytes = self.context.held_out_sample_settings.template.time_bytes
        return self.trained_tasks.interval_range.grid(num_bytes=num_bytes)

    @cached_property
    def _planned_windows(self) -> _Windows:
        """Windows of all targets. Planning reads the times of the split, so it happens once: when
        ``forecast_targets`` asks for them. The examples and counts of texts are of the same plan.
        """
        tasks = tuple(name for name in EVENT_TASKS if name in self.trained_tasks.tasks)
        sample_settings = replace(
            self.context.held_out_sample_settings,
            supervision=EveryEvent(tasks, self._grid.first_bytes),
            packed=True,  # short sequences share a forward pass
        )
        return _Windows(
            sample_settings, make_plan(sample_settings, self.context.vocabulary.token_ids())
        )

    def _choose_texts(self) -> GenerationTargets:
        """A share of the targets: about ``evaluation.num_generated_texts`` are written."""
        context, windows = self.context, self._planned_windows.plan.windows
        first, end = (windows[name].to_numpy() for name in ("first_scored", "end"))
        share = context.evaluation.num_generated_texts / max(1, int((end - first).sum()))
        return GenerationTargets(context.generation, min(1.0, share), context.seed)
