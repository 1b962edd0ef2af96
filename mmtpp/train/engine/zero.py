"""The settings of DeepSpeed's ZeRO. Pure: does not import DeepSpeed."""

from mmtpp.config.schema import OptimizerSection, TrainingSection, ZeroSection
from mmtpp.core.training.sample_order import num_micro_batches
from mmtpp.experiments.variance_reduction import num_gradient_passes

BUCKET_ELEMENTS = 5 * 10**8  # DeepSpeed's default for the elements that are reduced at once


def build_deepspeed_config(
    training: TrainingSection,
    zero: ZeroSection,
    optimizer: OptimizerSection,
    *,
    num_ranks: int,
    precision: str,
    on_gpu: bool,
) -> dict[str, object]:
    """The configuration for ``deepspeed.initialize``. One packed row is one micro-batch.

    Args:
        training: Size of a step, and clipping.
        zero: ZeRO stage and offloading.
        optimizer: Settings of the optimiser.
        num_ranks: Number of ranks in the group.
        precision: ``float32`` or ``bfloat16``.
        on_gpu: Whether ranks have GPUs; without, nothing is offloaded.

    Returns:
        DeepSpeed's configuration. Its stage, see ``zero_stage``, is 0 for one rank in float32.
    """
    offload = zero.offload and on_gpu and zero.stage > 0
    # One rank has nothing to shard, and DeepSpeed's bookkeeping costs milliseconds per micro-batch.
    # bfloat16 needs a stage that keeps float32 weights, too.
    is_alone = num_ranks == 1 and precision == "float32" and not offload
    sharding: dict[str, object] = {"stage": 0 if is_alone else zero.stage}
    if offload:
        sharding["offload_optimizer"] = {"device": "cpu"}
    if zero.stage == 3 and not on_gpu:  # ranks share the memory, and gathering copies within it
        sharding |= {"stage3_max_live_parameters": 10**8, "stage3_max_reuse_distance": 10**8}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": num_gradient_passes(optimizer)
        * num_micro_batches(training.samples_per_step, num_ranks=num_ranks),
        # Without ZeRO the engine clips: it needs the norm before the update, to refuse an update
        # that is not finite.
        "gradient_clipping": training.max_grad_norm if sharding["stage"] else 0.0,
        "zero_optimization": sharding,
        "zero_allow_untested_optimizer": True,  # the project's own optimiser needs no compiler
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": precision == "bfloat16"},
        "data_types": {"grad_accum_dtype": "fp32"},  # sums of many micro-batches
        "steps_per_print": 10**9,
        "wall_clock_breakdown": False,
    }


def with_bucket_size(deepspeed_config: dict[str, object], *, num_trained: int) -> dict[str, object]:
    """The same configuration, with a gradient bucket no larger than the gradients.

    DeepSpeed's default is 5e8 elements, 1 to 2 GB, even for the 30 M parameters of an adapter.
    """
    sharding = deepspeed_config["zero_optimization"]
    assert isinstance(sharding, dict)
    size = min(BUCKET_ELEMENTS, num_trained)
    return {**deepspeed_config, "zero_optimization": {**sharding, "reduce_bucket_size": size}}


def zero_stage(deepspeed_config: dict[str, object]) -> int:
    """The ZeRO stage of a configuration that ``build_deepspeed_config`` made."""
    sharding = deepspeed_config["zero_optimization"]
    assert isinstance(sharding, dict)
    return sharding["stage"]
