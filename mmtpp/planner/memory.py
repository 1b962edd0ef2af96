"""Will it fit, and how long will it take: memory of each GPU by component, and speed.

Parameters are counted on the model itself and activations by autograd, both on the meta device,
where nothing has memory; the rest is arithmetic on what DeepSpeed keeps. Axes: T tokens, D width.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.autograd.graph import saved_tensors_hooks
from transformers import AttentionInterface, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmtpp.config.schema import Optimizer, Precision
from mmtpp.model.full_size import FullSize, full_size_config
from mmtpp.model.lora import attach_lora
from mmtpp.model.token_rows import LOGITS_BYTES
from mmtpp.model.vocabulary import NUM_ADDED
from mmtpp.train.optimizer.optimizer import DESCENT, rule_of, state_names
from mmtpp.train.optimizer.states import bytes_per_parameter
from mmtpp.train.optimizer.whole import BUCKET
from mmtpp.train.zero import BUCKET_ELEMENTS

GIB = 2**30
WEIGHT_BYTES = 2  # bfloat16
GRADIENT_BYTES = 4  # accumulated in float32
MASTER_BYTES = 4  # float32 weight
LOGITS_COPIES = 4.5  # of float32 logits: logarithms, gradients and two in bfloat16
LIVE_PARAMETERS = 10**9  # DeepSpeed's default for what ZeRO-3 keeps gathered
DIRECTION_BYTES = 16  # of each element of a matrix while its direction is computed
RUNTIME_GIB = 1.5  # CUDA's context, NCCL's buffers and libraries
HEADROOM = 0.9  # of the memory: the allocator's fragments


@dataclass(frozen=True, slots=True)
class Workload:
    """What is to be trained.

    Attributes:
        preset: ``3b`` or ``7b``.
        lora_rank: 0 for all parameters.
        max_tokens: of a packed row, a micro-batch.
        samples_per_step: packed rows in a step.
        optimizer: the rule of an update.
        precision: how its states are kept.
    """

    preset: FullSize
    lora_rank: int
    max_tokens: int
    samples_per_step: int
    optimizer: Optimizer = field(default_factory=Optimizer)
    precision: Precision = field(default_factory=Precision)


@dataclass(frozen=True, slots=True)
class Counts:
    """Sizes counted on the meta device.

    Attributes:
        parameters: of the model.
        trained: of those.
        states: numbers that the optimiser keeps of them between updates, besides their weights.
        largest: elements of the largest matrix that the optimiser orthogonalises, 0 without one.
        embedding: of the embedding, which no token multiplies.
        num_layers: of the language model.
        layer_bytes: activations that one layer keeps for its backward pass.
        layer_input_bytes: what is kept of a layer whose activations are computed again.
        vocabulary: rows of the head.
    """

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
        stage: of ZeRO.
        checkpointing: activations are computed again.
        offload: optimiser state is in host memory.
    """

    stage: int
    checkpointing: bool
    offload: bool


# from the fastest to the smallest
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
class Speed:
    """An estimate from stated figures.

    Attributes:
        tokens_per_s: of all GPUs.
        flops_per_token: forward, backward and recomputation.
    """

    tokens_per_s: float
    flops_per_token: float


def count(workload: Workload) -> Counts:
    """Count parameters and activations of a workload."""
    config = full_size_config(workload.preset)
    model = _on_meta(config, workload.lora_rank)
    named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
    optimizer = workload.optimizer
    text: Any = config.text_config
    one, two = (_saved_bytes(workload, num_layers) for num_layers in (1, 2))
    return Counts(
        parameters=sum(each.numel() for each in model.parameters()),
        trained=sum(each.numel() for _, each in named),
        states=sum(
            each.numel() * len(state_names(optimizer, rule_of(optimizer, name, each)))
            for name, each in named
        ),
        largest=max(
            (
                each.numel()
                for name, each in named
                if optimizer.needs_matrices and rule_of(optimizer, name, each) == DESCENT
            ),
            default=0,
        ),
        embedding=0 if config.tie_word_embeddings else text.vocab_size * text.hidden_size,
        num_layers=text.num_hidden_layers,
        layer_bytes=two - one,
        layer_input_bytes=workload.max_tokens * text.hidden_size * WEIGHT_BYTES,
        vocabulary=text.vocab_size,
    )


def options(workload: Workload) -> list[Option]:
    """Ways to train that the optimiser allows, the fastest first."""
    optimizer = workload.optimizer
    return [
        each
        for each in OPTIONS
        if not (optimizer.needs_matrices and (each.stage == 3 or each.offload))
        and not (optimizer.variance_reduction and each.stage == 3)
    ]


def memory(counts: Counts, workload: Workload, option: Option, *, gpus: int) -> dict[str, float]:
    """Peak GiB of one GPU by component.

    ``update`` is what an update or a checkpoint takes beyond the activations and logits that are
    gone by then; ``host`` is what offloading puts beside the GPU.
    """
    stage = option.stage
    weights = counts.parameters * WEIGHT_BYTES / (gpus if stage == 3 else 1)
    gathered = min(counts.parameters, LIVE_PARAMETERS) * WEIGHT_BYTES if stage == 3 else 0
    gradients = counts.trained * GRADIENT_BYTES / (gpus if stage >= 2 else 1)
    buckets = min(counts.trained, BUCKET_ELEMENTS) * WEIGHT_BYTES * (2 if stage >= 2 else 1)
    state_bytes = counts.states * bytes_per_parameter(workload.precision.stored_states)
    optimizer = (counts.trained * MASTER_BYTES + state_bytes) / (gpus if stage else 1)
    if workload.optimizer.variance_reduction:
        weights += counts.trained * WEIGHT_BYTES  # those before, whole on each, offloaded or not
    updating = _updating(counts, workload, gpus if stage else 1)
    layers = counts.num_layers * counts.layer_bytes
    if option.checkpointing:
        layers = counts.num_layers * counts.layer_input_bytes + counts.layer_bytes
    logits = min(LOGITS_BYTES, 4 * counts.vocabulary * workload.max_tokens) * LOGITS_COPIES
    components = {
        "weights": weights,
        "gathered": gathered,
        "gradients": gradients + buckets,
        "optimizer": 0 if option.offload else optimizer,
        "activations": layers,
        "logits": logits,
        "update": 0 if option.offload else max(0, updating - layers - logits),
    }
    return {
        **{name: size / GIB for name, size in components.items()},
        "runtime": RUNTIME_GIB,
        "host": (optimizer + updating) / GIB if option.offload else 0.0,
    }


def _updating(counts: Counts, workload: Workload, ranks: int) -> float:
    """Bytes that an update or a checkpoint takes for a while."""
    if workload.precision.stored_states == "int8":
        shown = counts.trained * MASTER_BYTES / ranks  # one state at a time, as it is written
    else:
        shown = 0
    if not workload.optimizer.needs_matrices:
        return shown
    momentum = counts.trained * MASTER_BYTES / ranks  # becomes the direction
    gathered = max(min(counts.trained, BUCKET), counts.largest) * MASTER_BYTES
    return max(shown, momentum + gathered + counts.largest * DIRECTION_BYTES)


def total_gib(components: dict[str, float]) -> float:
    """What one GPU must hold."""
    return sum(size for name, size in components.items() if name != "host")


def recommend(
    counts: Counts, workload: Workload, *, gpus: int, gpu_gib: float
) -> tuple[Option, dict[str, float]] | None:
    """The fastest option that fits, with its memory; None when none does."""
    for option in options(workload):
        components = memory(counts, workload, option, gpus=gpus)
        if total_gib(components) <= HEADROOM * gpu_gib:
            return option, components
    return None


def speed(
    counts: Counts, workload: Workload, option: Option, *, gpus: int, tflops: float, mfu: float
) -> Speed:
    """Tokens a second if the GPUs reach a share of their peak.

    Args:
        counts: of the workload.
        workload: what is trained.
        option: how.
        gpus: how many.
        tflops: peak of one in dense bfloat16.
        mfu: share of that peak which useful work reaches (model FLOPs utilisation).
    """
    used = counts.parameters - counts.embedding  # the tower as if every token passed it
    # two products of T x T / 2 x D in a layer, as if a row were one sequence
    attention = 2 * counts.num_layers * counts.layer_input_bytes / WEIGHT_BYTES
    forward = 2 * used + attention
    backward = 2 * used + 2 * min(counts.trained, used) + 2 * attention
    hardware = forward + backward + (forward if option.checkpointing else 0)
    if workload.optimizer.variance_reduction:
        hardware *= 2  # every sample at two weights
    return Speed(gpus * tflops * 1e12 * mfu / hardware, float(hardware))


def _on_meta(config: Qwen2_5_VLConfig, lora_rank: int) -> Qwen2_5_VLForConditionalGeneration:
    with torch.device("meta"):
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
        if lora_rank:
            rows = list(range(NUM_ADDED))
            attach_lora(model, rows, rank=lora_rank, alpha=4 * lora_rank, dropout=0.1)
        else:
            model.model.visual.requires_grad_(False)  # as the settings that are printed say
    return model.to(torch.bfloat16)


class _FlashAttention(torch.autograd.Function):
    """What a flash kernel keeps: inputs, output and the logarithm of each row's sum."""

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
    **_others: object,
) -> tuple[torch.Tensor, None]:
    out: Callable[..., torch.Tensor] = _FlashAttention.apply  # pyright: ignore[reportAssignmentType]
    return out(query, key, value).transpose(1, 2), None


def _saved_bytes(workload: Workload, num_layers: int) -> int:
    """Bytes that autograd keeps of a forward pass through so many layers, parameters apart."""
    config: Any = full_size_config(workload.preset)
    config.text_config.num_hidden_layers = num_layers
    config.text_config.layer_types = config.text_config.layer_types[:num_layers]
    config.vision_config.depth = 1
    model = _on_meta(config, workload.lora_rank).train()
    language_model = model.model.language_model
    AttentionInterface.register("mmtpp_counted", _flash)
    language_model.config._attn_implementation = "mmtpp_counted"
    parameters = {each.untyped_storage()._cdata for each in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in parameters:
            kept[storage._cdata] = storage  # held, or another would get its address
        return tensor

    width = config.text_config.hidden_size
    embeds = torch.empty(
        (1, workload.max_tokens, width), device="meta", dtype=torch.bfloat16, requires_grad=True
    )
    positions = torch.empty((3, 1, workload.max_tokens), device="meta", dtype=torch.int64)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        language_model(
            inputs_embeds=embeds,
            position_ids=positions,
            attention_mask={"full_attention": None},
            use_cache=False,
        )
    return sum(storage.nbytes() for storage in kept.values())
