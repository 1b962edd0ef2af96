"""TRL's SFTTrainer with its packing (``bfd``: whole windows, best fit decreasing).

TRL marks the windows of a row by positions that start again and by ``cu_seq_lens``. Flash attention
reads these; the attention of PyTorch, the only one on a CPU, may not. ``crosses`` is measured: the
largest change of a later window's logits when the first window of its row is replaced.
"""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportMissingImports]

from benchmarks.peers.measured_process import run_as_trial
from benchmarks.peers.training_case import ROW_TOKENS, TOKENIZER, load_case
from benchmarks.peers.training_measure import build_model, build_optimizer, trained_windows
from benchmarks.peers.training_trainer import COMMON, UpdateCallback, constant_rate


@torch.no_grad()
def crossing(model: Any, batch: dict[str, Any]) -> float | None:
    """Largest change of the logits of later windows when the first one is replaced.

    Args:
        model: The model.
        batch: A batch of the trainer; None results from a batch of one window.
    """
    positions = batch["position_ids"][0]
    starts = (positions == 0).nonzero()[:, 0].tolist()
    if len(starts) < 2:
        return None
    first_end = starts[1]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    replaced = batch["input_ids"].clone()
    replaced[0, :first_end] = replaced[0, :first_end].flip(0)
    model.eval()
    before = model(**inputs, use_cache=False).logits[0, first_end:]
    after = model(**{**inputs, "input_ids": replaced}, use_cache=False).logits[0, first_end:]
    model.train()
    return float((before - after).abs().max())


def run(folder: str, batch: int, rows_per_update: int) -> dict[str, Any]:
    """Train on every window once.

    Args:
        folder: Folder of the case.
        batch: Packed rows in a batch.
        rows_per_update: Packed rows in an update, as this project's.
    """
    case = load_case(folder)
    model = build_model(case)
    optimizer = build_optimizer(model)
    callback = UpdateCallback(case)
    with tempfile.TemporaryDirectory() as output:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=output,
                packing=True,
                packing_strategy="bfd",
                max_length=ROW_TOKENS,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=max(1, rows_per_update // batch),
                gradient_checkpointing=False,
                bf16=False,
                **COMMON,
            ),
            train_dataset=Dataset.from_list(trained_windows(case)),
            processing_class=PreTrainedTokenizerFast(
                tokenizer_file=f"{folder}/{TOKENIZER}", pad_token="<|image_pad|>"
            ),
            optimizers=(optimizer, constant_rate(optimizer)),
            callbacks=[callback],
        )
        first = next(iter(trainer.get_train_dataloader()))
        crosses = crossing(model, first)
        collate = trainer.data_collator

        def counted(windows: list[Any]) -> dict[str, Any]:
            built = collate(windows)
            callback.waiting.append(built["input_ids"].numel())
            return built

        trainer.data_collator = counted
        trainer.train()
    return {**callback.result(model), "crosses": crosses}


if __name__ == "__main__":
    run_as_trial(run)
