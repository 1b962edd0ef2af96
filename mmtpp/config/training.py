"""Settings of the model and of its training."""

import math
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from mmtpp.config.section import Fraction, Section, Uri
from mmtpp.config.shapes import Shapes


class Model(Section):
    """The backbone."""

    preset: Annotated[Literal["tiny", "3b", "7b"], Shapes.RUN] = "tiny"
    """``tiny`` is randomly initialised and built for CPU; ``3b`` and ``7b`` are Qwen2.5-VL and
    need ``model.path``."""
    path: Annotated[Uri, Shapes.RUN] = ""
    """Folder with weights and tokenizer (Hugging Face layout): local, s3://, hf://OWNER/NAME@COMMIT
    of the hub, or empty for a fresh ``tiny``."""
    adapter: Annotated[Uri, Shapes.RUN] = ""
    """PEFT adapter folder to put on ``model.path``; ``pretrain`` and ``finetune`` go on from it."""
    tokenizer_size: Annotated[int, Field(ge=512, le=65536), Shapes.STORE] = 1536
    """Entries of the byte-level BPE that ``prepare`` trains for a fresh ``tiny``."""
    tiny_width: Annotated[int, Field(ge=24, le=3072, multiple_of=24), Shapes.RUN] = 96
    """Width of a fresh ``tiny``'s language model; a folder of weights has its own."""
    tiny_layers: Annotated[int, Field(ge=1, le=64), Shapes.RUN] = 3
    """Layers of a fresh ``tiny``'s language model."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Shapes.RUN] = "auto"
    """``auto``: bfloat16 on GPUs, float32 on CPU."""


class Lora(Section):
    """Low-rank adaptation of the language model."""

    rank: Annotated[NonNegativeInt, Shapes.RUN] = 16
    """0 trains all parameters."""
    alpha: Annotated[PositiveInt, Shapes.RUN] = 64
    """Scale numerator; the update is scaled by alpha / rank."""
    dropout: Annotated[Fraction, Shapes.RUN] = 0.1
    """Dropout before the first LoRA matrix."""


class LossWeights(Section):
    """Weight of each modality in the training loss; reported losses are unweighted."""

    time: Annotated[NonNegativeFloat, Shapes.RUN] = 1.0
    """Byte tokens of the interval."""
    type: Annotated[NonNegativeFloat, Shapes.RUN] = 1.0
    """Byte token of the type."""
    text: Annotated[NonNegativeFloat, Shapes.RUN] = 1.0
    """Text tokens."""
    control: Annotated[NonNegativeFloat, Shapes.RUN] = 1.0
    """Markers, similar-event tokens included."""


class Tasks(Section):
    """What ``finetune`` asks about every event; the weight of each answer in the loss, 0 for tasks
    that are not asked. The answers' tokens are weighted by ``training.loss_weights`` as well."""

    time: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 1.0
    """The interval, from the history."""
    type: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 1.0
    """The type, from the history."""
    joint: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 1.0
    """The type, when the interval is known: with ``time`` the joint distribution of the event."""
    text: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 0.0
    """The text, when interval and image are known."""
    qa: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 0.0
    """The answers to the questions in words that come with a sequence, from all of its events that
    fit."""
    history: Annotated[NonNegativeFloat, Shapes.FINETUNE] = 0.0
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

    num_steps: Annotated[PositiveInt, Shapes.STEPS] = 1000
    """Optimiser updates of the whole run."""
    max_flops: Annotated[NonNegativeFloat, Shapes.STEPS] = 0.0
    """Operations of the whole run, forward and backward, from which its number of updates follows,
    to compare fresh ``tiny`` models of several sizes. 0: ``num_steps`` says it."""
    num_workers: Annotated[PositiveInt, Shapes.NOTHING] = 1
    """Ray Train workers; one a GPU."""
    min_workers: Annotated[NonNegativeInt, Shapes.NOTHING] = 0
    """Go on with as few workers as this while machines are missing; batches stay the same. 0: wait
    for all of them."""
    seed: Annotated[NonNegativeInt, Shapes.RUN] = 0
    """Decides initialisation, order and dropout."""
    samples_per_step: Annotated[PositiveInt, Shapes.RUN] = 8
    """Global batch in packed samples, constant whatever the number of workers."""
    learning_rate: Annotated[PositiveFloat, Shapes.RUN] = 1e-4
    """Peak learning rate."""
    weight_decay: Annotated[NonNegativeFloat, Shapes.RUN] = 0.01
    """Decoupled weight decay, times the learning rate."""
    warmup_fraction: Annotated[Fraction, Shapes.RUN] = 0.1
    """Share of the steps with rising learning rate."""
    final_lr_fraction: Annotated[float, Field(gt=0, le=1), Shapes.RUN] = 0.03
    """Learning rate of the last step over the peak."""
    max_grad_norm: Annotated[PositiveFloat, Shapes.RUN] = 1.0
    """Gradient clipping threshold (L2 norm over all trained parameters)."""
    loss_weights: LossWeights = LossWeights()
    """Relative weight of each modality."""
    time_smoothing: Annotated[float, Field(ge=0, le=2), Shapes.RUN] = 0.0
    """Spread the label of an interval over its neighbours among the time codes, which tokens do not
    know to be near: standard deviation in octaves, factors of two of the interval, so that 0.125 is
    some 9 %. 0, the paper: not at all."""
    freeze_vision: Annotated[bool, Shapes.RUN] = False
    """Leave the vision tower unchanged. With LoRA (``lora.rank`` above 0) and without images
    (``template.images = "none"``) it always is."""
    activation_checkpointing: Annotated[bool, Shapes.NOTHING] = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    device: Annotated[Literal["auto", "gpu", "cpu"], Shapes.NOTHING] = "auto"
    """``auto``: GPUs when the cluster has any now. Say ``gpu`` where an autoscaler brings them."""
    cpus_per_worker: Annotated[PositiveFloat, Shapes.NOTHING] = 1.0
    """CPUs reserved for each worker."""
    machine_labels: Annotated[dict[str, str], Shapes.NOTHING] = Field(default={})
    """Ray labels of the machines of these workers, and of those that evaluate and export, as
    ``{role = "train"}``. Empty: any machine."""
    log_every: Annotated[PositiveInt, Shapes.NOTHING] = 10
    """Steps between logged metrics."""
    checkpoint_every: Annotated[PositiveInt, Shapes.NOTHING] = 100
    """Steps between checkpoints."""
    keep_checkpoints: Annotated[PositiveInt, Shapes.NOTHING] = 2
    """Newest checkpoints kept."""
    upload_patience_s: Annotated[NonNegativeFloat, Shapes.NOTHING] = 600.0
    """Seconds to keep trying to upload a checkpoint, beside training, while the storage is away."""
    validation_sequences: Annotated[NonNegativeInt, Shapes.RUN] = 32
    """Validation sequences scored, whole, a seeded choice; 0 skips validation."""
    validate_every: Annotated[NonNegativeInt, Shapes.NOTHING] = 0
    """Steps between validations; the model that scores best is kept beside the last one. 0: only at
    the end."""
    hang_timeout_s: Annotated[float, Field(ge=10), Shapes.NOTHING] = 300.0
    """Seconds without progress after which the workers that hang are named and the run resumes from
    its last checkpoint."""
    max_failures: Annotated[int, Field(ge=-1), Shapes.NOTHING] = 3
    """Worker failures survived by resuming from the last checkpoint; -1 for any number."""


class Zero(Section):
    """DeepSpeed ZeRO."""

    stage: Annotated[int, Field(ge=0, le=3), Shapes.NOTHING] = 2
    """What is sharded: 0 nothing, 1 optimiser, 2 and gradients, 3 and parameters."""
    offload: Annotated[bool, Shapes.NOTHING] = False
    """Keep optimiser state in host memory (stages 1 to 3, GPUs)."""


def _named_infinity(value: object) -> object:
    return "inf" if value == math.inf else value


Exponent = Annotated[
    Literal["inf"] | Annotated[float, Field(ge=1)], BeforeValidator(_named_infinity)
]


class Optimizer(Section):
    """The rule of an update; its learning rate and weight decay are ``training``'s."""

    name: Annotated[Literal["adamw", "muon", "signsgd", "signum", "steepest"], Shapes.RUN] = "adamw"
    """``adamw``; ``muon``: the momentum of each hidden matrix, LoRA's included, orthogonalised, and
    AdamW for the rest; ``signsgd``: the sign of the gradient; ``signum``: of its momentum;
    ``steepest``: steepest descent in the norm of ``geometry`` and ``p``."""
    beta1: Annotated[Fraction, Shapes.RUN] = 0.9
    """AdamW's decay of the first moment."""
    beta2: Annotated[Fraction, Shapes.RUN] = 0.95
    """AdamW's decay of the second moment."""
    momentum: Annotated[Fraction, Shapes.RUN] = 0.95
    """Decay of the momentum of ``muon``, ``signum`` and ``steepest``; 0 for none."""
    nesterov: Annotated[bool, Shapes.RUN] = True
    """``muon`` only: look one gradient ahead of the momentum."""
    geometry: Annotated[Literal["entrywise", "schatten"], Shapes.RUN] = "schatten"
    """``steepest`` only: the norm is of a tensor's entries, or of a hidden matrix' singular values
    (then AdamW moves the rest)."""
    p: Annotated[Exponent, Shapes.RUN] = "inf"
    """``steepest`` only: exponent of the norm, 1 or more, or "inf". Entrywise: inf is the sign, 2
    the normalised gradient, 1 its largest entry. Schatten: inf is Muon's exactly, 2 as entrywise.
    """
    match_rms: Annotated[bool, Shapes.RUN] = True
    """``steepest`` only: scale each tensor's step to a root mean square of 0.2, about AdamW's, so
    that learning rates carry over, as ``muon`` always does. False: to norm 1."""
    variance_reduction: Annotated[bool, Shapes.RUN] = False
    """Correct the momentum by the gradient of the same samples at the weights before (STORM): twice
    the time and one copy of the trained weights more. Not for ``adamw`` and ``signsgd``."""

    @model_validator(mode="after")
    def _reduces_variance_of_momentum(self) -> "Optimizer":
        if self.variance_reduction and (self.name in ("adamw", "signsgd") or not self.momentum):
            raise ValueError(
                "variance_reduction corrects a momentum: it needs name = muon, signum or steepest "
                f"with momentum above 0; here name = {self.name}, momentum = {self.momentum:g}"
            )
        return self

    @property
    def needs_matrices(self) -> bool:
        """Whether an update needs tensors whole, not their shards."""
        if self.name == "steepest":
            return self.geometry == "schatten" or self.p != "inf"
        return self.name == "muon"


class Rounding(Section):
    """Rounding to a floating-point format with fewer bits, simulated."""

    mantissa_bits: Annotated[int, Field(ge=0, le=23), Shapes.RUN] = 23
    """Stored bits of the mantissa; float32 has 23, bfloat16 7, float8 e4m3 3."""
    exponent_bits: Annotated[int, Field(ge=2, le=8), Shapes.RUN] = 8
    """Bits of the exponent; float32 and bfloat16 have 8. Larger values become the largest."""
    mode: Annotated[Literal["nearest", "stochastic"], Shapes.RUN] = "nearest"
    """``nearest``, ties to even; ``stochastic``: up or down by chance, right on average."""

    @model_validator(mode="after")
    def _has_something_to_round(self) -> "Rounding":
        if self.mode == "stochastic" and self.changes_nothing:
            raise ValueError(
                "mode = stochastic rounds nothing at float32's mantissa_bits = 23, exponent_bits = "
                "8: say how many bits are left"
            )
        return self

    @property
    def changes_nothing(self) -> bool:
        """float32 stays as it is."""
        return self.mantissa_bits == 23 and self.exponent_bits == 8


class Precision(Section):
    """Numbers of the optimiser. How the model itself computes is ``model.precision``."""

    gradients: Rounding = Rounding()
    """Of gradients, after they were clipped."""
    weights: Rounding = Rounding()
    """Of trained weights, after every update."""
    states: Rounding = Rounding()
    """Of momentum and moments, after every update."""
    stored_states: Annotated[Literal["float32", "bfloat16", "int8"], Shapes.RUN] = "float32"
    """How momentum and moments are kept: 4, 2 or 1 bytes. ``int8`` in blocks of 256 with a scale
    each, and tensors of less than 4,096 elements as bfloat16; needs the extra ``lowbit``."""

    @model_validator(mode="after")
    def _rounds_states_once(self) -> "Precision":
        if self.stored_states != "float32" and not self.states.changes_nothing:
            raise ValueError(
                "states are either kept in fewer bits or rounded as if they were: "
                f"stored_states = {self.stored_states} with states.mantissa_bits = "
                f"{self.states.mantissa_bits}, states.exponent_bits = {self.states.exponent_bits}"
            )
        return self
