"""LLaMA-Factory's supervised training, padded or with its ``neat_packing``, from tokenised windows.

LLaMA-Factory reads the tokenised windows from ``tokenized_path``. Packed, they are built by its own
processor, which pads every row to one token more than its limit; a mask keeps the windows of a row
apart. A limit of 2,048 fails with Qwen2.5-VL, because the collator pads the 2,049 tokens once more,
to a multiple of 8, without their positions; the limit here is 2,047. Its optimiser leaves biases
and norms out of the weight decay, so its loss differs slightly.
"""

import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback

from benchmarks.peers.measured_process import num_cores, run_as_trial
from benchmarks.peers.stand_ins import import_with_stand_ins
from benchmarks.peers.training_case import BASE, ROW_TOKENS, Case, load_case
from benchmarks.peers.training_measure import LEARNING_RATE, UpdateMeter, trained_windows

MAX_TOKENS = ROW_TOKENS - 1


class _UpdateCallback(TrainerCallback):
    """Tells a meter of every update; the rows are trained in their order.

    Args:
        case: The case.
        row_tokens: Useful tokens of every row.
        rows_per_update: Rows of an update.
    """

    def __init__(self, case: Case, row_tokens: list[int], rows_per_update: int) -> None:
        self.meter, self.model, self.tokens = UpdateMeter(case), None, 0
        self._rows: Iterator[int] = iter(row_tokens)
        self._rows_per_update = rows_per_update
        self._events_per_token = case.num_events[: case.num_train].sum() / sum(row_tokens)

    @property
    def events(self) -> int:
        """Events so far, by the share of the tokens."""
        return round(self.tokens * self._events_per_token)

    def on_step_end(self, *_arguments: Any, **named: Any) -> None:
        """Count an update."""
        self.model = named["model"]
        self.tokens += sum(islice(self._rows, self._rows_per_update))
        self.meter.finish_update(self.tokens, self.events)


def _packed(windows: list[dict[str, list[int]]]) -> dict[str, list[Any]]:
    """Rows of LLaMA-Factory's own packing."""
    from llamafactory.data.processor import (  # pyright: ignore[reportMissingImports]
        PackedSupervisedDatasetProcessor,
    )

    class Tokenised(PackedSupervisedDatasetProcessor):
        """The processor for windows that are tokenised."""

        def _encode_data_example(self, prompt: Any, **_named: Any) -> tuple[list[int], list[int]]:
            return prompt[0]["input_ids"], prompt[0]["labels"]

    settings = SimpleNamespace(neat_packing=True, cutoff_len=MAX_TOKENS)
    tokenizer = SimpleNamespace(pad_token_id=0)
    count = len(windows)
    empty = {
        name: [None] * count for name in ("_system", "_tools", "_images", "_videos", "_audios")
    }
    columns = {"_prompt": [[window] for window in windows], "_response": [[None]] * count}
    processor = Tokenised(None, tokenizer, None, settings)
    return dict(processor.preprocess_dataset({**columns, **empty}))


def _arguments(folder: str, work: Path, *, packs: bool, batch: int, rows: int) -> dict[str, Any]:
    """LLaMA-Factory's settings."""
    return {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": f"{folder}/{BASE}",
        "template": "default",
        "dataset": "windows",  # required, not read
        "tokenized_path": str(work / "windows"),
        "output_dir": str(work / "output"),
        "finetuning_type": "full",
        "freeze_vision_tower": True,
        "freeze_multi_modal_projector": True,
        "freeze_language_model": False,
        "disable_gradient_checkpointing": True,
        "disable_shuffling": True,
        "flash_attn": "sdpa",
        "packing": packs,
        "neat_packing": packs,
        "cutoff_len": MAX_TOKENS,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": max(1, rows // batch),
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "adam_beta1": 0.9,
        "adam_beta2": 0.95,
        "weight_decay": 0.01,
        "num_train_epochs": 1,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    }


def run(folder: str, batch: int, packs: bool, packed_rows: int) -> dict[str, Any]:
    """Train on every window once.

    Args:
        folder: Folder of the case.
        batch: Rows in a batch.
        packs: Whether windows are packed; otherwise a row is a window.
        packed_rows: Packed rows in an update.
    """
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # torch and NumPy are newer than it expects
    tuner = import_with_stand_ins("llamafactory.train.tuner", ("torchaudio",))
    case = load_case(folder)
    windows = trained_windows(case)
    longest = max(len(window["input_ids"]) for window in windows)
    if longest > MAX_TOKENS:
        raise ValueError(f"a window of {longest} tokens would be dropped")
    if packs:
        columns, rows = _packed(windows), packed_rows
        row_tokens = [sum(map(bool, mask)) for mask in columns["attention_mask"]]
    else:
        columns = {name: [window[name] for window in windows] for name in windows[0]}
        row_tokens, rows = [len(ids) for ids in columns["input_ids"]], case.per_update
        columns["attention_mask"] = [[1] * length for length in row_tokens]
    callback = _UpdateCallback(case, row_tokens, rows)
    torch.set_num_threads(num_cores())
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        Dataset.from_dict(columns).save_to_disk(work / "windows")
        arguments = _arguments(folder, work, packs=packs, batch=batch, rows=rows)
        tuner.run_exp(arguments, callbacks=[callback])
    return callback.meter.result(callback.model, callback.tokens, callback.events)


if __name__ == "__main__":
    run_as_trial(run)
