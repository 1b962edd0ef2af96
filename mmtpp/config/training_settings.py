"""Settings of training: the loss, its schedule, the workers and their checkpoints."""

from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mmtpp.config.affects import Affects
from mmtpp.config.section import Fraction, Section
from mmtpp.core.representation.tasks import TASKS


class LossWeights(Section):
    """Weights of the modalities in the training loss, at least 0. Of the reported losses only
    ``weighted_loss_per_token`` has them."""

    time: Annotated[NonNegativeFloat, Affects.RUN] = 1.0
    """Weight of the byte tokens of the interval."""
    type: Annotated[NonNegativeFloat, Affects.RUN] = 1.0
    """Weight of the byte token of the type."""
    text: Annotated[NonNegativeFloat, Affects.RUN] = 1.0
    """Weight of the text tokens."""
    control: Annotated[NonNegativeFloat, Affects.RUN] = 1.0
    """Weight of the markers, similar-event tokens included."""


class TaskWeights(Section):
    """Tasks of ``finetune``, and of the ``update`` of a language model: the weights of their
    answers in the loss, at least 0; 0 turns a task off. ``training.loss_weights`` applies to the
    tokens of the answers as well."""

    time: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 1.0
    """Weight of the interval, given the history."""
    type: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 1.0
    """Weight of the type, given the history."""
    joint: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 1.0
    """Weight of the type, given the history and the interval. With ``time`` the model learns the
    joint distribution of interval and type."""
    text: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 0.0
    """Weight of the text, given the interval and the image."""
    qa: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 0.0
    """Weight of the answers to the questions in words that belong to a sequence, given the events
    of the sequence that fit."""
    history: Annotated[NonNegativeFloat, Affects.FINETUNE, Affects.UPDATE] = 0.0
    """Weight of the events of the history, as in stage 1; above 0 it prevents forgetting."""

    @model_validator(mode="after")
    def _asks_something(self) -> "TaskWeights":
        if not self.asked:
            raise ValueError(f"one of {', '.join(TASKS)} must be above 0")
        return self

    @property
    def asked(self) -> tuple[str, ...]:
        """Names of the tasks with a weight above 0."""
        return tuple(name for name in TASKS if getattr(self, name))


class TrainingSection(Section):
    """Optimisation and its workers."""

    num_steps: Annotated[PositiveInt, Affects.STEPS] = 1000
    """Number of optimiser updates of the whole run, above 0."""
    max_flops: Annotated[NonNegativeFloat, Affects.STEPS] = 0.0
    """Number of floating-point operations of the whole run, forward and backward, from which the
    number of updates is computed. Above 0 it replaces ``num_steps``, to compare new ``tiny`` models
    of several sizes."""
    num_workers: Annotated[PositiveInt, Affects.NOTHING] = 1
    """Number of Ray Train workers, one per GPU, above 0."""
    min_workers: Annotated[NonNegativeInt, Affects.NOTHING] = 0
    """Minimum number of workers with which training continues while machines are missing; batches
    stay the same. 0 waits for all workers."""
    seed: Annotated[NonNegativeInt, Affects.RUN] = 0
    """Seed, at least 0, of initialisation, sample order, packing, dropout, random
    marks of compression, the bootstrap and sampled futures."""
    samples_per_step: Annotated[PositiveInt, Affects.RUN] = 8
    """Global batch in packed samples, above 0, independent of the number of workers."""
    learning_rate: Annotated[PositiveFloat, Affects.RUN] = 1e-4
    """Peak learning rate, above 0."""
    weight_decay: Annotated[NonNegativeFloat, Affects.RUN] = 0.01
    """Decoupled weight decay, at least 0; the learning rate multiplies it."""
    warmup_fraction: Annotated[Fraction, Affects.RUN] = 0.1
    """Share of the steps in which the learning rate rises, at least 0 and less than 1."""
    lr_schedule: Annotated[Literal["linear", "cosine", "constant"], Affects.RUN] = "linear"
    """Learning rate after the warm-up: it falls to ``training.final_lr_fraction`` on a line
    (default) or on half a cosine, or it stays ``constant``. A temporal expert always has
    ``linear``."""
    final_lr_fraction: Annotated[float, Field(gt=0, le=1), Affects.RUN] = 0.03
    """Learning rate of the last step as a share of the peak, above 0, at most 1; without effect if
    ``training.lr_schedule`` is ``constant``."""
    max_grad_norm: Annotated[PositiveFloat, Affects.RUN] = 1.0
    """Threshold of gradient clipping, above 0: the L2 norm over all trained parameters."""
    loss_weights: LossWeights = LossWeights()
    """Weights of the modalities in the loss."""
    time_smoothing: Annotated[float, Field(ge=0, le=2), Affects.RUN] = 0.0
    """Standard deviation of the kernel that spreads the label of an interval over neighbouring time
    codes, in octaves (factors of two), 0 to 2; 0.125 is about 9 %. 0, as in the paper: no
    smoothing."""
    freeze_vision: Annotated[bool, Affects.RUN] = False
    """Whether the vision tower stays unchanged. It always does with LoRA (``lora.rank`` above 0)
    and without images (``template.images = "none"``)."""
    activation_checkpointing: Annotated[bool, Affects.NOTHING] = False
    """Whether the backward pass recomputes activations: less memory, about a third more time."""
    device: Annotated[Literal["auto", "gpu", "cpu"], Affects.NOTHING] = "auto"
    """Device of the workers. ``auto``: GPUs if the cluster has any at start-up; set ``gpu`` if an
    autoscaler launches them."""
    cpus_per_worker: Annotated[PositiveFloat, Affects.NOTHING] = 1.0
    """Number of CPUs reserved for each worker, above 0."""
    machine_labels: Annotated[dict[str, str], Affects.NOTHING] = Field(default={})
    """Ray labels of the machines that train, evaluate and export, such as ``{role = "train"}``.
    Empty: any machine."""
    log_every: Annotated[PositiveInt, Affects.NOTHING] = 10
    """Number of steps between logged metrics, above 0."""
    checkpoint_every: Annotated[PositiveInt, Affects.NOTHING] = 100
    """Number of steps between checkpoints, above 0."""
    keep_checkpoints: Annotated[PositiveInt, Affects.NOTHING] = 2
    """Number of newest checkpoints that are kept, above 0."""
    upload_timeout_s: Annotated[NonNegativeFloat, Affects.NOTHING] = 600.0
    """Maximum time to retry the upload of a checkpoint while the storage cannot be reached, in
    seconds. Training continues meanwhile."""
    validation_sequences: Annotated[NonNegativeInt, Affects.RUN] = 32
    """Number of whole validation sequences that are scored, a seeded choice; 0 skips validation."""
    validate_every: Annotated[NonNegativeInt, Affects.UPDATE] = 0
    """Number of steps between validations; the best model is kept in addition to the last one, and
    ``update`` compares the best one. 0 validates only at the end."""
    hang_timeout_s: Annotated[float, Field(ge=10), Affects.NOTHING] = 300.0
    """Time without progress, in seconds, at least 10, after which the run names the hanging workers
    and resumes from its last checkpoint."""
    max_failures: Annotated[int, Field(ge=-1), Affects.NOTHING] = 3
    """Maximum number of failures of the workers, and of their controller, after which the run
    resumes from its last checkpoint; -1 for any number."""


class ZeroSection(Section):
    """DeepSpeed ZeRO."""

    stage: Annotated[int, Field(ge=0, le=3), Affects.NOTHING] = 2
    """State that is sharded over the workers, 0 to 3: 0 none; 1 optimiser state; 2 gradients as
    well; 3 parameters as well."""
    offload: Annotated[bool, Affects.NOTHING] = False
    """Whether optimiser state is in host memory (stages 1 to 3, GPUs only)."""
