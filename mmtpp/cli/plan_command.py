"""``python -m mmtpp plan``: settings, memory and time of a run, before a GPU is rented."""

import argparse
import sys

from mmtpp.config.load import section_from_tree
from mmtpp.config.schema import Optimizer, Precision
from mmtpp.core.errors import ConfigError
from mmtpp.planner.memory import (
    HEADROOM,
    MASTER_BYTES,
    WEIGHT_BYTES,
    Counts,
    Option,
    Workload,
    count,
    memory,
    recommend,
    speed,
    total_gib,
)
from mmtpp.planner.memory import options as allowed
from mmtpp.train.optimizer.states import bytes_per_parameter

COMPONENTS = (
    "weights",
    "gathered",
    "gradients",
    "optimizer",
    "activations",
    "logits",
    "update",
    "runtime",
)


def add_arguments(plan: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    plan.epilog = (
        "Memory is counted on the real architecture. Speed is an estimate, peak times --mfu: "
        "measure speed/tokens_per_s on ten steps before you rely on it."
    )
    plan.add_argument("--model", choices=["3b", "7b"], required=True, help="model.preset")
    plan.add_argument("--gpus", type=_positive, required=True, help="training.num_workers")
    plan.add_argument("--gpu-gib", type=float, required=True, help="memory of one GPU, GiB")
    plan.add_argument(
        "--lora-rank", type=int, default=16, help="0 trains all parameters; default %(default)s"
    )
    plan.add_argument(
        "--max-tokens", type=_positive, default=4096, help="window.max_tokens; default %(default)s"
    )
    plan.add_argument(
        "--samples-per-step", type=_positive, default=64, help="global batch; default %(default)s"
    )
    plan.add_argument(
        "--optimizer",
        choices=["adamw", "muon", "signsgd", "signum", "steepest"],
        default="adamw",
        help="optimizer.name",
    )
    plan.add_argument(
        "--states",
        choices=["float32", "bfloat16", "int8"],
        default="float32",
        help="precision.stored_states",
    )
    plan.add_argument(
        "--variance-reduction", action="store_true", help="optimizer.variance_reduction"
    )
    plan.add_argument(
        "--tflops",
        type=float,
        default=312.0,
        help="peak of a GPU in dense bfloat16: L4 121, A100 312, H100 989; default %(default)g",
    )
    plan.add_argument(
        "--mfu",
        type=float,
        default=0.35,
        help="share of the peak that is reached; default %(default)g",
    )
    plan.add_argument(
        "--tokens",
        type=float,
        default=0.0,
        help="of an epoch, compressed: data/samples x --max-tokens",
    )
    plan.add_argument("--usd-per-gpu-hour", type=float, default=0.0, help="price, for the cost")


def run(options: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        ConfigError: nothing fits.
    """
    faults: list[str] = []
    optimizer = section_from_tree(
        Optimizer,
        {"name": options.optimizer, "variance_reduction": options.variance_reduction},
        faults,
        prefix="optimizer.",
    )
    if optimizer is None:
        raise ConfigError("; ".join(faults))
    workload = Workload(
        preset=options.model,
        lora_rank=options.lora_rank,
        max_tokens=options.max_tokens,
        samples_per_step=max(options.samples_per_step, options.gpus),
        optimizer=optimizer,
        precision=Precision(stored_states=options.states),
    )
    counts = count(workload)
    lines = [
        f"Qwen2.5-VL {workload.preset}: {counts.parameters:,} parameters, {counts.trained:,} "
        f"trained ({'LoRA rank ' + str(workload.lora_rank) if workload.lora_rank else 'all'})",
        f"{optimizer.name}, states in {options.states}: {_state_bytes(counts, workload):.1f} bytes "
        "a trained parameter, its float32 weight included",
        f"GiB on each of {options.gpus} GPUs, rows of {workload.max_tokens} tokens, bfloat16, "
        "a frozen vision tower:",
        "",
        f"{'':28}" + "".join(f"{name:>12}" for name in (*COMPONENTS, "total", "on host")),
    ]
    for option in allowed(workload):
        components = memory(counts, workload, option, gpus=options.gpus)
        cells = [components[name] for name in COMPONENTS]
        cells += [total_gib(components), components["host"]]
        fits = "" if total_gib(components) <= HEADROOM * options.gpu_gib else "  too large"
        lines.append(f"{_name(option):28}" + "".join(f"{cell:12.2f}" for cell in cells) + fits)
    sys.stdout.write("\n".join(lines) + "\n")
    found = recommend(counts, workload, gpus=options.gpus, gpu_gib=options.gpu_gib)
    if found is None:
        raise ConfigError(
            f"nothing fits {options.gpus} GPUs of {options.gpu_gib:g} GiB",
            cause="use more or larger GPUs, fewer tokens in a row, or LoRA",
            setting=f"--max-tokens = {workload.max_tokens}, --lora-rank = {workload.lora_rank}",
        )
    option = found[0]
    estimate = speed(
        counts, workload, option, gpus=options.gpus, tflops=options.tflops, mfu=options.mfu
    )
    step_s = workload.samples_per_step * workload.max_tokens / estimate.tokens_per_s
    lines = [
        "",
        f"recommended: {_name(option)}, the fastest that leaves a tenth of the memory free",
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
    lines += ["", _config(workload, option, gpus=options.gpus)]
    sys.stdout.write("\n".join(lines) + "\n")


def _state_bytes(counts: Counts, workload: Workload) -> float:
    kept = counts.states * bytes_per_parameter(workload.precision.stored_states)
    before = WEIGHT_BYTES if workload.optimizer.variance_reduction else 0
    return MASTER_BYTES + before + kept / counts.trained


def _name(option: Option) -> str:
    parts = [f"ZeRO-{option.stage}"]
    parts += ["recomputing"] if option.checkpointing else []
    parts += ["offload"] if option.offload else []
    return ", ".join(parts)


def _config(workload: Workload, option: Option, *, gpus: int) -> str:
    """The settings as TOML, to put into a job's file."""
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
            "freeze_vision = true # its activations are not counted above",
            "",
            "[optimizer]",
            f'name = "{workload.optimizer.name}"',
            f"variance_reduction = {flag[workload.optimizer.variance_reduction]}",
            "",
            "[precision]",
            f'stored_states = "{workload.precision.stored_states}"',
            "",
            "[zero]",
            f"stage = {option.stage}",
            f"offload = {flag[option.offload]}",
        ]
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)
