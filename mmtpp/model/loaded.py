"""A trained model ready for inference, as the actors of evaluation and prediction hold it."""

from dataclasses import dataclass

import torch

from mmtpp.core.tokens import TokenIds
from mmtpp.model.batch import Batcher
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.event_model import EventModel, load_event_model
from mmtpp.model.folder import local_folder
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model comes from; plain values that survive pickling.

    Attributes:
        model_uri: base model folder.
        adapter_uri: adapter folder, or empty.
        vocabulary_hash: of the store; empty to take the model's as it is.
        precision: ``float32`` or ``bfloat16``.
    """

    model_uri: str
    adapter_uri: str
    vocabulary_hash: str
    precision: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, in evaluation mode.

    Attributes:
        model: with its adapter.
        vocabulary: of the model.
        token_ids: of the vocabulary.
        batcher: moves rows to its device.
    """

    model: EventModel
    vocabulary: Vocabulary
    token_ids: TokenIds
    batcher: Batcher

    @classmethod
    def of(cls, source: ModelSource, *, image_px: int) -> "LoadedModel":
        """Load it, to the GPU if there is one.

        Raises:
            ModelError: it cannot be used or has another vocabulary.
        """
        dtype = torch.bfloat16 if source.precision == "bfloat16" else torch.float32
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        adapt_to_processor(device, dtype)
        with local_folder(source.model_uri) as base, local_folder(source.adapter_uri) as adapter:
            assert base is not None
            model, vocabulary = load_event_model(path=base, adapter=adapter, dtype=dtype)
        if source.vocabulary_hash:
            check_same_vocabulary(vocabulary.hash, source.vocabulary_hash, where=source.model_uri)
        token_ids = vocabulary.token_ids()
        batcher = Batcher(
            image_pad=token_ids.image_pad, image_px=image_px, device=device, dtype=dtype
        )
        return cls(model.to(device), vocabulary, token_ids, batcher)
