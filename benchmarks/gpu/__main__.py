"""Checks and measures the GPU path on one GPU, without Ray and DeepSpeed.

    python -m benchmarks.gpu           one GPU with 24 GiB or more
    python -m benchmarks.gpu --tiny    a dry run with a tiny model, also on a CPU

Needs torch, transformers, peft, numpy, pydantic, pyarrow, orjson, safetensors and pillow. Writes
``gpu.md`` into the folder of benchmarks; a dry run only prints. The exit status is 1 if a
comparison or the planned memory does not hold.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.gpu.parity import Check, run_checks
from benchmarks.gpu.speed import MEMORY_LIMIT, StepFigures, decode, run_steps
from benchmarks.measure import machine

RESULT = Path(__file__).parent.with_suffix(".md")


def main() -> int:
    """Run everything, print the report and write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="dry run with a tiny model")
    is_tiny = parser.parse_args().tiny
    if not (is_tiny or torch.cuda.is_available()):
        print("no GPU is available to PyTorch; --tiny makes a dry run on the CPU", file=sys.stderr)
        return 2
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    started = time.perf_counter()
    checks = run_checks(device, is_tiny=is_tiny)
    steps = run_steps(device, is_tiny=is_tiny)
    decoded = decode(device, is_tiny=is_tiny)
    text = render(checks, steps, decoded, _describe(device, is_tiny=is_tiny))
    text += f"\nThe whole run took {time.perf_counter() - started:.0f} s.\n"
    print(text)
    if not is_tiny:
        RESULT.write_text(text, encoding="utf-8")
    return 0 if all(part.holds for part in (*checks, *steps)) else 1


def _describe(device: torch.device, *, is_tiny: bool) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    model = "the tiny model" if is_tiny else "Qwen2.5-VL 3B with random weights"
    return f"{name}; {machine('torch', 'transformers', 'peft')}; {model}"


def render(
    checks: Sequence[Check], steps: Sequence[StepFigures], decoded: float, place: str
) -> str:
    """The report in Markdown.

    Args:
        checks: Comparisons.
        steps: Sizes of a training step.
        decoded: Decoded tokens per second.
        place: Device, versions and model.
    """
    lines = ["# The GPU path", "", f"`python -m benchmarks.gpu` on {place}.", ""]
    lines += ["## Comparisons", "", "| compared | type | mean | largest | limit of the mean | |"]
    lines.append("|---|---|---|---|---|---|")
    lines += [
        f"| {check.name} | {str(check.dtype).removeprefix('torch.')} | {check.mean:.2g} | "
        f"{check.largest:.2g} | {check.limit:g} | {'holds' if check.holds else 'MISSED'} |"
        for check in checks
    ]
    lines += ["", "## LoRA steps of rank 16 in bfloat16", ""]
    lines += ["| tokens | recomputed | tokens/s | MFU | peak GiB | planned GiB | |"]
    lines.append("|---|---|---|---|---|---|---|")
    lines += [_step_line(step) for step in steps]
    lines += [
        "",
        f"The peak may be at most {MEMORY_LIMIT:g} times the plan.",
        "",
        f"Decoding with a cache, 8 continuations: {decoded:,.0f} tokens/s.",
    ]
    return "\n".join(lines) + "\n"


def _step_line(step: StepFigures) -> str:
    head = f"| {step.tokens:,} | {'yes' if step.checkpointing else 'no'} |"
    if step.skipped:
        return f"{head} | | | | {step.skipped} |"
    peak, planned = (
        "" if value is None else f"{value:.1f}" for value in (step.peak_gib, step.planned_gib)
    )
    verdict = "holds" if step.holds else "MISSED"
    return f"{head} {step.tokens_per_s:,.0f} | {step.mfu:.3f} | {peak} | {planned} | {verdict} |"


if __name__ == "__main__":
    sys.exit(main())
