"""What all trainings share: the model, the optimiser, the held-out loss, the meter of updates."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.peers.measured_process import Meter, num_cores, peak_mib
from benchmarks.peers.training_case import Case
from benchmarks.peers.training_operators import OperatorTimes
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.processor import PATCH_PX, pixel_values

LEARNING_RATE = 1e-3
WARM_UP = 2  # updates that are not measured
NO_LABEL = -100


def build_model(case: Case) -> Any:
    """The tiny Qwen2.5-VL, the same for all; its vision tower is trained if there are images."""
    torch.set_num_threads(num_cores())
    model = build_tiny(case.vocabulary, seed=0).train()
    model.model.visual.requires_grad_(case.has_images)
    return model


def build_optimizer(model: torch.nn.Module) -> torch.optim.AdamW:
    """AdamW with the settings of this project, and a constant learning rate."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(trained, lr=LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.01)


def trained_windows(case: Case) -> list[dict[str, list[int]]]:
    """Token ids and labels of the trained windows."""
    return [
        {"input_ids": case.ids[window].tolist(), "labels": labels_of(case, window).tolist()}
        for window in range(case.num_train)
    ]


def labels_of(case: Case, window: int) -> NDArray[np.int64]:
    """(T,) labels of a window: not its first token, which has no predecessor, nor images."""
    labels = np.where(
        case.modality[window] == Modality.MASKED, NO_LABEL, case.ids[window].astype(np.int64)
    )
    labels[:1] = NO_LABEL
    return labels


def image_inputs(case: Case, windows: Iterable[int]) -> dict[str, torch.Tensor]:
    """What transformers' Qwen2.5-VL reads of the images of windows, one after the other."""
    shown = np.concatenate([case.image_frame[window] for window in windows])
    if not len(shown):
        return {}
    patches = case.frames.shape[1] // PATCH_PX
    return {
        "pixel_values": torch.from_numpy(pixel_values(case.frames[shown])),
        "image_grid_thw": torch.tensor([[1, patches, patches]]).repeat(len(shown), 1),
    }


def pad_windows(
    windows: list[dict[str, list[int]]], image_pad: int | None = None
) -> dict[str, torch.Tensor]:
    """Pad windows to the longest, as transformers' collators do.

    Args:
        windows: Token ids and labels.
        image_pad: Token id of the image pad, which ``mm_token_type_ids`` marks; None without
            images.
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
        "mm_token_type_ids": (ids == image_pad).long() if image_pad else torch.zeros_like(ids),
    }


@torch.no_grad()
def held_out_loss(model: Any, case: Case) -> float:
    """Nats per token of the held-out windows, one at a time with transformers' forward pass."""
    model.eval()
    nats, count = 0.0, 0
    image_pad = case.vocabulary.special("<|image_pad|>")
    for window in range(case.num_train, len(case.ids)):
        tokens = torch.tensor(case.ids[window].astype(np.int64))[None]
        output = model(
            input_ids=tokens,
            mm_token_type_ids=(tokens == image_pad).long(),
            use_cache=False,
            **image_inputs(case, [window]),
        )
        logits, labels = output.logits[0, :-1].double(), labels_of(case, window)[1:]
        nats += float(
            torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(labels), ignore_index=NO_LABEL, reduction="sum"
            )
        )
        count += int((labels != NO_LABEL).sum())
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
