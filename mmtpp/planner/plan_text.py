"""The plan as text: a table of memory, an estimate of time and cost, and the settings of a job."""

from collections.abc import Mapping
from dataclasses import dataclass

from mmtpp.core.times.durations import format_duration
from mmtpp.planner.memory import (
    COMPONENTS,
    HEADROOM,
    MASTER_BYTES,
    WEIGHT_BYTES,
    Counts,
    Option,
    Workload,
    allowed_options,
    estimate_memory,
    estimate_speed,
)
from mmtpp.planner.scale import ScaleEstimate
from mmtpp.train.optimizer.state_codec import bytes_per_parameter


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs of a training.

    Attributes:
        count: Number of GPUs.
        gib: Memory of one GPU, in GiB.
        tflops: Peak of one GPU in dense bfloat16.
        mfu: Fraction of the peak that training reaches (model FLOPs utilisation).
        usd_per_hour: Price of one GPU; 0 if it is not known.
    """

    count: int
    gib: float
    tflops: float
    mfu: float
    usd_per_hour: float


def memory_table(counts: Counts, workload: Workload, gpus: Gpus) -> str:
    """Format the memory of one GPU as a table with one row per option."""
    trained = f"LoRA rank {workload.lora_rank}" if workload.lora_rank else "all"
    lines = [
        f"{counts.family} {workload.model}: {counts.parameters:,} parameters, {counts.trained:,} "
        f"trained ({trained})",
        f"{workload.optimizer.name}, states in {workload.optimizer_precision.stored_states}: "
        f"{_state_bytes(counts, workload):.1f} bytes per trained parameter, its float32 weight "
        "included",
        f"GiB on each of {gpus.count} GPUs, rows of {workload.max_tokens} tokens, bfloat16, "
        "a frozen vision tower:",
        "",
        f"{'':28}" + "".join(f"{name:>12}" for name in (*COMPONENTS, "total", "on host")),
    ]
    for option in allowed_options(workload.optimizer):
        memory = estimate_memory(counts, workload, option, gpus=gpus.count)
        cells = [getattr(memory, name) for name in COMPONENTS]
        cells += [memory.total, memory.host]
        verdict = "" if memory.total <= HEADROOM * gpus.gib else "  too large"
        name = option_name(option)
        lines.append(f"{name:28}" + "".join(f"{cell:12.2f}" for cell in cells) + verdict)
    return "\n".join(lines)


def time_estimate(
    counts: Counts, workload: Workload, option: Option, gpus: Gpus, *, tokens: float
) -> str:
    """Format the speed, and the time and the cost of an epoch.

    Args:
        counts: Counted sizes of the workload.
        workload: The training.
        option: The way to train.
        gpus: The GPUs.
        tokens: Number of tokens of an epoch; 0 if it is not known.
    """
    estimate = estimate_speed(
        counts, workload, option, gpus=gpus.count, tflops=gpus.tflops, mfu=gpus.mfu
    )
    step_s = workload.samples_per_step * workload.max_tokens / estimate.tokens_per_s
    text = (
        f"estimate at {gpus.mfu:.0%} of {gpus.tflops:g} TFLOPS per GPU: "
        f"{estimate.tokens_per_s:,.0f} tokens/s, {step_s:.1f} s a step of "
        f"{workload.samples_per_step} samples"
    )
    if not tokens:
        return text
    hours = tokens / estimate.tokens_per_s / 3600
    cost = f", {hours * gpus.count * gpus.usd_per_hour:,.0f} USD" if gpus.usd_per_hour else ""
    return f"{text}\nan epoch of {tokens:,.0f} tokens: {hours:,.1f} h{cost}"


def scale_table(estimates: Mapping[int, tuple[Option, ScaleEstimate] | None]) -> str:
    """Format trainings on clusters as a table with one row per number of GPUs.

    Args:
        estimates: Way to train and estimate by number of GPUs; None where the training does not
            fit.
    """
    heads = ("computes", "sends", "GB sent", "rows/s", "checkpoint", "written", "failure", "best")
    lines = [
        "a step and what failures cost, by number of GPUs: seconds of computing and of sending "
        "(they overlap in part), GB that a GPU sends, packed rows that the feed delivers; GB of a "
        "checkpoint, seconds to write it, time between failures, best time between checkpoints, "
        "time lost then and at training.checkpoint_every:",
        "",
        f"{'GPUs':>6} {'way':24}" + "".join(f"{head:>11}" for head in heads) + "   lost   lost now",
    ]
    for num_gpus, estimate in estimates.items():
        if estimate is None:
            lines.append(f"{num_gpus:6,} does not fit")
            continue
        option, scale = estimate
        cells = (
            f"{scale.compute_s:.2f} s",
            f"{scale.send_s:.2f} s",
            f"{scale.sent_bytes / 1e9:.2f}",
            f"{scale.rows_per_s:,.1f}",
            f"{scale.checkpoint_bytes / 1e9:,.1f} GB",
            f"{scale.checkpoint_s:.1f} s",
            format_duration(scale.mtbf_s),
            format_duration(scale.best_interval_s),
        )
        lines.append(
            f"{num_gpus:6,} {option_name(option):24}"
            + "".join(f"{cell:>11}" for cell in cells)
            + f"{scale.lost_at_best:7.1%}{scale.lost_at_settings:11.1%}"
        )
    return "\n".join(lines)


def settings_as_arguments(workload: Workload, option: Option, *, num_gpus: int) -> str:
    """Format the settings as ``--set`` arguments of a job, to paste after its ``--config``."""
    settings = {
        "window.max_tokens": workload.max_tokens,
        "model.preset" if workload.model in ("3b", "7b") else "model.path": workload.model,
        "lora.rank": workload.lora_rank,
        "training.device": "gpu",
        "training.num_workers": num_gpus,
        "training.samples_per_step": workload.samples_per_step,
        "training.activation_checkpointing": _toml_flag(option.checkpointing),
        "training.freeze_vision": _toml_flag(True),
        "optimizer.name": workload.optimizer.name,
        "optimizer.variance_reduction": _toml_flag(workload.optimizer.variance_reduction),
        "optimizer_precision.stored_states": workload.optimizer_precision.stored_states,
        "zero.stage": option.stage,
        "zero.offload": _toml_flag(option.offload),
    }
    return " \\\n".join(f"  --set {path}={value}" for path, value in settings.items())


def option_name(option: Option) -> str:
    """Name of an option, such as ``ZeRO-2, recomputing``."""
    parts = [f"ZeRO-{option.stage}"]
    parts += ["recomputing"] if option.checkpointing else []
    parts += ["offload"] if option.offload else []
    return ", ".join(parts)


def _state_bytes(counts: Counts, workload: Workload) -> float:
    """Bytes per trained parameter that the optimiser keeps."""
    state_bytes = counts.states * bytes_per_parameter(workload.optimizer_precision.stored_states)
    previous = WEIGHT_BYTES if workload.optimizer.variance_reduction else 0
    return MASTER_BYTES + previous + state_bytes / counts.trained


def _toml_flag(value: bool) -> str:
    return "true" if value else "false"
