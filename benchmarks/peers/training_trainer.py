"""transformers' Trainer: batches padded to the longest window, in order or grouped by length."""

import tempfile
from collections import deque
from typing import Any

import torch
from datasets import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from benchmarks.peers.measured_process import run_as_trial
from benchmarks.peers.training_case import Case, load_case
from benchmarks.peers.training_measure import (
    UpdateMeter,
    build_model,
    build_optimizer,
    image_inputs,
    pad_windows,
    trained_windows,
)

COMMON: dict[str, Any] = {
    "num_train_epochs": 1,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 1.0,
    "report_to": [],
    "logging_strategy": "no",
    "save_strategy": "no",
    "disable_tqdm": True,
    "use_cpu": True,
    "dataloader_num_workers": 0,
    "remove_unused_columns": False,
    "seed": 0,
}


class UpdateCallback(TrainerCallback):
    """Tells a meter of every update.

    Attributes:
        meter: The meter.
        waiting: Useful tokens of the batches that are built and not yet trained, in their order.
        tokens: Useful tokens of the batches that were trained.
    """

    def __init__(self, case: Case, *, profiles: bool = False) -> None:
        self.meter = UpdateMeter(case, profiles)
        self.waiting: deque[int] = deque()
        self.tokens = 0
        trained = case.num_train
        self._events_per_token = case.num_events[:trained].sum() / sum(map(len, case.ids[:trained]))

    @property
    def events(self) -> int:
        """Events that were trained, by the share of the tokens."""
        return round(self.tokens * self._events_per_token)

    def on_substep_end(self, *_arguments: Any, **_named: Any) -> None:
        """Count a batch that is not the last of its update."""
        self.tokens += self.waiting.popleft()

    def on_step_end(self, *_arguments: Any, **_named: Any) -> None:
        """Count the last batch of an update."""
        self.tokens += self.waiting.popleft()
        self.meter.finish_update(self.tokens, self.events)

    def result(self, model: Any) -> dict[str, Any]:
        """Rates, memory and loss."""
        return self.meter.result(model, self.tokens, self.events)


def constant_rate(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """A schedule that leaves the learning rate unchanged."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _step: 1.0)


def run(folder: str, batch: int, sampling: str, *, profiles: bool = False) -> dict[str, Any]:
    """Train on every window once.

    Args:
        folder: Folder of the case.
        batch: Windows in a batch.
        sampling: ``sequential``, the order of this project's updates, or ``group_by_length``.
        profiles: Whether the operators are timed.
    """
    case = load_case(folder)
    model = build_model(case)
    optimizer = build_optimizer(model)
    callback = UpdateCallback(case, profiles=profiles)

    image_pad = case.vocabulary.special("<|image_pad|>")

    def collate(windows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        padded = pad_windows(windows, image_pad)
        callback.waiting.append(int(padded["attention_mask"].sum()))
        return padded | image_inputs(case, [window["window"] for window in windows])

    if case.per_update % batch:
        raise ValueError(f"updates of {case.per_update} windows in batches of {batch}")
    with tempfile.TemporaryDirectory() as output:
        trainer = Trainer(
            model=model,
            args=TrainingArguments(
                output_dir=output,
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=case.per_update // batch,
                train_sampling_strategy=sampling,
                **COMMON,
            ),
            train_dataset=Dataset.from_list(
                [
                    {**window, "length": len(window["input_ids"]), "window": index}
                    for index, window in enumerate(trained_windows(case))
                ]
            ),
            data_collator=collate,
            optimizers=(optimizer, constant_rate(optimizer)),
            callbacks=[callback],
        )
        trainer.train()
    return callback.result(model)


if __name__ == "__main__":
    run_as_trial(run)
