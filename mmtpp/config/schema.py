"""The configuration: one frozen tree. The text under a field is its help, unit and range."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mmtpp.core.events import MAX_TYPES

Fraction = Annotated[float, Field(ge=0, lt=1)]


def _no_secrets(uri: str) -> str:
    authority = uri.partition("://")[2].partition("/")[0]
    if "@" in authority:
        raise ValueError(
            "a URI must not carry a user or password; give credentials in the standard "
            "environment variables (AWS_*, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
        )
    return uri


def _absolute(uri: str) -> str:
    # workers run in folders of their own
    return uri if not uri or "://" in uri else str(Path(uri).expanduser().absolute())


Uri = Annotated[str, AfterValidator(_no_secrets), AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of all sections: frozen, strict, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Columns(Section):
    """Columns of a table, ``source.kind = columns``; empty for one there is not."""

    time: str = ""
    """Times: numbers in the source's unit, or dates (UTC unless they say otherwise). A list makes
    its row a whole sequence."""
    sequence: str = ""
    """What the rows of one sequence share; empty: a file is one sequence."""
    type: str = ""
    """Type codes or names; empty: all events are of one type."""
    text: str = ""
    """Texts."""
    image: str = ""
    """Image paths relative to ``source.uri``."""
    interval: str = ""
    """Declared waiting times; only compared with the recomputed ones."""


class Taxi(Section):
    """What ``source.kind = taxi`` is built from."""

    trips: Uri = ""
    """Trip records of New York's TLC with zone ids, a CSV or Parquet file."""
    zones: Uri = ""
    """The TLC taxi zone shapefile, ending in .shp, its .dbf beside it."""
    sequence: Literal["day", "zone"] = "day"
    """What one sequence is."""


class Source(Section):
    """Where raw events come from."""

    kind: Literal["flights", "taxi", "danmaku", "danmaku_qa", "mmtpp", "easytpp", "columns"] = (
        "mmtpp"
    )
    """``mmtpp``: the published JSON, one file a sequence; ``danmaku``: Bilibili XML, one file a
    video; ``danmaku_qa``: its questions, JSON lines; ``easytpp``: pickles, JSON or rows of EasyTPP;
    ``columns``: CSV, JSON lines or Parquet by ``source.columns``; ``flights``, ``taxi``: built,
    written to ``source.uri`` as ``mmtpp`` and read back."""
    uri: Uri = ""
    """Folder with the raw files, or one file of them; a local path or s3://. Paths of images are
    relative to the folder."""
    flights_sequence: Literal["aircraft", "airport_day"] = "aircraft"
    """What one sequence of the demo source is."""
    seconds_per_unit: PositiveFloat = 1.0
    """Seconds in one unit of the source's times; 60 for minutes. For ``mmtpp``, ``easytpp`` and
    ``columns``: the other kinds know theirs."""
    types: Annotated[tuple[str, ...], Field(strict=False, max_length=MAX_TYPES)] = ()
    """Names of the event types in the order of their codes; needed when the files name types by
    strings. For ``mmtpp`` and ``columns``."""
    columns: Columns = Columns()
    """Columns of a table."""
    taxi: Taxi = Taxi()
    """Files the taxi source is built from."""
    max_rejected_fraction: Annotated[float, Field(ge=0, le=1)] = 0.01
    """``prepare`` fails when more than this share of the events is rejected."""
    malformed_file: Literal["fail", "reject"] = "fail"
    """What an unreadable event file does: stop the job, or be counted and kept as rejected."""
    max_image_pixels: PositiveInt = 50_000_000
    """Images with more pixels are rejected before they are decoded."""
    max_image_mib: PositiveInt = 64
    """Larger image files are rejected unread."""
    max_file_mib: PositiveInt = 1024
    """``prepare`` refuses larger event files: a process reads a file whole, and needs some ten
    times its size in memory."""
    max_workers: NonNegativeInt = 0
    """Processes of ``prepare``, a CPU each; 0 for as many as the cluster has or can bring."""

    @model_validator(mode="after")
    def _names_the_times(self) -> "Source":
        if self.kind == "columns" and not self.columns.time:
            raise ValueError("kind = columns needs source.columns.time, the column of times")
        return self


class Store(Section):
    """The event store that ``prepare`` writes and every later job reads."""

    uri: Uri = ""
    """Folder of the store; a local path or s3://."""
    cache_gib: NonNegativeFloat = 20.0
    """Disk that every machine may use to keep what it read of stores on S3; 0 for none."""
    cache_path: str = ""
    """Folder of that cache on every machine. Empty: $MMTPP_CACHE, else mmtpp in $XDG_CACHE_HOME or
    ~/.cache."""
    machine_labels: dict[str, str] = Field(default={})
    """Ray labels of the machines where Ray Data writes and reads the store, as ``{role = "data"}``.
    Empty: any machine."""


class Split(Section):
    """Shares of sequences held out; by a stable hash of the sequence id, for ``danmaku_qa`` of the
    events that are asked about."""

    validation_fraction: Fraction = 0.05
    """Share used for validation during training."""
    test_fraction: Fraction = 0.1
    """Share used only by ``evaluate``."""

    @model_validator(mode="after")
    def _leaves_training_data(self) -> "Split":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("validation_fraction + test_fraction must be below 1")
        return self


class Compression(Section):
    """Which events are written as one similar-event token."""

    strategy: Literal["none", "temporal", "anchored", "relative", "hybrid", "random_drop"] = (
        "temporal"
    )
    """Which events are similar. ``temporal``: the paper's rule, the interval differs by less than
    ``delta`` from the one directly before; ``anchored``: from that of the last kept event;
    ``relative``: as ``temporal`` for the logarithms of the intervals; ``hybrid``: as ``temporal``,
    and type, frame and text agree; ``random_drop``: a control, by chance; ``none``: keep all."""
    delta: NonNegativeFloat = 0.2
    """Threshold, the paper's capital delta, in the source's time unit; for ``relative`` a
    difference of natural logarithms."""
    run_encoding: Literal["token", "run_length"] = "token"
    """``token``: each similar event is one token (the paper); ``run_length``: a run of them is one
    token, their number and the time they span."""
    min_text_similarity: Annotated[float, Field(ge=0, le=1)] = 0.5
    """``hybrid`` only: share of common distinct tokens (Jaccard) from which texts agree."""
    drop_fraction: Fraction = 0.5
    """``random_drop`` only: chance of an event to be dropped."""


class Template(Section):
    """How an event is written as tokens."""

    style: Literal["paper", "compact", "minimal", "dense"] = "paper"
    """``paper``: the published layout, token for token; ``compact``: without its blanks and line
    breaks; ``minimal``: only what reading back needs; ``dense``: nor the end of the text."""
    time_bytes: Literal[2, 3, 4] = 4
    """Bytes of the time code; 4 is the paper's float32, 2 resolve an interval to 0.4 %."""
    images: Literal["per_event", "on_change", "none"] = "per_event"
    """When an event's image is shown."""
    image_px: Annotated[int, Field(ge=56, le=560, multiple_of=28)] = 56
    """Side of the square every image is resized to by ``prepare``, in pixels; 56 is 4 tokens."""


class Window(Section):
    """How sequences are cut into samples."""

    max_tokens: Annotated[int, Field(ge=64)] = 4096
    """Tokens in one packed sample, images included."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    """Share of a training window that repeats the one before as unscored context."""
    time_from: float = Field(default=-1e300)
    """Only events at or after this time, in the source's time unit."""
    time_to: float = Field(default=1e300)
    """Only events before this time, in the source's time unit."""


class Model(Section):
    """The backbone."""

    preset: Literal["tiny", "3b", "7b"] = "tiny"
    """``tiny`` is randomly initialised and built for CPU; ``3b`` and ``7b`` are Qwen2.5-VL and
    need ``model.path``."""
    path: Uri = ""
    """Folder with weights and tokenizer (Hugging Face layout): local, s3://, hf://OWNER/NAME@COMMIT
    of the hub, or empty for a fresh ``tiny``."""
    adapter: Uri = ""
    """PEFT adapter folder to put on ``model.path``; ``pretrain`` and ``finetune`` go on from it."""
    tokenizer_size: Annotated[int, Field(ge=512, le=65536)] = 1536
    """Entries of the byte-level BPE that ``prepare`` trains for a fresh ``tiny``."""
    tiny_width: Annotated[int, Field(ge=48, le=3072, multiple_of=48)] = 96
    """Width of a fresh ``tiny``'s language model; a folder of weights has its own."""
    tiny_layers: Annotated[int, Field(ge=1, le=64)] = 3
    """Layers of a fresh ``tiny``'s language model."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto``: bfloat16 on GPUs, float32 on CPU."""


class Lora(Section):
    """Low-rank adaptation of the language model."""

    rank: NonNegativeInt = 16
    """0 trains all parameters."""
    alpha: PositiveInt = 64
    """Scale numerator; the update is scaled by alpha / rank."""
    dropout: Fraction = 0.1
    """Dropout before the first LoRA matrix."""


class LossWeights(Section):
    """Weight of each modality in the training loss; reported losses are unweighted."""

    time: NonNegativeFloat = 1.0
    """Byte tokens of the interval."""
    type: NonNegativeFloat = 1.0
    """Byte token of the type."""
    text: NonNegativeFloat = 1.0
    """Text tokens."""
    control: NonNegativeFloat = 1.0
    """Markers, similar-event tokens included."""


class Tasks(Section):
    """What ``finetune`` asks about every event; the weight of each answer in the loss, 0 for tasks
    that are not asked. The answers' tokens are weighted by ``training.loss_weights`` as well."""

    time: NonNegativeFloat = 1.0
    """The interval, from the history."""
    type: NonNegativeFloat = 1.0
    """The type, from the history."""
    joint: NonNegativeFloat = 1.0
    """The type, when the interval is known: with ``time`` the joint distribution of the event."""
    text: NonNegativeFloat = 0.0
    """The text, when interval and image are known."""
    qa: NonNegativeFloat = 0.0
    """The answers to the questions in words that come with a sequence, from all of its events that
    fit."""
    history: NonNegativeFloat = 0.0
    """The events of the history, as in stage 1; keeps the model from forgetting it."""

    @model_validator(mode="after")
    def _asks_something(self) -> "Tasks":
        if not self.asked:
            raise ValueError("one of time, type, joint, text and qa must be above 0")
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the tasks that are asked."""
        names = ("time", "type", "joint", "text", "qa")
        return tuple(name for name in names if getattr(self, name))


class Training(Section):
    """Optimisation and its workers."""

    num_steps: PositiveInt = 1000
    """Optimiser updates of the whole run."""
    max_flops: NonNegativeFloat = 0.0
    """Operations of the whole run, forward and backward, from which its number of updates follows,
    to compare fresh ``tiny`` models of several sizes. 0: ``num_steps`` says it."""
    num_workers: PositiveInt = 1
    """Ray Train workers; one a GPU."""
    min_workers: NonNegativeInt = 0
    """Go on with as few workers as this while machines are missing; batches stay the same. 0: wait
    for all of them."""
    seed: NonNegativeInt = 0
    """Decides initialisation, order and dropout."""
    samples_per_step: PositiveInt = 8
    """Global batch in packed samples, constant whatever the number of workers."""
    learning_rate: PositiveFloat = 1e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.01
    """AdamW weight decay."""
    warmup_fraction: Fraction = 0.1
    """Share of the steps with rising learning rate."""
    final_lr_fraction: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Learning rate of the last step over the peak."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradient clipping threshold (L2 norm over all trained parameters)."""
    loss_weights: LossWeights = LossWeights()
    """Relative weight of each modality."""
    time_smoothing: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Spread the label of an interval over its neighbours among the time codes, which tokens do not
    know to be near: standard deviation in octaves, factors of two of the interval, so that 0.125 is
    some 9 %. 0, the paper: not at all."""
    freeze_vision: bool = False
    """Leave the vision tower as it is. With LoRA (``lora.rank`` above 0) it always is."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    device: Literal["auto", "gpu", "cpu"] = "auto"
    """``auto``: GPUs when the cluster has any now. Say ``gpu`` where an autoscaler brings them."""
    cpus_per_worker: PositiveFloat = 1.0
    """CPUs reserved for each worker."""
    machine_labels: dict[str, str] = Field(default={})
    """Ray labels of the machines of these workers, and of those that evaluate and export, as
    ``{role = "train"}``. Empty: any machine."""
    log_every: PositiveInt = 10
    """Steps between logged metrics."""
    checkpoint_every: PositiveInt = 100
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Newest checkpoints kept."""
    upload_patience_s: NonNegativeFloat = 600.0
    """Seconds to keep trying to upload a checkpoint, beside training, while the storage is away."""
    validation_sequences: NonNegativeInt = 32
    """Validation sequences scored, whole, a seeded choice; 0 skips validation."""
    validate_every: NonNegativeInt = 0
    """Steps between validations; the model that scores best is kept beside the last one. 0: only at
    the end."""
    hang_timeout_s: Annotated[float, Field(ge=10)] = 300.0
    """Seconds without progress after which the workers that hang are named and the run resumes from
    its last checkpoint."""
    max_failures: Annotated[int, Field(ge=-1)] = 3
    """Worker failures survived by resuming from the last checkpoint; -1 for any number."""


class Zero(Section):
    """DeepSpeed ZeRO."""

    stage: Annotated[int, Field(ge=0, le=3)] = 2
    """What is sharded: 0 nothing, 1 optimiser, 2 and gradients, 3 and parameters."""
    offload: bool = False
    """Keep optimiser state in host memory (stages 1 to 3, GPUs)."""


class Evaluation(Section):
    """Scoring on held-out sequences."""

    split: Literal["validation", "test"] = "test"
    """Which held-out sequences."""
    max_sequences: NonNegativeInt = 0
    """Score only the first so many sequences by id; 0 for all."""
    overlap_fraction: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """Share of a window spent on unscored context, so that every target has history."""
    targets_delta: NonNegativeFloat = 0.0
    """Score only events that temporal compression with this delta would keep; set it to the
    largest delta when comparing several, so that all are scored on the same events."""
    batch_windows: PositiveInt = 8
    """Windows scored by one task before it reports."""
    futures: NonNegativeInt = 0
    """Possible futures drawn from each origin, for the metrics of long horizons; 0 for none."""
    horizon: NonNegativeFloat = 0.0
    """How far the futures go, in the source's time unit; above 0 where there are any."""
    origins: PositiveInt = 4
    """Events of each held-out sequence that futures go on from, evenly spaced."""
    max_future_events: PositiveInt = 50
    """Of one future, should it not reach the horizon before; futures that are cut are counted."""
    written_texts: NonNegativeInt = 0
    """Targets drawn at random whose texts are also written, not only scored; about so many."""

    @model_validator(mode="after")
    def _has_horizon(self) -> "Evaluation":
        if self.futures and not self.horizon:
            raise ValueError("futures need a horizon above 0")
        return self


class Generation(Section):
    """Texts and answers in words that the model writes, token by token, the likeliest each time."""

    max_tokens: PositiveInt = 64
    """Of a text; a longer one is cut."""
    min_tokens: NonNegativeInt = 0
    """A text does not end before."""
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0
    """Divides the odds of tokens that the text has already; 1 for none."""
    no_repeat_ngram: NonNegativeInt = 0
    """No sequence of so many tokens comes twice in a text; 0 for no such rule."""

    @model_validator(mode="after")
    def _can_end(self) -> "Generation":
        if self.min_tokens > self.max_tokens:
            raise ValueError("min_tokens must not be above max_tokens")
        return self


class Prediction(Section):
    """Forecasts of the event that comes next."""

    format: Literal["parquet", "jsonl"] = "parquet"
    """Of the files."""
    quantiles: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] = (
        0.05, 0.25, 0.5, 0.75, 0.95,
    )  # fmt: skip
    """Of the interval, each above 0 and below 1, in order."""
    sequences_per_file: PositiveInt = 10_000
    """Forecasts of a file."""
    futures: NonNegativeInt = 0
    """Possible continuations drawn for each sequence, event after event; 0 for none."""
    horizon: NonNegativeFloat = 0.0
    """How far they go beyond the last event, in the source's time unit; 0: by their events only."""
    max_future_events: PositiveInt = 20
    """Of one continuation, should it not reach the horizon before."""
    text: bool = False
    """Write the next event's text, as of its median time and without an image."""

    @model_validator(mode="after")
    def _in_order(self) -> "Prediction":
        levels = (0.0, *self.quantiles, 1.0)
        if any(low >= high for low, high in pairwise(levels)):
            raise ValueError("quantiles must increase, above 0 and below 1")
        return self


class Run(Section):
    """Identity and place of the run."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9._-]*$", max_length=100)
    """Folder below ``run.storage_uri`` and MLflow run name. Empty: preset and fingerprint, so the
    same settings resume the same run."""
    storage_uri: Uri = ""
    """Checkpoints, adapters and logs; a local path or s3://."""
    wait_for_machines_s: NonNegativeFloat = 1800.0
    """Seconds to wait for machines that an autoscaler is bringing, at the start and after a loss;
    at the start half a minute at most where there is none, and not for what it cannot bring."""


class Tracking(Section):
    """MLflow."""

    uri: Uri = ""
    """Tracking server or sqlite:/// file. Empty: MLFLOW_TRACKING_URI, else mlruns.db here."""
    experiment: str = Field(default="mmtpp", min_length=1)
    """MLflow experiment."""
    parent_run_id: str = ""
    """MLflow run this one is a child of; set by sweeps."""
    register_as: str = Field(default="", pattern=r"^[A-Za-z0-9 ._-]*$", max_length=200)
    """Name under which fine-tuned models are registered in MLflow's model registry, the trials of a
    sweep not; empty for not at all."""
    max_artifact_mib: PositiveInt = 200
    """Adapter and model folders up to this size are logged as artifacts, larger ones as a link."""


class RunConfig(Section):
    """The whole configuration of one job."""

    run: Run = Run()
    source: Source = Source()
    store: Store = Store()
    split: Split = Split()
    compression: Compression = Compression()
    template: Template = Template()
    window: Window = Window()
    model: Model = Model()
    lora: Lora = Lora()
    tasks: Tasks = Tasks()
    training: Training = Training()
    zero: Zero = Zero()
    evaluation: Evaluation = Evaluation()
    generation: Generation = Generation()
    prediction: Prediction = Prediction()
    tracking: Tracking = Tracking()
