"""A trained model on its device, ready for inference by evaluation and prediction."""

from dataclasses import dataclass

import torch

from mmtpp.core.representation.tokens import TokenIds
from mmtpp.model.batch import Batcher
from mmtpp.model.cpu_bfloat16 import adapt_to_processor
from mmtpp.model.event_model import EventModel, load_event_model
from mmtpp.model.folders.folder import local_folder
from mmtpp.model.tokens.vocabulary import Vocabulary, check_same_vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLocation:
    """Location of a model, its vocabulary and its precision.

    Attributes:
        model_uri: Folder of the base model.
        adapter_uri: Folder of the adapter; empty for none.
        vocabulary_hash: Hash of the store's vocabulary, which the model's must equal; empty accepts
            every vocabulary.
        precision: Type of the weights, ``float32`` or ``bfloat16``.
        expert_uri: Folder of the expert and the gate that the model is mixed with; empty for none.
    """

    model_uri: str
    adapter_uri: str
    vocabulary_hash: str
    precision: str
    expert_uri: str = ""

    @property
    def scored_uri(self) -> str:
        """Folder of the adapter, or of the whole model."""
        return self.adapter_uri or self.model_uri


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model on its device, in evaluation mode.

    Attributes:
        model: Model with its adapter.
        vocabulary: Vocabulary of the model.
        token_ids: Token ids of the vocabulary.
        batcher: Batcher that moves rows to the model's device.
    """

    model: EventModel
    vocabulary: Vocabulary
    token_ids: TokenIds
    batcher: Batcher

    @classmethod
    def load(cls, location: ModelLocation, *, image_px: int) -> "LoadedModel":
        """Load a model, to the GPU if there is one.

        Args:
            location: Location of the model.
            image_px: Side of every frame, in pixels.

        Raises:
            ModelError: The model cannot be used or has another vocabulary.
        """
        dtype = torch.bfloat16 if location.precision == "bfloat16" else torch.float32
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        adapt_to_processor(device, dtype)
        with (
            local_folder(location.model_uri) as base,
            local_folder(location.adapter_uri) as adapter,
        ):
            assert base is not None
            model, vocabulary = load_event_model(path=base, adapter=adapter, dtype=dtype)
        if location.vocabulary_hash:
            check_same_vocabulary(
                vocabulary.hash, location.vocabulary_hash, where=location.model_uri
            )
        token_ids = vocabulary.token_ids()
        batcher = Batcher(
            image_pad=token_ids.image_pad,
            image_px=image_px,
            device=device,
            dtype=dtype,
            image_format=model.family.image_format,
        )
        return cls(model.to(device), vocabulary, token_ids, batcher)
