"""A language model that reads one soft token per event, with an expert's heads on its states.

The state after an event goes to the network of a temporal expert, beside the memory. Its heads
forecast the next interval as a density and the next type given the interval. So every event but
the first of a window is a target, and no token but its own is needed.

Axes: T tokens, N labels, P columns of the memory, W width of the expert's network, K types.
"""

from collections.abc import Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from mmtpp.core.errors import DataError
from mmtpp.core.events import MAX_TYPES
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.interval_density import IntervalScale
from mmtpp.expert.network import DropoutMask, ExpertNetwork
from mmtpp.expert.training_statistics import TrainingStatistics
from mmtpp.model.batch import Batch, SoftBatch
from mmtpp.model.event_model import EventModel
from mmtpp.soft.soft_embedding import SoftEmbedding
from mmtpp.soft.soft_settings import SoftSettings

SOFT_PREFIXES = ("soft_embedding.", "network.")
"""Prefixes of the parameters that are not the backbone's."""


class SoftModel(EventModel):
    """A backbone that reads soft tokens.

    Args:
        backbone: The Hugging Face model, or a PEFT model around it.
        settings: Settings of the model.

    Attributes:
        settings: Settings of the model.
        network: Network of an expert whose context is the language model's state.
    """

    def __init__(self, backbone: PreTrainedModel | PeftModel, settings: SoftSettings) -> None:
        super().__init__(backbone)
        config = self.base.config.get_text_config()
        self.settings = settings
        self.network = ExpertNetwork(
            settings.network_size(config.hidden_size),
            IntervalScale.from_memory(settings.memory, tick=settings.tick),
            dropout=settings.dropout,
        )
        self.soft_embedding = SoftEmbedding(
            len(settings.memory.column_names),
            config.hidden_size,
            spread=config.initializer_range,
        )
        index = torch.full((MAX_TYPES,), -1)
        index[list(settings.type_codes)] = torch.arange(len(settings.type_codes))
        self.type_index = nn.Buffer(index, persistent=False)

    def start_from(self, statistics: TrainingStatistics) -> None:
        """Normalise the memory and place the components as the training events do."""
        self.network.start_from(statistics)

    def saved_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters that are saved: the backbone's as in ``EventModel``, and all others."""
        yield from super().saved_parameters()
        for name, parameter in self.named_parameters():
            if name.startswith(SOFT_PREFIXES):
                yield name, parameter

    def soft_buffers(self) -> dict[str, torch.Tensor]:
        """Buffers that are saved with the parameters, by name."""
        return {
            name: buffer for name, buffer in self.named_buffers() if name.startswith(SOFT_PREFIXES)
        }

    def forward(
        self, batch: Batch, type_ids: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Score the events of a row.

        Args:
            batch: One packed row of soft tokens.
            type_ids: Not None if the most likely types are wanted.

        Returns:
            nll: (2 N,) float32, for each label the nats of the interval's density and of the type
                given the interval, ``PackedRow.likelihood_modalities``.
            best_type: (2 N,) int64, index into ``type_codes`` of the most likely type at each
                label, the same for both of its likelihoods; None without ``type_ids``.
        """
        soft = _content(batch)
        states = self.states(batch)[batch.predictors]
        intervals = soft.intervals[batch.labels]
        types = self.index_of(soft.types[batch.labels])
        interval_nll = -self.network.intervals(states).log_density(intervals)
        log_p_NK = self.network.type_log_probabilities(states, intervals)
        type_nll = -log_p_NK.gather(1, types[:, None])[:, 0]
        nll = torch.stack([interval_nll, type_nll], 1).flatten()
        if type_ids is None:
            return nll, None
        return nll, log_p_NK.argmax(-1).repeat_interleave(2)

    def states(self, batch: Batch) -> torch.Tensor:
        """(T, W) states of the expert's network after each event of a row."""
        soft = _content(batch)
        return self.states_on(self.hidden(batch), soft.memory, soft.types)

    def states_on(
        self, context: torch.Tensor, memory: torch.Tensor, types: torch.Tensor
    ) -> torch.Tensor:
        """(T, W) states of the expert's network on those of the language model.

        Args:
            context: (T, D) states of the language model.
            memory: (T, P) memory after each event.
            types: (T,) codes of the types.
        """
        words = torch.zeros((len(types), 0), dtype=torch.int16, device=types.device)
        inputs = EventInputs(memory, self.index_of(types), words)
        return self.network.hidden(inputs, self._dropout_mask(context), context)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Arguments of the language model for a row: the vectors of its soft tokens."""
        cells = self.see_frames(batch)
        types_TD = self.embedding(batch.input_ids)[0]
        vectors = self.embed_soft(types_TD, _content(batch), None if cells is None else cells.first)
        # layers of the tower that only some families have stay in the graph, too
        unused = sum((layer.sum() for layer in cells.deeper), start=0.0) if cells else 0.0
        return {"inputs_embeds": (vectors + 0.0 * unused)[None]}

    def embed_soft(
        self, types_TD: torch.Tensor, soft: SoftBatch, cells_FCD: torch.Tensor | None
    ) -> torch.Tensor:
        """(T, D) vectors of soft tokens, see ``SoftEmbedding.forward``."""
        memory = self.network.normalise(soft.memory)
        return self.soft_embedding(types_TD, memory, soft, self.embedding, cells_FCD)

    def index_of(self, codes: torch.Tensor) -> torch.Tensor:
        """Indices of the types among ``settings.type_codes``.

        Raises:
            DataError: A type is not among the model's.
        """
        index = self.type_index[codes]
        # in training all types are known, and a check would wait for the device
        if not self.training and bool((index < 0).any()):
            unknown = sorted(set(codes[index < 0].tolist()))
            raise DataError(
                f"the model does not know the types {unknown}",
                cause="the model was trained on events without these types",
            )
        return index

    def _dropout_mask(self, context: torch.Tensor) -> DropoutMask | None:
        """The values that dropout keeps; None without dropout."""
        if not (self.training and self.settings.dropout):
            return None
        shape = (len(context), 2 * self.settings.width)
        wide = torch.rand(shape, device=context.device) >= self.settings.dropout
        nothing = wide[:, :0]
        return DropoutMask(wide, text=nothing, image=nothing, memory=nothing)


def _content(batch: Batch) -> SoftBatch:
    if batch.soft is None:
        raise ValueError("the row has no soft tokens")
    return batch.soft
