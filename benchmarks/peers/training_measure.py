"""What all trainings share: the model, the optimiser, the held-out loss, the meter of updates."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from benchmarks.peers.measured_process import Meter, num_cores, peak_mib
from benchmarks.peers.training_operators import OperatorTimes
from benchmarks.peers.training_rows import Case
from mmtpp.model.base_folder import build_tiny

LEARNING_RATE = 1e-3
WARM_UP = 2  # updates that are not measured
NO_LABEL = -100


def build_model(case: Case) -> Any:
    """The tiny Qwen2.5-VL, the same for all; without images its vision tower is not trained."""
    torch.set_num_threads(num_cores())
    model = build_tiny(case.vocabulary, seed=0).train()
    model.model.visual.requires_grad_(False)
    return model


def build_optimizer(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW with the settings of this project, and a constant learning rate."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)


def trained_windows(case: Case) -> list[dict[str, list[int]]]:
    """Token ids and labels of the trained windows; the first token has no predecessor."""
    return [
        {"input_ids": ids.tolist(), "labels": [NO_LABEL, *ids[1:].tolist()]}
        for ids in case.ids[: case.num_train]
    ]


def pad_windows(windows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Pad windows to the longest, as transformers' collators do.

    ``mm_token_type_ids`` says that no token is of an image.
    """
    lengths = torch.tensor([len(window["input_ids"]) for window in windows])
    ids, labels = (
        torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(window[name]) for window in windows], True, value
        )
        for name, value in (("input_ids", 0), ("labels", NO_LABEL))
    )
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return {
        "input_ids": ids,
        "labels": labels,
        "attention_mask": mask,
        "mm_token_type_ids": torch.zeros_like(ids),
    }


@torch.no_grad()
def held_out_loss(model: Any, case: Case) -> float:
    """Nats per token of the held-out windows, one at a time with transformers' forward pass."""
    model.eval()
    nats, count = 0.0, 0
    for ids in case.ids[case.num_train :]:
        tokens = torch.tensor(ids.astype(np.int64))[None]
        output = model(
            input_ids=tokens, mm_token_type_ids=torch.zeros_like(tokens), use_cache=False
        )
        logits = output.logits[0, :-1].double()
        nats += float(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="sum"))
        count += len(ids) - 1
    model.train()
    return nats / count


@dataclass(slots=True)
class UpdateMeter:
    """Measures the updates after the first ``WARM_UP`` ones.

    Attributes:
        case: The case that is trained.
        profiles: Whether the operators are timed.
        updates: Number of finished updates.
    """

    case: Case
    profiles: bool = False
    updates: int = 0
    _meter: Meter = field(default_factory=Meter)
    _operators: OperatorTimes = field(default_factory=OperatorTimes)
    _start_tokens: int = 0
    _start_events: int = 0

    def finish_update(self, tokens: int, events: int) -> None:
        """Count an update.

        Args:
            tokens: Useful tokens trained so far.
            events: Events trained so far.
        """
        self.updates += 1
        if self.updates == WARM_UP:
            self._meter.restart()
            self._start_tokens, self._start_events = tokens, events
            if self.profiles:
                self._operators.start()

    def result(self, model: Any, tokens: int, events: int) -> dict[str, Any]:
        """Rates, memory and loss after the last update; with ``profiles``, ms per 1,000 tokens.

        Raises:
            ValueError: No update was measured.
        """
        if self.updates <= WARM_UP:
            raise ValueError(f"{self.updates} updates, of which {WARM_UP} are not measured")
        wall_s, cpu_s, memory = self._meter.wall_s, self._meter.cpu_s, peak_mib()
        operators = self._operators.stop() if self.profiles else {}
        tokens, events = tokens - self._start_tokens, events - self._start_events
        return {
            "tokens_per_s": tokens / wall_s,
            "events_per_s": events / wall_s,
            "tokens_per_cpu_s": tokens / cpu_s,
            "peak_mib": memory,
            "updates": self.updates,
            "loss": held_out_loss(model, self.case),
            "operators": {kind: 1e6 * seconds / tokens for kind, seconds in operators.items()},
        }


def update_windows(case: Case) -> Iterator[range]:
    """Windows of each update, in order."""
    for start in range(0, case.num_train, case.per_update):
        yield range(start, start + case.per_update)
