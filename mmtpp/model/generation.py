"""Texts written by the model, token by token on a cached history.

Only plain text tokens and the end of a text can be chosen: what is written is a text, whatever the
model would rather say.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
)

from mmtpp.model.batch import Batch
from mmtpp.model.cached_history import CachedHistory
from mmtpp.model.event_model import EventModel
from mmtpp.model.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class WritingSettings:
    """How texts are written.

    Attributes:
        max_tokens: of a text; a longer one is cut.
        min_tokens: a text does not end before.
        repetition_penalty: at least 1, for tokens that the text has already (Keskar et al. 2019).
        no_repeat_ngram: no so many tokens come twice in a text; 0 for no such rule.
    """

    max_tokens: int
    min_tokens: int = 0
    repetition_penalty: float = 1.0
    no_repeat_ngram: int = 0


class TextWriter:
    """Writes the likeliest token each time.

    Args:
        model: in evaluation mode, asked for ``text`` or ``qa`` in training.
        vocabulary: of the model.
        settings: how texts are written.
    """

    def __init__(
        self, model: EventModel, vocabulary: Vocabulary, settings: WritingSettings
    ) -> None:
        self._model, self._vocabulary, self._settings = model, vocabulary, settings
        device = model.head.weight.device
        self._end = vocabulary.marker("text_end")
        barred = torch.full((len(model.head.weight),), -torch.inf, device=device)
        barred[: vocabulary.num_text_tokens] = 0.0
        barred[self._end] = 0.0
        self._barred = barred
        rules = LogitsProcessorList()
        if settings.repetition_penalty > 1:
            rules.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty))
        if settings.no_repeat_ngram:
            rules.append(NoRepeatNGramLogitsProcessor(settings.no_repeat_ngram))
        if settings.min_tokens:
            rules.append(
                MinNewTokensLengthLogitsProcessor(
                    0, settings.min_tokens, self._end, device=str(device)
                )
            )
        self._rules = rules

    @torch.inference_mode()
    def __call__(self, history: Batch, prompt: Sequence[int] = ()) -> str:
        """Write one text.

        Args:
            history: one plain segment.
            prompt: tokens between the history and the text, none of them of an image.
        """
        state = CachedHistory.of(self._model, history, 1)
        hidden = state.feed(np.array([prompt])) if prompt else state.last
        written: list[int] = []
        while len(written) < self._settings.max_tokens:
            scores = self._model.head.logits(hidden) + self._barred
            so_far = torch.tensor([written], dtype=torch.int64, device=scores.device)
            token = int(self._rules(so_far, scores)[0].argmax())
            if token == self._end:
                break
            written.append(token)
            hidden = state.feed(np.array([[token]]))
        return self._vocabulary.decode_text(written)
