"""Does a training fit, and how long does it take: memory of each GPU by component, and speed.

Parameters are counted on the model itself and activations by autograd, both on the meta device,
where tensors take no memory. The remaining components follow from what DeepSpeed keeps. Axes: T
tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface

from mmtpp.compat.torch_hooks import storage_id
from mmtpp.compat.transformers_hooks import set_attention
from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection
from mmtpp.experiments.variance_reduction import num_gradient_passes
from mmtpp.model.attention import NO_MASK
from mmtpp.model.backbones.registry import family_named
from mmtpp.model.full_size import planned_config
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.model.parameters.token_rows import LOGITS_BYTES
from mmtpp.model.tokens.vocabulary import NUM_ADDED
from mmtpp.train.engine.zero import BUCKET_ELEMENTS
from mmtpp.train.optimizer.gathered_matrices import BUCKET
from mmtpp.train.optimizer.optimizer import DESCENT, state_names, update_rule
from mmtpp.train.optimizer.state_codec import bytes_per_parameter

GIB = 2**30
WEIGHT_BYTES = 2  # bfloat16
GRADIENT_BYTES = 4  # gradients are accumulated in float32
MASTER_BYTES = 4  # float32 weight
LOGITS_COPIES = 4.5  # copies of float32 logits: logarithms, gradients and two in bfloat16
LIVE_PARAMETERS = 10**9  # DeepSpeed's default for the parameters that ZeRO-3 keeps gathered
DIRECTION_BYTES = 16  # per element of a matrix while its direction is computed
RUNTIME_GIB = 1.5  # CUDA's context, NCCL's buffers and libraries
HEADROOM = 0.9  # usable fraction of the memory; the allocator loses space between its blocks


@dataclass(frozen=True, slots=True)
class Workload:
    """A training to plan.

    Attributes:
        model: ``3b`` or ``7b`` for Qwen2.5-VL, or a local model folder.
        lora_rank: Rank of LoRA; 0 trains all parameters.
        max_tokens: Length of a packed row, which is a micro-batch.
        samples_per_step: Number of packed rows in a step.
        optimizer: Rule of an update.
        optimizer_precision: How the optimiser's states are kept.
    """

    model: str
    lora_rank: int
    max_tokens: int
    samples_per_step: int
    optimizer: OptimizerSection = field(default_factory=OptimizerSection)
    optimizer_precision: OptimizerPrecisionSection = field(
        default_factory=OptimizerPrecisionSection
    )


@dataclass(frozen=True, slots=True)
class Counts:
    """Sizes counted on the meta device.

    Attributes:
        family: Name of the model's family.
        parameters: Number of parameters of the model.
        trained: Number of trained parameters.
        states: Numbers that the optimiser keeps between updates, besides float32 weights.
        largest: Elements of the largest matrix that the optimiser orthogonalises; 0 without one.
        embedding: Elements of an untied embedding, which takes part in no product.
        num_layers: Number of layers of the language model.
        layer_bytes: Bytes of activations that one layer keeps for its backward pass.
        layer_input_bytes: Bytes kept per layer whose activations are recomputed.
        vocabulary: Number of rows of the head.
    """

    family: str
    parameters: int
    trained: int
    states: int
    largest: int
    embedding: int
    num_layers: int
    layer_bytes: int
    layer_input_bytes: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Option:
    """One way to train.

    Attributes:
        stage: ZeRO stage.
        checkpointing: Whether activations are recomputed.
        offload: Whether the optimiser's state is in host memory.
    """

    stage: int
    checkpointing: bool
    offload: bool


# from the fastest to the one that needs least memory
OPTIONS = (
    Option(1, checkpointing=False, offload=False),
    Option(2, checkpointing=False, offload=False),
    Option(1, checkpointing=True, offload=False),
    Option(2, checkpointing=True, offload=False),
    Option(3, checkpointing=True, offload=False),
    Option(2, checkpointing=True, offload=True),
    Option(3, checkpointing=True, offload=True),
)


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """Peak memory of one GPU by component, in GiB.

    Attributes:
        weights: The model's weights, or this GPU's shard of them.
        gathered: Parameters that ZeRO-3 keeps gathered.
        gradients: Gradients and the buckets in which they are reduced.
        optimizer: The optimiser's states and float32 weights.
        activations: Activations kept for the backward pass.
        logits: Logits of a chunk of labels.
        update: Memory that an update or a checkpoint takes beyond the activations and logits, which
            are freed by then.
        runtime: CUDA's context and libraries.
        host: Host memory per GPU that offloading takes; not part of ``total``.
    """

    weights: float
    gathered: float
    gradients: float
    optimizer: float
    activations: float
    logits: float
    update: float
    runtime: float
    host: float

    @property
    def total(self) -> float:
        """Memory that one GPU must have."""
        return sum(getattr(self, name) for name in COMPONENTS)


COMPONENTS = tuple(
    component.name for component in fields(GpuMemory) if component.name != "host"
)  # the components in a GPU's memory


@dataclass(frozen=True, slots=True)
class Speed:
    """An estimate of speed.

    Attributes:
        tokens_per_s: Tokens per second of all GPUs.
        flops_per_token: Operations per token: forward, backward and recomputation.
    """

    tokens_per_s: float
    flops_per_token: float


def count_sizes(workload: Workload) -> Counts:
    """Count the parameters and activations of a workload."""
    config = planned_config(workload.model)
    family = family_named(config.model_type, where=workload.model)
    model = _on_meta(config, workload.lora_rank)
    named = [
        (name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad
    ]
    optimizer = workload.optimizer
    text = family.text_config(config)
    one_layer, two_layers = (_saved_bytes(workload, num_layers) for num_layers in (1, 2))
    return Counts(
        family=family.title,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        trained=sum(parameter.numel() for _, parameter in named),
        states=sum(
            parameter.numel() * len(state_names(optimizer, update_rule(optimizer, name, parameter)))
            for name, parameter in named
        ),
        largest=max(
            (
                parameter.numel()
                for name, parameter in named
                if optimizer.rule.needs_matrices
                and update_rule(optimizer, name, parameter) == DESCENT
            ),
            default=0,
        ),
        embedding=0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size,
        num_layers=text.num_hidden_layers,
        layer_bytes=two_layers - one_layer,
        layer_input_bytes=workload.max_tokens * text.hidden_size * WEIGHT_BYTES,
        vocabulary=text.vocab_size,
    )


def allowed_options(optimizer: OptimizerSection) -> list[Option]:
    """Ways to train that an optimiser allows, the fastest first."""
    return [
        option
        for option in OPTIONS
        if not (optimizer.rule.needs_matrices and (option.stage == 3 or option.offload))
        and not (optimizer.variance_reduction and option.stage == 3)
    ]


def estimate_memory(counts: Counts, workload: Workload, option: Option, *, gpus: int) -> GpuMemory:
    """Peak memory of one GPU.

    Args:
        counts: Counted sizes of the workload.
        workload: The training.
        option: The way to train.
        gpus: Number of GPUs.
    """
    stage = option.stage
    weights = counts.parameters * WEIGHT_BYTES / (gpus if stage == 3 else 1)
    gathered = min(counts.parameters, LIVE_PARAMETERS) * WEIGHT_BYTES if stage == 3 else 0
    gradients = counts.trained * GRADIENT_BYTES / (gpus if stage >= 2 else 1)
    buckets = min(counts.trained, BUCKET_ELEMENTS) * WEIGHT_BYTES * (2 if stage >= 2 else 1)
    state_bytes = counts.states * bytes_per_parameter(workload.optimizer_precision.stored_states)
    optimizer = (counts.trained * MASTER_BYTES + state_bytes) / (gpus if stage else 1)
    if workload.optimizer.variance_reduction:
        weights += counts.trained * WEIGHT_BYTES  # previous weights, whole on every GPU
    update = _update_bytes(counts, workload, gpus if stage else 1)
    activations = counts.num_layers * counts.layer_bytes
    if option.checkpointing:
        activations = counts.num_layers * counts.layer_input_bytes + counts.layer_bytes
    logits = min(LOGITS_BYTES, 4 * counts.vocabulary * workload.max_tokens) * LOGITS_COPIES
    return GpuMemory(
        weights=weights / GIB,
        gathered=gathered / GIB,
        gradients=(gradients + buckets) / GIB,
        optimizer=0 if option.offload else optimizer / GIB,
        activations=activations / GIB,
        logits=logits / GIB,
        update=0 if option.offload else max(0, update - activations - logits) / GIB,
        runtime=RUNTIME_GIB,
        host=(optimizer + update) / GIB if option.offload else 0.0,
    )


def _update_bytes(counts: Counts, workload: Workload, num_shards: int) -> float:
    """Bytes that an update or a checkpoint takes while it runs."""
    decoded = 0.0
    if workload.optimizer_precision.stored_states == "int8":
        # a checkpoint decodes one state at a time
        decoded = counts.trained * MASTER_BYTES / num_shards
    if not workload.optimizer.rule.needs_matrices:
        return decoded
    momentum = counts.trained * MASTER_BYTES / num_shards  # becomes the direction
    gathered = max(min(counts.trained, BUCKET), counts.largest) * MASTER_BYTES
    return max(decoded, momentum + gathered + counts.largest * DIRECTION_BYTES)


def recommend(
    counts: Counts, workload: Workload, *, gpus: int, gpu_gib: float
) -> tuple[Option, GpuMemory] | None:
    """The fastest option that fits, with its memory; None when no option fits."""
    for option in allowed_options(workload.optimizer):
        memory = estimate_memory(counts, workload, option, gpus=gpus)
        if memory.total <= HEADROOM * gpu_gib:
            return option, memory
    return None


def estimate_speed(
    counts: Counts, workload: Workload, option: Option, *, gpus: int, tflops: float, mfu: float
) -> Speed:
    """Tokens per second if the GPUs reach a fraction of their peak.

    Args:
        counts: Counted sizes of the workload.
        workload: The training.
        option: The way to train.
        gpus: Number of GPUs.
        tflops: Peak of one GPU in dense bfloat16.
        mfu: Fraction of the peak that useful work reaches (model FLOPs utilisation).
    """
    used = counts.parameters - counts.embedding  # as if every token passed the vision tower
    # two products of T x T / 2 x D in a layer, as if a row were one sequence
    attention = 2 * counts.num_layers * counts.layer_input_bytes / WEIGHT_BYTES
    forward = 2 * used + attention
    backward = 2 * used + 2 * min(counts.trained, used) + 2 * attention
    flops = forward + backward + (forward if option.checkpointing else 0)
    flops *= num_gradient_passes(workload.optimizer)
    return Speed(gpus * tflops * 1e12 * mfu / flops, float(flops))


def _on_meta(config: Any, lora_rank: int) -> Any:
    family = family_named(config.model_type, where="the planner")
    with torch.device("meta"):
        model: Any = family.model_class(config)
        if lora_rank:
            rows = list(range(NUM_ADDED))
            attach_lora(model, rows, rank=lora_rank, alpha=4 * lora_rank, dropout=0.1)
        elif (tower := family.vision_tower(model)) is not None:
            tower.requires_grad_(False)  # as in the printed settings
    return model.to(torch.bfloat16)


class _FlashAttention(torch.autograd.Function):
    """Keeps the tensors that a flash kernel keeps: inputs, output and the row sums' logarithms."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> torch.Tensor:
        out = torch.empty_like(query)
        sums = query.new_empty(query.shape[:3], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, sums)
        return out


def _flash(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _mask: None,
    **_kwargs: object,
) -> tuple[torch.Tensor, None]:
    out: Callable[..., torch.Tensor] = _FlashAttention.apply  # pyright: ignore[reportAssignmentType]
    return out(query, key, value).transpose(1, 2), None


def _saved_bytes(workload: Workload, num_layers: int) -> int:
    """Bytes that autograd keeps of a forward pass through ``num_layers``, without parameters."""
    config = planned_config(workload.model)
    family = family_named(config.model_type, where=workload.model)
    text = family.text_config(config)
    text.num_hidden_layers = num_layers
    if getattr(text, "layer_types", None):
        text.layer_types = text.layer_types[:num_layers]
    if family.image_format is not None:
        config.vision_config.depth = 1
    model = _on_meta(config, workload.lora_rank).train()
    language_model = family.language_model(model)
    AttentionInterface.register("mmtpp_counted", _flash)
    set_attention(language_model.config, "mmtpp_counted")
    parameters = {storage_id(parameter.untyped_storage()) for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage_id(storage) not in parameters:
            kept[storage_id(storage)] = storage  # kept alive, so that no other gets its id
        return tensor

    width = text.hidden_size
    embeds = torch.empty(
        (1, workload.max_tokens, width), device="meta", dtype=torch.bfloat16, requires_grad=True
    )
    positions = torch.empty((3, 1, workload.max_tokens), device="meta", dtype=torch.int64)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        language_model(
            inputs_embeds=embeds,
            position_ids=family.position_ids(positions),
            attention_mask=NO_MASK,
            use_cache=False,
        )
    return sum(storage.nbytes() for storage in kept.values())
