"""Settings of evaluation and forecasts, and of the run itself."""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator

from mmtpp.config.section import Section, Uri
from mmtpp.config.shapes import Shapes


class Evaluation(Section):
    """Scoring on held-out sequences."""

    split: Annotated[Literal["validation", "test"], Shapes.EVALUATION] = "test"
    """Which held-out sequences."""
    max_sequences: Annotated[NonNegativeInt, Shapes.EVALUATION] = 0
    """Score only the first so many sequences by id; 0 for all."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9), Shapes.RUN, Shapes.EVALUATION] = 0.5
    """Share of a window spent on unscored context, so that every target has history."""
    targets_delta: Annotated[NonNegativeFloat, Shapes.RUN, Shapes.EVALUATION] = 0.0
    """Score only events that temporal compression with this delta would keep; set it to the
    largest delta when comparing several, so that all are scored on the same events."""
    batch_windows: Annotated[PositiveInt, Shapes.NOTHING] = 8
    """Windows scored by one task before it reports."""
    futures: Annotated[NonNegativeInt, Shapes.EVALUATION] = 0
    """Possible futures drawn from each origin, for the metrics of long horizons; 0 for none."""
    horizon: Annotated[NonNegativeFloat, Shapes.EVALUATION] = 0.0
    """How far the futures go, in the source's time unit; above 0 where there are any."""
    origins: Annotated[PositiveInt, Shapes.EVALUATION] = 4
    """Events of each held-out sequence that futures go on from, evenly spaced."""
    max_future_events: Annotated[PositiveInt, Shapes.EVALUATION] = 50
    """Of one future, should it not reach the horizon before; futures that are cut are counted."""
    written_texts: Annotated[NonNegativeInt, Shapes.EVALUATION] = 0
    """Targets drawn at random whose texts are also written, not only scored; about so many."""

    @model_validator(mode="after")
    def _has_horizon(self) -> "Evaluation":
        if self.futures and not self.horizon:
            raise ValueError("futures need a horizon above 0")
        return self


class Generation(Section):
    """Texts and answers in words that the model writes, token by token, the likeliest each time."""

    max_tokens: Annotated[PositiveInt, Shapes.EVALUATION, Shapes.PREDICTION] = 64
    """Of a text; a longer one is cut."""
    min_tokens: Annotated[NonNegativeInt, Shapes.EVALUATION, Shapes.PREDICTION] = 0
    """A text does not end before."""
    repetition_penalty: Annotated[float, Field(ge=1), Shapes.EVALUATION, Shapes.PREDICTION] = 1.0
    """Divides the odds of tokens that the text has already; 1 for none."""
    no_repeat_ngram: Annotated[NonNegativeInt, Shapes.EVALUATION, Shapes.PREDICTION] = 0
    """No sequence of so many tokens comes twice in a text; 0 for no such rule."""

    @model_validator(mode="after")
    def _can_end(self) -> "Generation":
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens must not be above max_tokens")
        return self


class Prediction(Section):
    """Forecasts of the event that comes next."""

    format: Annotated[Literal["parquet", "jsonl"], Shapes.PREDICTION] = "parquet"
    """Of the files."""
    quantiles: Annotated[
        tuple[float, ...], Field(strict=False, min_length=1), Shapes.PREDICTION
    ] = (0.05, 0.25, 0.5, 0.75, 0.95)
    """Of the interval, each above 0 and below 1, in order."""
    sequences_per_file: Annotated[PositiveInt, Shapes.PREDICTION] = 10_000
    """Forecasts of a file."""
    futures: Annotated[NonNegativeInt, Shapes.PREDICTION] = 0
    """Possible continuations drawn for each sequence, event after event; 0 for none."""
    horizon: Annotated[NonNegativeFloat, Shapes.PREDICTION] = 0.0
    """How far they go beyond the last event, in the source's time unit; 0: by their events only."""
    max_future_events: Annotated[PositiveInt, Shapes.PREDICTION] = 20
    """Of one continuation, should it not reach the horizon before."""
    text: Annotated[bool, Shapes.PREDICTION] = False
    """Write the next event's text, as of its median time and without an image."""

    @model_validator(mode="after")
    def _in_order(self) -> "Prediction":
        levels = (0.0, *self.quantiles, 1.0)
        if any(low >= high for low, high in pairwise(levels)):
            raise ValueError("quantiles must increase, above 0 and below 1")
        return self


class Run(Section):
    """Identity and place of the run."""

    name: Annotated[str, Shapes.NOTHING] = Field(
        default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100
    )
    """Folder below ``run.storage_uri`` and MLflow run name. Empty: preset and fingerprint, so the
    same settings resume the same run."""
    storage_uri: Annotated[Uri, Shapes.NOTHING] = ""
    """Checkpoints, adapters and logs; a local path or s3://."""
    wait_for_machines_s: Annotated[NonNegativeFloat, Shapes.NOTHING] = 1800.0
    """Seconds to wait for machines that an autoscaler is bringing, at the start and after a loss;
    at the start half a minute at most where there is none, and not for what it cannot bring."""


class Tracking(Section):
    """MLflow."""

    uri: Annotated[Uri, Shapes.NOTHING] = ""
    """Tracking server or sqlite:/// file. Empty: MLFLOW_TRACKING_URI, else mlruns.db here."""
    experiment: Annotated[str, Shapes.NOTHING] = Field(default="mmtpp", min_length=1)
    """MLflow experiment."""
    parent_run_id: Annotated[str, Shapes.NOTHING] = ""
    """MLflow run this one is a child of; set by sweeps."""
    register_as: Annotated[str, Shapes.NOTHING] = Field(
        default="", pattern=r"^[A-Za-z0-9 ._-]*$", max_length=200
    )
    """Name under which fine-tuned models are registered in MLflow's model registry, the trials of a
    sweep not; empty for not at all."""
    max_artifact_mib: Annotated[PositiveInt, Shapes.NOTHING] = 200
    """Adapter and model folders up to this size are logged as artifacts, larger ones as a link."""
