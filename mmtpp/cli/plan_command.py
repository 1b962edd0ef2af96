"""``mmtpp plan``: settings, memory and time of a run, before a GPU is rented."""

import argparse
import sys

from mmtpp.config.load import section_from_tree
from mmtpp.config.schema import Optimizer, OptimizerPrecision
from mmtpp.core.errors import ConfigError
from mmtpp.planner.memory import (
    COMPONENTS,
    HEADROOM,
    MASTER_BYTES,
    WEIGHT_BYTES,
    Counts,
    Option,
    Workload,
    allowed_options,
    count_sizes,
    estimate_memory,
    estimate_speed,
    recommend,
)
from mmtpp.train.optimizer.state_codec import bytes_per_parameter


def add_arguments(plan: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    plan.epilog = (
        "Memory is counted on the real architecture. Speed is an estimate, peak times --mfu: "
        "measure speed/tokens_per_s on ten steps before you rely on the estimate."
    )
    plan.add_argument(
        "--model", choices=["3b", "7b"], required=True, help="size of the model, model.preset"
    )
    plan.add_argument(
        "--gpus", type=_positive, required=True, help="number of GPUs, training.num_workers"
    )
    plan.add_argument("--gpu-gib", type=float, required=True, help="memory of one GPU, GiB")
    plan.add_argument(
        "--lora-rank",
        type=int,
        default=16,
        help="rank of LoRA, lora.rank; 0 trains all parameters; default %(default)s",
    )
    plan.add_argument(
        "--max-tokens",
        type=_positive,
        default=4096,
        help="tokens of a packed row, window.max_tokens; default %(default)s",
    )
    plan.add_argument(
        "--samples-per-step",
        type=_positive,
        default=64,
        help="packed rows in a step, training.samples_per_step; default %(default)s",
    )
    _add_optimizer_arguments(plan)
    _add_speed_arguments(plan)


def _add_optimizer_arguments(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--optimizer",
        choices=["adamw", "muon", "signsgd", "signum", "steepest"],
        default="adamw",
        help="rule of an update, optimizer.name; default %(default)s",
    )
    plan.add_argument(
        "--states",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="format of the optimiser's states, optimizer_precision.stored_states; "
        "default %(default)s",
    )
    plan.add_argument(
        "--variance-reduction",
        action="store_true",
        help="compute every gradient twice, optimizer.variance_reduction",
    )


def _add_speed_arguments(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--tflops",
        type=float,
        default=312.0,
        help="peak of one GPU in dense bfloat16: L4 121, A100 312, H100 989; default %(default)g",
    )
    plan.add_argument(
        "--mfu",
        type=float,
        default=0.35,
        help="fraction of the peak that training reaches; default %(default)g",
    )
    plan.add_argument(
        "--tokens",
        type=float,
        default=0.0,
        help="tokens of an epoch after compression: data/samples x --max-tokens; prints its time",
    )
    plan.add_argument(
        "--usd-per-gpu-hour",
        type=float,
        default=0.0,
        help="price of one GPU, in USD per hour; prints the cost of an epoch",
    )


def run(options: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        ConfigError: No option fits.
    """
    workload = _workload(options)
    counts = count_sizes(workload)
    lines = _memory_table(counts, workload, gpus=options.gpus, gpu_gib=options.gpu_gib)
    sys.stdout.write("\n".join(lines) + "\n")
    recommendation = recommend(counts, workload, gpus=options.gpus, gpu_gib=options.gpu_gib)
    if recommendation is None:
        raise ConfigError(
            f"the training does not fit {options.gpus} GPUs of {options.gpu_gib:g} GiB",
            cause="use more or larger GPUs, fewer tokens in a row, or LoRA",
            setting=f"--max-tokens = {workload.max_tokens}, --lora-rank = {workload.lora_rank}",
        )
    option, _ = recommendation
    lines = [
        "",
        f"recommended: {_name(option)}, the fastest that leaves a tenth of the memory free",
        *_time_estimate(counts, workload, option, options),
        "",
        _toml_settings(workload, option, gpus=options.gpus),
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _workload(options: argparse.Namespace) -> Workload:
    faults: list[str] = []
    optimizer = section_from_tree(
        Optimizer,
        {"name": options.optimizer, "variance_reduction": options.variance_reduction},
        faults,
        prefix="optimizer.",
    )
    if optimizer is None:
        raise ConfigError("; ".join(faults))
    return Workload(
        preset=options.model,
        lora_rank=options.lora_rank,
        max_tokens=options.max_tokens,
        samples_per_step=max(options.samples_per_step, options.gpus),
        optimizer=optimizer,
        precision=OptimizerPrecision(stored_states=options.states),
    )


def _memory_table(counts: Counts, workload: Workload, *, gpus: int, gpu_gib: float) -> list[str]:
    """Lines of a table with one row per option."""
    trained = f"LoRA rank {workload.lora_rank}" if workload.lora_rank else "all"
    lines = [
        f"Qwen2.5-VL {workload.preset}: {counts.parameters:,} parameters, {counts.trained:,} "
        f"trained ({trained})",
        f"{workload.optimizer.name}, states in {workload.precision.stored_states}: "
        f"{_state_bytes(counts, workload):.1f} bytes a trained parameter, its float32 weight "
        "included",
        f"GiB on each of {gpus} GPUs, rows of {workload.max_tokens} tokens, bfloat16, "
        "a frozen vision tower:",
        "",
        f"{'':28}" + "".join(f"{name:>12}" for name in (*COMPONENTS, "total", "on host")),
    ]
    for option in allowed_options(workload.optimizer):
        memory = estimate_memory(counts, workload, option, gpus=gpus)
        cells = [getattr(memory, name) for name in COMPONENTS]
        cells += [memory.total, memory.host]
        verdict = "" if memory.total <= HEADROOM * gpu_gib else "  too large"
        lines.append(f"{_name(option):28}" + "".join(f"{cell:12.2f}" for cell in cells) + verdict)
    return lines


def _time_estimate(
    counts: Counts, workload: Workload, option: Option, options: argparse.Namespace
) -> list[str]:
    """Lines with the speed, and with the time and cost of an epoch if its tokens are given."""
    estimate = estimate_speed(
        counts, workload, option, gpus=options.gpus, tflops=options.tflops, mfu=options.mfu
    )
    step_s = workload.samples_per_step * workload.max_tokens / estimate.tokens_per_s
    lines = [
        f"estimate at {options.mfu:.0%} of {options.tflops:g} TFLOPS a GPU: "
        f"{estimate.tokens_per_s:,.0f} tokens/s, {step_s:.1f} s a step",
    ]
    if options.tokens:
        hours = options.tokens / estimate.tokens_per_s / 3600
        cost = f", {hours * options.gpus * options.usd_per_gpu_hour:,.0f} USD"
        lines.append(
            f"an epoch of {options.tokens:,.0f} tokens: {hours:,.1f} h"
            + (cost if options.usd_per_gpu_hour else "")
        )
    return lines


def _state_bytes(counts: Counts, workload: Workload) -> float:
    """Bytes per trained parameter that the optimiser keeps."""
    state_bytes = counts.states * bytes_per_parameter(workload.precision.stored_states)
    previous = WEIGHT_BYTES if workload.optimizer.variance_reduction else 0
    return MASTER_BYTES + previous + state_bytes / counts.trained


def _name(option: Option) -> str:
    parts = [f"ZeRO-{option.stage}"]
    parts += ["recomputing"] if option.checkpointing else []
    parts += ["offload"] if option.offload else []
    return ", ".join(parts)


def _toml_settings(workload: Workload, option: Option, *, gpus: int) -> str:
    """The settings as TOML, for the configuration file of a job."""
    flag = {True: "true", False: "false"}
    return "\n".join(
        [
            "[window]",
            f"max_tokens = {workload.max_tokens}",
            "",
            "[model]",
            f'preset = "{workload.preset}"',
            "",
            "[lora]",
            f"rank = {workload.lora_rank}",
            "",
            "[training]",
            'device = "gpu"',
            f"num_workers = {gpus}",
            f"samples_per_step = {workload.samples_per_step}",
            f"activation_checkpointing = {flag[option.checkpointing]}",
            "freeze_vision = true # the table does not count the tower's activations",
            "",
            "[optimizer]",
            f'name = "{workload.optimizer.name}"',
            f"variance_reduction = {flag[workload.optimizer.variance_reduction]}",
            "",
            "[optimizer_precision]",
            f'stored_states = "{workload.precision.stored_states}"',
            "",
            "[zero]",
            f"stage = {option.stage}",
            f"offload = {flag[option.offload]}",
        ]
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)
