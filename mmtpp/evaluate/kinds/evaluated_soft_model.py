"""Forecasts of a soft model, which reads windows of soft tokens in Ray Data actors."""

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import pyarrow as pa

from mmtpp.core.representation.supervision import AllTokens, FutureOrigins
from mmtpp.data.samples.actors import map_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.evaluate.actors.soft_actors import (
    SoftFutureActor,
    SoftFutureActorSettings,
    SoftTargetScorer,
    SoftTargetScorerSettings,
)
from mmtpp.evaluate.kinds.evaluated_model import EvaluatedModel
from mmtpp.expert.expert_forecasts import density_grid
from mmtpp.expert.expert_futures import FutureSettings
from mmtpp.soft.soft_settings import with_memory


class EvaluatedSoftModel(EvaluatedModel):
    """Forecasts of a language model that reads soft tokens."""

    def _target_tables(self) -> Iterable[pa.Table]:
        settings = SoftTargetScorerSettings(
            sample_settings=self._target_settings,
            location=self.context.location,
            grid=density_grid(self.trained_tasks.interval_range),
        )
        return map_samples(
            self._target_plan,
            SoftTargetScorer,
            settings,
            self.context.actors,
            title="evaluate: forecasts",
        )

    def cut_text_counts(self) -> dict[str, float]:
        """Numbers of texts that were cut for the targets."""
        return self._target_plan.long_texts.metrics("targets_")

    def sample_futures(self) -> Iterable[pa.Table]:
        """Futures of all origins, ``future_actor.FUTURE_SCHEMA``, in any order."""
        context, evaluation = self.context, self.context.evaluation
        origins = FutureOrigins(
            (), num_origins=evaluation.origins_per_sequence, horizon=evaluation.horizon
        )
        sample_settings = replace(self._sample_settings, supervision=origins)
        settings = SoftFutureActorSettings(
            sample_settings=sample_settings,
            location=context.location,
            futures=FutureSettings(
                evaluation.num_futures, evaluation.horizon, evaluation.max_future_events
            ),
            seed=context.seed,
        )
        plan = make_plan(sample_settings, context.vocabulary.token_ids())
        return map_samples(
            plan, SoftFutureActor, settings, context.actors, title="evaluate: futures"
        )

    def facts(self) -> dict[str, str]:
        """What the report says about the model."""
        model = self.context.location
        return {
            "model": model.model_uri,
            **({"adapter": model.adapter_uri} if model.adapter_uri else {}),
            "events": "one soft token each",
        }

    @property
    def _target_settings(self) -> SampleSettings:
        """Settings of the samples of targets; short sequences share a forward pass."""
        return replace(self._sample_settings, supervision=AllTokens(), packed=True)

    @cached_property
    def _target_plan(self) -> Plan:
        return make_plan(self._target_settings, self.context.vocabulary.token_ids())

    @property
    def _sample_settings(self) -> SampleSettings:
        """Settings of the held-out samples, with the model's memory."""
        return with_memory(self.context.held_out_sample_settings, self.context.location.scored_uri)
