"""Settings of evaluation, of generated texts and of forecasts."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mmtpp.config.affects import Affects
from mmtpp.config.section import Section


class EvaluationSection(Section):
    """Scoring on held-out sequences."""

    split: Annotated[Literal["validation", "test"], Affects.EVALUATION] = "test"
    """Held-out split that is scored."""
    max_sequences: Annotated[NonNegativeInt, Affects.EVALUATION] = 0
    """Number of held-out sequences to score, in order of their ids; 0 scores all of them."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9), Affects.RUN, Affects.EVALUATION] = 0.5
    """Share of a window that repeats the end of the previous window, 0 to 0.9. The repeated events
    are read but not scored, so that every target has a history."""
    targets_delta: Annotated[NonNegativeFloat, Affects.RUN, Affects.EVALUATION] = 0.0
    """Delta of ``temporal`` compression that selects the scored events: only events that it keeps
    are scored. To compare several deltas on the same events, set it to the largest; 0 scores
    all events."""
    windows_per_batch: Annotated[PositiveInt, Affects.NOTHING] = 8
    """Number of windows that an actor scores in one call, above 0. More windows mean less overhead
    and more memory."""
    num_futures: Annotated[NonNegativeInt, Affects.EVALUATION] = 0
    """Number of futures sampled from each origin, for the metrics of long horizons; 0 samples
    none."""
    horizon: Annotated[NonNegativeFloat, Affects.EVALUATION] = 0.0
    """Length of a sampled future, in the source's time unit; above 0 if ``num_futures`` is above
    0."""
    origins_per_sequence: Annotated[PositiveInt, Affects.EVALUATION] = 4
    """Number of events per held-out sequence at which futures begin, evenly spaced, above 0."""
    max_future_events: Annotated[PositiveInt, Affects.EVALUATION] = 50
    """Maximum number of events in one sampled future, above 0. Futures that reach it before the
    horizon are truncated and counted in ``horizon/truncated_futures``."""
    num_generated_texts: Annotated[NonNegativeInt, Affects.EVALUATION] = 0
    """Approximate number of targets, drawn at random, whose texts are generated as well as scored;
    0 generates none."""

    @model_validator(mode="after")
    def _has_horizon(self) -> "EvaluationSection":
        if self.num_futures and not self.horizon:
            raise ValueError("num_futures above 0 needs a horizon above 0")
        return self


class GenerationSection(Section):
    """Generated texts and answers; every token is the most likely one."""

    max_tokens: Annotated[PositiveInt, Affects.EVALUATION, Affects.PREDICTION] = 64
    """Maximum length of a generated text, in tokens, above 0. Longer texts are truncated."""
    min_tokens: Annotated[NonNegativeInt, Affects.EVALUATION, Affects.PREDICTION] = 0
    """Minimum length of a generated text, in tokens, at most ``max_tokens``."""
    repetition_penalty: Annotated[float, Field(ge=1), Affects.EVALUATION, Affects.PREDICTION] = 1.0
    """Penalty of the scores of tokens that the text already contains (Keskar et al. 2019), at least
    1; 1 is no penalty."""
    no_repeat_ngram: Annotated[NonNegativeInt, Affects.EVALUATION, Affects.PREDICTION] = 0
    """Length of the token sequences that occur at most once in a text; 0 allows repetition."""

    @model_validator(mode="after")
    def _can_end(self) -> "GenerationSection":
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens must not be above max_tokens")
        return self


class PredictionSection(Section):
    """Forecasts of the next event."""

    format: Annotated[Literal["parquet", "jsonl"], Affects.PREDICTION] = "parquet"
    """File format of the forecasts."""
    quantiles: Annotated[
        tuple[float, ...], Field(strict=False, min_length=1), Affects.PREDICTION
    ] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Levels of the interval's quantiles, more than 0 and less than 1, increasing."""
    sequences_per_file: Annotated[PositiveInt, Affects.PREDICTION] = 10_000
    """Number of sequences whose forecasts are in one file, above 0."""
    num_futures: Annotated[NonNegativeInt, Affects.PREDICTION] = 0
    """Number of futures sampled for each sequence, event by event; 0 samples none."""
    horizon: Annotated[NonNegativeFloat, Affects.PREDICTION] = 0.0
    """Length of a future after the last event, in the source's time unit, at least 0. 0: only
    ``max_future_events`` ends a future."""
    max_future_events: Annotated[PositiveInt, Affects.PREDICTION] = 20
    """Maximum number of events in one sampled future, above 0. Futures that reach it before the
    horizon are truncated."""
    generate_text: Annotated[bool, Affects.PREDICTION] = False
    """Whether the next event's text is generated, at its median time and without an image."""

    @model_validator(mode="after")
    def _in_order(self) -> "PredictionSection":
        levels = (0.0, *self.quantiles, 1.0)
        if any(low >= high for low, high in pairwise(levels)):
            raise ValueError("quantiles must increase, and be more than 0 and less than 1")
        return self
