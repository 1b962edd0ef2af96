"""RunConfig -> DeepSpeed configuration; pure, no DeepSpeed import."""

from mmtpp.config.schema import RunConfig
from mmtpp.core.sample_order import num_micro_batches

BUCKET_ELEMENTS = 5 * 10**8  # DeepSpeed's default for what is reduced at once


def deepspeed_config(
    config: RunConfig, *, num_ranks: int, precision: str, on_gpu: bool
) -> dict[str, object]:
    """The dict for ``deepspeed.initialize``: one packed row is one micro-batch.

    Args:
        config: the run's settings.
        num_ranks: workers in the group.
        precision: ``float32`` or ``bfloat16``.
        on_gpu: optimiser offload is for GPUs only.

    Returns:
        The dict. ``stage_of`` tells the stage, which is 0 for one rank in float32.
    """
    training, zero = config.training, config.zero
    offload = zero.offload and on_gpu and zero.stage > 0
    # one rank shards nothing, and DeepSpeed's bookkeeping costs milliseconds a micro-batch;
    # bfloat16 needs a stage that keeps float32 weights beside it
    alone = num_ranks == 1 and precision == "float32" and not offload
    passes = 2 if config.optimizer.variance_reduction else 1
    sharding: dict[str, object] = {"stage": 0 if alone else zero.stage}
    if offload:
        sharding["offload_optimizer"] = {"device": "cpu"}
    if zero.stage == 3 and not on_gpu:  # ranks share the memory, and gathering is a copy within it
        sharding |= {"stage3_max_live_parameters": 10**8, "stage3_max_reuse_distance": 10**8}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": passes
        * num_micro_batches(training.samples_per_step, num_ranks=num_ranks),
        # without ZeRO the engine clips: it must know the norm before, to refuse a damaged one
        "gradient_clipping": training.max_grad_norm if sharding["stage"] else 0.0,
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,  # ours; needs no compiler
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # sums of many micro-batches
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def with_bucket(deepspeed_config: dict[str, object], *, num_trained: int) -> dict[str, object]:
    """The same, with a gradient bucket no larger than the gradients.

    DeepSpeed makes one of 5e8 elements, 1 to 2 GB, also for the 30 M parameters of an adapter.
    """
    sharding = deepspeed_config["zero_optimization"]
    assert isinstance(sharding, dict)
    size = min(BUCKET_ELEMENTS, num_trained)
    return {**deepspeed_config, "zero_optimization": {**sharding, "reduce_bucket_size": size}}


def stage_of(deepspeed_config: dict[str, object]) -> int:
    """ZeRO's stage in what ``deepspeed_config`` made."""
    sharding = deepspeed_config["zero_optimization"]
    assert isinstance(sharding, dict)
    return sharding["stage"]
