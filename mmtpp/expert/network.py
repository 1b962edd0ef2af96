"""The network of the temporal expert: from the memory after an event to the next event.

Axes: N events, P columns of the memory, K types, V features of a text, F of an image.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, gelu, linear

from mmtpp.core.past.event_memory import LIMIT
from mmtpp.core.past.event_words import NO_WORD
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.image_features import IMAGE_FEATURES, ImageFeatures
from mmtpp.expert.image_patches import UNKNOWN
from mmtpp.expert.interval_density import IntervalScale, LogNormalHead, LogNormals
from mmtpp.expert.prompts import PromptPool
from mmtpp.expert.training_statistics import TrainingStatistics

_TYPE_WIDTH = 16
_WORD_WIDTH = 16
TEXT_FEATURES = 3 * _WORD_WIDTH
"""Number of features of a text, V: the mean of all words, the first and the last word."""
_WORD_SPREAD = 0.3  # of the random start of a word
_MIN_DEVIATION = 1e-3
_GIVEN_VALUES = 3  # that the head of the type reads of an interval


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSize:
    """Size of a network.

    Attributes:
        width: Width of the network; its widest layer is twice as wide.
        num_components: Number of log-normal components of the interval's distribution.
        num_types: Number of types, K.
        num_columns: Number of columns of the memory, P.
        num_words: Number of rows of the table of words; 0 if the network does not read words.
        reads_images: Whether the network reads images.
        context_width: Width of the hidden states of a language model that the network reads too; 0
            without a language model.
        num_prompts: Number of prompts; 0 without prompts.
        predicts_change: Whether the network learns where the next image will differ. No forecast
            needs this, but it teaches what images show.
    """

    width: int
    num_components: int
    num_types: int
    num_columns: int
    num_words: int = 0
    reads_images: bool = False
    context_width: int = 0
    num_prompts: int = 0
    predicts_change: bool = False


@dataclass(frozen=True, slots=True)
class DropoutMask:
    """The values that dropout keeps in a training step.

    Attributes:
        wide: (N, 2 * width) True where a value of the widest layer is kept.
        text: (N, V) True where a feature of the text is kept; (N, 0) without words.
        image: (N, F) True where a feature of the image is kept; (N, 0) without images.
        memory: (N, P) True where a column of the memory is kept; (N, 0) if all are.
    """

    wide: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    memory: torch.Tensor


class ExpertNetwork(nn.Module):
    """Forecasts the next interval, and the next type given the interval.

    Args:
        size: Size of the network.
        scale: Normalisation of intervals.
        dropout: Probability of dropout of the widest layer and of the features of text and image
            while training.
        memory_dropout: Probability of dropout of the columns of the memory while training.
    """

    def __init__(
        self,
        size: NetworkSize,
        scale: IntervalScale,
        *,
        dropout: float = 0.0,
        memory_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        width = size.width
        self.size, self.scale = size, scale
        self.dropout, self.memory_dropout = dropout, memory_dropout
        self.means = nn.Buffer(torch.zeros(size.num_columns))
        self.deviations = nn.Buffer(torch.ones(size.num_columns))
        self.type_embedding = nn.Embedding(size.num_types, _TYPE_WIDTH)
        self.input = nn.Linear(size.num_columns + _TYPE_WIDTH, width)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)
        self.interval_head = LogNormalHead(width, size.num_components, scale)
        self.type_head = nn.Sequential(
            nn.Linear(width + _GIVEN_VALUES, width), nn.GELU(), nn.Linear(width, size.num_types)
        )
        if size.num_words:
            # the row of NO_WORD is and stays zero
            start = _WORD_SPREAD * torch.randn(size.num_words + 1, _WORD_WIDTH)
            start[NO_WORD] = 0.0
            self.word_embedding = nn.Embedding(*start.shape, padding_idx=NO_WORD, _weight=start)
            self.text_input = nn.Linear(TEXT_FEATURES, width, bias=False)
        if size.reads_images:
            self.image_features = ImageFeatures(predicts_change=size.predicts_change)
            self.image_input = nn.Linear(IMAGE_FEATURES, width, bias=False)
            self.image_output = nn.Linear(IMAGE_FEATURES, width, bias=False)
        if size.context_width:
            self.context_input = nn.Linear(size.context_width, width, bias=False)
        if size.num_prompts:
            self.prompt_pool = PromptPool(size.num_prompts, width)

    def start_from(self, statistics: TrainingStatistics) -> None:
        """Normalise columns as in training, and start with the training intervals' distribution."""
        self.means.copy_(torch.from_numpy(statistics.means))
        deviations = np.maximum(statistics.deviations, _MIN_DEVIATION)
        self.deviations.copy_(torch.from_numpy(deviations))
        self.interval_head.start_from(statistics.log_intervals)
        if self.size.reads_images and statistics.patches is not None:
            self.image_features.start_from(statistics.patches)

    def hidden(
        self,
        inputs: EventInputs,
        mask: DropoutMask | None = None,
        context: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, width) hidden states after events.

        Args:
            inputs: Memory after N events, and the events.
            mask: Values that dropout keeps; None without dropout.
            context: (N, context_width) hidden states of a language model after each event; None
                without a language model.

        Raises:
            ValueError: The network reads words, images or a language model, and the events have
                none, or vice versa.
        """
        self._check_inputs(inputs, context)
        image = self.image_features(inputs.images) if inputs.images is not None else None
        return self._hidden(inputs, image, mask, context)

    def _check_inputs(self, inputs: EventInputs, context: torch.Tensor | None) -> None:
        if bool(inputs.words.shape[1]) != bool(self.size.num_words):
            raise ValueError("the network and the events differ in whether words are read")
        if (inputs.images is not None) != self.size.reads_images:
            raise ValueError("the network and the events differ in whether images are read")
        if (context is not None) != bool(self.size.context_width):
            raise ValueError("the network and the events differ in having a language model")

    def _hidden(
        self,
        inputs: EventInputs,
        image: torch.Tensor | None,
        mask: DropoutMask | None,
        context: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(N, width) hidden states; ``image`` is (N, F) features, the rest as in ``hidden``."""
        memory = self.normalise(inputs.memory)
        if mask is not None and mask.memory.shape[1]:
            memory = memory * mask.memory / (1 - self.memory_dropout)
        first = self.input(torch.cat([memory, self.type_embedding(inputs.types)], -1))
        if context is not None:
            first = first + self.context_input(context)
        if self.size.num_words:
            text = self._text_features(inputs.words)
            if mask is not None:
                text = text * mask.text / (1 - self.dropout)
            first = first + self.text_input(text)
        if image is not None:
            if mask is not None:
                image = image * mask.image / (1 - self.dropout)
            first = first + self.image_input(image)
        prompted = None
        if self.size.num_prompts:
            of_input, prompted = self.prompt_pool(first)
            first = first + of_input
        wide = gelu(self.expand(gelu(first)))
        if mask is not None:
            wide = wide * mask.wide / (1 - self.dropout)
        hidden = gelu(self.contract(wide))
        if image is not None:  # the layers between are too narrow for all of an image
            hidden = hidden + self.image_output(image)
        return hidden if prompted is None else hidden + prompted

    def normalise(self, rows: torch.Tensor) -> torch.Tensor:
        """(N, P) memory as the training events normalise it, in the type of the weights."""
        normalised = ((rows - self.means) / self.deviations).clamp(-LIMIT, LIMIT)
        return normalised.to(self.input.weight.dtype)

    def _text_features(self, words: torch.Tensor) -> torch.Tensor:
        """(N, V) mean of the words, the first and the last word; zeros for an empty text."""
        number = (words != NO_WORD).sum(1, keepdim=True).clamp(min=1)
        longest = max(number.flatten().tolist(), default=1)
        words = words[:, :longest].long()
        ends = torch.cat([words[:, :1], words.gather(1, number - 1)], 1)
        mean = self.word_embedding(words).sum(1) / number
        return torch.cat([mean, self.word_embedding(ends).flatten(1)], -1)

    def intervals(self, hidden: torch.Tensor) -> LogNormals:
        """The distributions of the next intervals, one for each of (N, width) hidden states."""
        return self.interval_head.distributions(hidden)

    def type_log_probabilities(self, hidden: torch.Tensor, intervals: torch.Tensor) -> torch.Tensor:
        """(N, K) log probability of the next type, given the next interval.

        Args:
            hidden: (N, width) hidden states.
            intervals: (N,) intervals until the next event, in the source's unit.
        """
        given = self._given(intervals).to(hidden.dtype)
        return self.type_head(torch.cat([hidden, given], -1)).float().log_softmax(-1)

    def mean_type_probabilities(
        self, hidden: torch.Tensor, intervals: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """(K, N) float64 weighted sums of the probabilities of the next type at Q intervals.

        The events are the last axis, because operations along few types are slow.

        Args:
            hidden: (N, width) hidden states.
            intervals: (Q, N) intervals until the next event, in the source's unit.
            weights: (Q, N) weights of the intervals.
        """
        first, _, last = self.type_head
        assert isinstance(first, nn.Linear)
        assert isinstance(last, nn.Linear)
        of_hidden, of_given = first.weight.split([self.size.width, _GIVEN_VALUES], 1)
        # the hidden states' part of the first layer is the same for all intervals
        inner = self._given(intervals) @ of_given.T
        inner += linear(hidden, of_hidden, first.bias)
        inner = gelu(inner).flatten(0, 1)
        logits = torch.addmm(last.bias[:, None], last.weight, inner.T)
        # in float64, so that hardly any type has the probability 0
        chances = (logits - logits.amax(0)).double().exp_().unflatten(1, intervals.shape)
        return (chances * (weights / chances.sum(0))).sum(1)

    def _given(self, intervals: torch.Tensor) -> torch.Tensor:
        """What the head of the type reads of intervals, in a new last axis."""
        z = self.scale.normalise(intervals.clamp(min=self.scale.smallest))
        return torch.stack([z, z**2, torch.sin(z)], -1)

    def forward(
        self,
        inputs: EventInputs,
        next_intervals: torch.Tensor,
        next_types: torch.Tensor,
        mask: DropoutMask | None = None,
        changes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Negative log-likelihood of the next events, and of where their images differ.

        Args:
            inputs: Memory after N events, and the events.
            next_intervals: (N,) intervals until the next event, in the source's unit.
            next_types: (N,) index of the next type.
            mask: Values that dropout keeps; None without dropout.
            changes: (N, G * G) which patches of the next image differ, as ``patch_changes``; read
                only if the network predicts them.

        Returns:
            interval_nll_N: (N,) nats of the interval's density.
            type_nll_N: (N,) nats of the type, given the interval.
            change_nll_N: (N,) nats of the changes, the sum over all patches; 0 where they are not
                predicted or not known.

        Raises:
            ValueError: The network reads words or images, and the events have none, or vice versa.
        """
        self._check_inputs(inputs, None)
        image, change_logits = None, None
        if inputs.images is not None:
            image, change_logits = self.image_features.with_next_change(inputs.images)
        hidden = self._hidden(inputs, image, mask)
        interval_nll_N = -self.intervals(hidden).log_density(next_intervals)
        log_p_NK = self.type_log_probabilities(hidden, next_intervals)
        type_nll_N = -log_p_NK.gather(1, next_types[:, None])[:, 0]
        change_nll_N = torch.zeros_like(type_nll_N)
        if change_logits is not None and changes is not None:
            nll = binary_cross_entropy_with_logits(
                change_logits, changes.to(change_logits.dtype), reduction="none"
            )
            change_nll_N = (nll * (changes != UNKNOWN)).sum(1)
        return interval_nll_N, type_nll_N, change_nll_N
