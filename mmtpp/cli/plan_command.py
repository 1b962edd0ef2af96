"""``mmtpp plan``: settings, memory and time of a run, before a GPU is rented."""

import argparse
import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mmtpp.config.load import load_config, with_values
from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection, RunConfig, Section
from mmtpp.core.errors import ConfigError

if TYPE_CHECKING:  # torch and transformers, which --help does not need
    from mmtpp.planner.memory import Counts, Option, Workload
    from mmtpp.planner.scale import ScaleEstimate

# settings that an option overrides, by the name of the option
_OVERRIDES = {
    "lora_rank": "lora.rank",
    "max_tokens": "window.max_tokens",
    "samples_per_step": "training.samples_per_step",
    "optimizer": "optimizer.name",
    "states": "optimizer_precision.stored_states",
    "variance_reduction": "optimizer.variance_reduction",
}


def add_arguments(plan: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    plan.description = (
        "Estimates the memory of a GPU for every way to train, and prints the fastest way that "
        "fits as --set arguments of a job. An option without a value has the value of its setting "
        "in FILE.toml, or the default of the setting."
    )
    plan.epilog = (
        "Memory is counted on the real architecture. Speed is an estimate, peak times --mfu: "
        "measure speed/tokens_per_s on ten steps before you rely on the estimate."
    )
    plan.add_argument(
        "--model",
        required=True,
        help="3b or 7b of Qwen2.5-VL, model.preset, or a local model folder, model.path",
    )
    plan.add_argument(
        "--gpus", type=_positive, required=True, help="number of GPUs, training.num_workers"
    )
    plan.add_argument(
        "--gpu-gib", type=_positive_number, required=True, help="memory of one GPU, GiB"
    )
    plan.add_argument("--config", metavar="FILE.toml", type=Path, help="settings of the job")
    _add_setting_arguments(plan)
    _add_speed_arguments(plan)
    _add_scale_arguments(plan)


def _add_setting_arguments(plan: argparse.ArgumentParser) -> None:
    defaults = RunConfig()
    plan.add_argument(
        "--lora-rank",
        type=_not_negative,
        help="rank of LoRA, lora.rank; 0 trains all parameters; default of the setting: "
        f"{defaults.lora.rank}",
    )
    plan.add_argument(
        "--max-tokens",
        type=_positive,
        help="tokens of a packed row, window.max_tokens; default of the setting: "
        f"{defaults.window.max_tokens}",
    )
    plan.add_argument(
        "--samples-per-step",
        type=_positive,
        help="packed rows in a step, training.samples_per_step, at least one for each GPU; default "
        f"of the setting: {defaults.training.samples_per_step}",
    )
    plan.add_argument(
        "--optimizer",
        choices=_allowed_values(OptimizerSection, "name"),
        help="rule of an update, optimizer.name; default of the setting: "
        f"{defaults.optimizer.name}",
    )
    plan.add_argument(
        "--states",
        choices=_allowed_values(OptimizerPrecisionSection, "stored_states"),
        help="format of the optimiser's states, optimizer_precision.stored_states; default of the "
        f"setting: {defaults.optimizer_precision.stored_states}",
    )
    plan.add_argument(
        "--variance-reduction",
        action="store_true",
        default=None,
        help="compute every gradient twice, optimizer.variance_reduction",
    )


def _add_speed_arguments(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--tflops",
        type=_positive_number,
        default=312.0,
        help="peak of one GPU in dense bfloat16: L4 121, A100 312, H100 989; default %(default)g",
    )
    plan.add_argument(
        "--mfu",
        type=_positive_number,
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


def _add_scale_arguments(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--simulate",
        type=_positive,
        nargs="+",
        default=[],
        metavar="N",
        help="also estimate traffic, checkpoints and failures on N GPUs, such as 64 512 4096",
    )
    plan.add_argument(
        "--interconnect-gbs",
        type=_positive_number,
        default=50.0,
        help="GB/s that one GPU sends to others: 50 for 400 Gb/s of InfiniBand; default "
        "%(default)g",
    )
    plan.add_argument(
        "--checkpoint-gbs",
        type=_positive_number,
        default=1.0,
        help="GB/s at which one GPU's part of a checkpoint is written; default %(default)g",
    )
    plan.add_argument(
        "--mtbf-hours",
        type=_positive_number,
        default=50_000.0,
        help="mean hours between failures of one GPU and what belongs to it; default %(default)g, "
        "that of Llama 3's training: 419 failures of 16,384 GPUs in 54 days",
    )
    plan.add_argument(
        "--restart-s",
        type=_positive_number,
        default=300.0,
        help="seconds from a failure to the next step; default %(default)g",
    )


def run(options: argparse.Namespace) -> None:
    """Print the plan.

    Raises:
        ConfigError: A setting is wrong, or no option fits.
    """
    config = _config(options)
    # imported here: torch and transformers, which --help does not need
    from mmtpp.planner import memory, plan_text

    workload = memory.Workload(
        model=options.model,
        lora_rank=config.lora.rank,
        max_tokens=config.window.max_tokens,
        samples_per_step=max(config.training.samples_per_step, options.gpus),
        optimizer=config.optimizer,
        optimizer_precision=config.optimizer_precision,
    )
    gpus = plan_text.Gpus(
        options.gpus, options.gpu_gib, options.tflops, options.mfu, options.usd_per_gpu_hour
    )
    counts = memory.count_sizes(workload)
    sys.stdout.write(plan_text.memory_table(counts, workload, gpus) + "\n")
    recommendation = memory.recommend(counts, workload, gpus=gpus.count, gpu_gib=gpus.gib)
    if recommendation is None:
        raise ConfigError(
            f"the training does not fit {gpus.count} GPUs of {gpus.gib:g} GiB",
            cause="use more or larger GPUs, fewer tokens in a row, or LoRA",
            setting=f"--max-tokens = {workload.max_tokens}, --lora-rank = {workload.lora_rank}",
        )
    option, _ = recommendation
    lines = [
        "",
        f"recommended: {plan_text.option_name(option)}, the fastest that leaves a tenth of the "
        "memory free",
        plan_text.time_estimate(counts, workload, option, gpus, tokens=options.tokens),
        "",
        "arguments of the job; they override the settings in its file (freeze_vision: the table "
        "does not count the activations of the vision tower):",
        plan_text.settings_as_arguments(workload, option, num_gpus=gpus.count),
    ]
    if options.simulate:
        lines += ["", _scale_table(options, config, counts, workload)]
    sys.stdout.write("\n".join(lines) + "\n")


def _scale_table(
    options: argparse.Namespace, config: RunConfig, counts: "Counts", workload: "Workload"
) -> str:
    """The table of ``--simulate``: the same training on other numbers of GPUs."""
    from mmtpp.planner import memory, plan_text, scale

    estimates: dict[int, tuple[Option, ScaleEstimate] | None] = {}
    for num_gpus in options.simulate:
        larger = replace(workload, samples_per_step=max(workload.samples_per_step, num_gpus))
        found = memory.recommend(counts, larger, gpus=num_gpus, gpu_gib=options.gpu_gib)
        if found is None:
            estimates[num_gpus] = None
            continue
        cluster = scale.Cluster(
            num_gpus=num_gpus,
            tflops=options.tflops,
            mfu=options.mfu,
            interconnect_gbs=options.interconnect_gbs,
            checkpoint_gbs=options.checkpoint_gbs,
            mtbf_hours=options.mtbf_hours,
            restart_s=options.restart_s,
        )
        every = config.training.checkpoint_every
        estimate = scale.estimate_scale(counts, larger, found[0], cluster, checkpoint_every=every)
        estimates[num_gpus] = (found[0], estimate)
    return plan_text.scale_table(estimates)


def _config(options: argparse.Namespace) -> RunConfig:
    """The settings of the job, with the options that are given."""
    config = load_config(options.config)
    # the plan chooses how to shard, and the settings of the file may not fit the options
    values: dict[str, object] = {"zero.stage": 1, "zero.offload": False}
    for option, path in _OVERRIDES.items():
        value = getattr(options, option)
        if value is not None:
            values[path] = value
    return with_values(config, values)


def _allowed_values(section: type[Section], name: str) -> tuple[str, ...]:
    """The values of the ``Literal`` of a setting."""
    return get_args(section.model_fields[name].annotation)


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return number


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


def _not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)
