"""The full-size 3B on a CPU: random weights, bfloat16, ZeRO-3, two ranks, LoRA.

    make scale-3b        about twenty minutes, 24 GiB of memory, 20 GB of disk

Prepares real danmaku with frames, trains on packed rows for some steps, kills a rank after the
first checkpoint, and lets the run resume. Prints times and memory and writes them to
``scale_3b.md`` next to this file. Needs MMTPP_TEST_DATA.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import json
import sys
import tempfile
import time
from pathlib import Path

import torch
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file

from benchmarks.measure import finish, machine, table
from benchmarks.prepare import in_new_process
from benchmarks.replicate import publish, read_videos
from benchmarks.stack import danmaku_folder, own_stack
from benchmarks.watch import WorkerWatch
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data.prepare import prepare
from mmtpp.model.full_size import build_without_weights, full_size_config
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.planner.memory import Option, Workload, count_sizes, estimate_memory
from mmtpp.storage.paths import write_bytes
from mmtpp.train.launch import pretrain
from tests.helpers.qwen_vocabulary import qwen_tokenizer_json

PRESET, RANKS, STEPS, TOKENS = "3b", 2, 3, 128
SHARD_BYTES = 2**30
BUCKET = "s3://mmtpp/scale"
MACHINE = machine("torch", "deepspeed", "transformers", "peft", used="both used")
RESULT = Path(__file__).with_name("scale_3b.md")


def write_random_model(folder: Path) -> None:
    """Write a Hugging Face folder of the 3B with random bfloat16 weights, in shards."""
    generator = torch.Generator().manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    places: dict[str, str] = {}

    def flush() -> None:
        name = f"model-{len(set(places.values())):05d}.safetensors"
        save_file(shard, folder / name, metadata={"format": "pt"})
        places.update(dict.fromkeys(shard, name))
        shard.clear()

    for name, tensor in build_without_weights(PRESET).state_dict().items():
        if name == "lm_head.weight":
            continue  # tied to the embedding
        if tensor.dim() == 1:
            value = torch.zeros(tensor.shape) if "bias" in name else torch.ones(tensor.shape)
        else:
            value = torch.randn(tensor.shape, generator=generator) * 0.02
        shard[name] = value.to(torch.bfloat16)
        if sum(tensor.nbytes for tensor in shard.values()) > SHARD_BYTES:
            flush()
    flush()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )
    config = full_size_config(PRESET)
    config.dtype = torch.bfloat16
    config.save_pretrained(folder)
    Vocabulary(qwen_tokenizer_json()).save(folder)


def configuration(model: Path) -> RunConfig:
    """Settings: LoRA of rank 16, rows with frames of 9 tokens."""
    return config_from_tree(
        {
            "source": {"uri": f"{BUCKET}/raw"},
            "store": {"uri": f"{BUCKET}/store"},
            "template": {"image_px": 84, "images": "on_change", "style": "compact"},
            "window": {"max_tokens": TOKENS},
            "model": {"preset": PRESET, "path": str(model), "precision": "bfloat16"},
            "lora": {"rank": 16},
            "training": {
                "num_steps": STEPS,
                "num_workers": RANKS,
                "samples_per_step": RANKS,
                "log_every": 1,
                "checkpoint_every": 2,
                "validation_sequences": 0,
                "activation_checkpointing": True,
                "max_failures": 1,
                "hang_timeout_s": 1800.0,  # a CPU needs minutes for a row
            },
            "zero": {"stage": 3},
            "run": {"storage_uri": f"{BUCKET}/runs", "name": "scale"},
        }
    )


def main() -> int:
    """Measure, print and write the results."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # otherwise glibc keeps much of the memory that ZeRO-3 frees
    os.environ.update(
        {
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_MMAP_THRESHOLD_": str(2**20),
            "MALLOC_TRIM_THRESHOLD_": str(2**20),
        }
    )
    folder = danmaku_folder()
    with tempfile.TemporaryDirectory() as model, own_stack() as stack:
        return _measure(folder, Path(model), stack.mlflow_uri)


def _measure(folder: Path, model: Path, mlflow_uri: str) -> int:
    started = time.perf_counter()
    in_new_process(write_random_model, model)  # frees all of its memory at the end
    print(f"weights written in {time.perf_counter() - started:.0f} s", flush=True)
    publish(f"{BUCKET}/raw", read_videos(folder)[:8], range(1), with_images=True)
    config = configuration(model)
    prepare(config)
    write_bytes(f"{BUCKET}/runs/scale/.exists", b"")
    watch = WorkerWatch(f"{BUCKET}/runs/scale")
    watch.start()
    started = time.time()
    result = pretrain(config)
    seconds = time.time() - started
    watch.end()
    client = MlflowClient(mlflow_uri)
    history = client.get_metric_history(str(result["run_id"]), "train/loss_per_token")
    times = {point.step: point.timestamp / 1000 for point in history}
    losses = {point.step: point.value for point in history}
    steps = {
        point.step: point.value
        for point in client.get_metric_history(str(result["run_id"]), "time/step_s")
    }
    assert watch.killed_at is not None, "no worker was killed"
    assert [point.step for point in history].count(1) == 1, "the run restarted from step 0"
    assert sorted(losses) == list(range(1, STEPS + 1)), losses
    workload = Workload(PRESET, 16, TOKENS, RANKS)
    planned = estimate_memory(
        count_sizes(workload), workload, Option(3, checkpointing=True, offload=False), gpus=RANKS
    )
    figures = {
        "whole run with one kill, s": f"{seconds:.0f}",
        "start to the first step, s": f"{times[1] - started:.0f}",
        "steps, s": ", ".join(f"{steps[step]:.0f}" for step in sorted(steps)),
        "kill to the first step after it, s": f"{times[3] - watch.killed_at:.0f}",
        "losses, nats per token": ", ".join(f"{losses[step]:.4f}" for step in sorted(losses)),
        "peak memory of each worker, GiB (private)": ", ".join(
            f"{gib:.1f}" for gib in watch.peak_gib.values()
        ),
        "minimum of free memory on the machine, GiB": f"{watch.available_gib:.1f}",
        "planned memory of a GPU, without the runtime, GiB": (
            f"{planned.total + planned.host - planned.runtime:.1f}"
        ),
    }
    text = table(
        "The 3B on a CPU",
        f"`make scale-3b`; {MACHINE}. Random weights, bfloat16, ZeRO-3, {RANKS} ranks, "
        f"LoRA of rank 16, {RANKS} rows of {TOKENS} tokens per step, activation checkpointing. "
        "A rank was killed after the checkpoint of step 2; the run resumed from it.",
        figures,
    )
    return finish(text, RESULT)


if __name__ == "__main__":
    sys.exit(main())
