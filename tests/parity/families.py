"""A small random model of each family, with and without spare rows, and transformers' own forward.

A new family needs one more line in ``CASES``.
"""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from mmtpp.core.representation.row import PackedRow
from mmtpp.model.backbones.registry import FAMILIES
from mmtpp.model.base_folder import load_base, save_base
from mmtpp.model.parameters.own_rows import own_rows_of
from mmtpp.model.tokens.vocabulary import Vocabulary
from tests.helpers.tiny_models import IMAGE_PX, random_row, split_row, tiny_vocabulary

WIDTH, LAYERS = 48, 2


def plain_vocabulary() -> Vocabulary:
    """The vocabulary of a tokenizer that has one special token, and no token of Qwen."""
    tree = json.loads(tiny_vocabulary().tokenizer_json)
    tree["added_tokens"] = [{**tree["added_tokens"][0], "content": "<s>"}]
    return Vocabulary(json.dumps(tree))


@dataclass(frozen=True)
class Case:
    """A random model of a family.

    Attributes:
        model_type: Family.
        vocabulary: Vocabulary of the model.
        tied: Whether embedding and head are one matrix.
        spare: Rows of the embedding beyond the tokenizer's tokens.
        config: Further keys of the language model's configuration.
        vision: Configuration of the vision tower; None for a text family.
    """

    model_type: str
    vocabulary: Vocabulary
    tied: bool
    spare: int = 0
    config: dict[str, Any] = field(default_factory=dict)
    vision: dict[str, Any] | None = None


PLAIN = plain_vocabulary()
CASES = {
    "llama, tied": Case("llama", PLAIN, True),
    "llama, a few spare rows": Case("llama", PLAIN, False, spare=7),
    "llama, spare rows": Case("llama", PLAIN, True, spare=300),
    "qwen2, spare rows": Case("qwen2", tiny_vocabulary(), True, spare=271),
    "qwen3": Case("qwen3", tiny_vocabulary(), False, config={"head_dim": 24}),
    "qwen3_vl": Case(
        "qwen3_vl",
        tiny_vocabulary(),
        True,
        config={
            "head_dim": 24,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e6,
                "mrope_section": [6, 3, 3],
                "mrope_interleaved": True,
            },
        },
        vision={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 2],
            "out_hidden_size": WIDTH,
        },
    ),
}


def random_base(case: Case) -> Any:
    """A model of transformers with random weights, large enough that errors change the result."""
    torch.manual_seed(0)
    model_class: Any = FAMILIES[case.model_type].model_class
    text = dict(
        vocab_size=case.vocabulary.byte_base + case.spare,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        **case.config,
    )
    if case.vision is None:
        config = model_class.config_class(**text, tie_word_embeddings=case.tied)
    else:
        config = model_class.config_class(
            text_config=text,
            vision_config=case.vision,
            image_token_id=case.vocabulary.special("<|image_pad|>"),
            video_token_id=case.vocabulary.special("<|video_pad|>"),
            vision_start_token_id=case.vocabulary.special("<|vision_start|>"),
            vision_end_token_id=case.vocabulary.special("<|vision_end|>"),
            tie_word_embeddings=case.tied,
        )
    model = model_class(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                scale = 1.0 if "embed" in name else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape) * scale)
    return model.eval()


def write_base(case: Case, folder: Path) -> Path:
    """The folder of a random base model."""
    folder.mkdir(exist_ok=True)
    save_base(random_base(case), case.vocabulary, folder)
    return folder


def loaded(case: Case, folder: Path) -> tuple[Any, Any]:
    """A base as this package loads it, and the same model of transformers with one row a token."""
    model, _ = load_base(write_base(case, folder), dtype=torch.float32)
    return model.eval(), with_all_rows(model)


def with_all_rows(model: Any) -> Any:
    """A copy of a model in which own rows are rows of embedding and head."""
    plain = copy.deepcopy(model)
    for table in (plain.get_input_embeddings(), plain.get_output_embeddings()):
        rows = own_rows_of(table)
        if rows is not None:
            del table.own_rows
            table.weight = torch.nn.Parameter(torch.cat([table.weight.detach(), rows.detach()]))
    if plain.config.tie_word_embeddings:
        plain.lm_head.weight = plain.get_input_embeddings().weight
    return plain.eval()


def nll_of_transformers(model: Any, row: PackedRow) -> torch.Tensor:
    """(N,) nats of a row's labels by transformers' own forward, segment by segment.

    Image pads are no labels.
    """
    nll = []
    for part in split_row(row):
        ids = torch.tensor(part.input_ids.astype("int64"))
        images = images_of(model, part) if len(part.image_frame) else {}
        logits = model(input_ids=ids[None], use_cache=False, **images).logits[0].float()
        scores = -logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        nll.append(scores[part.label_positions() - 1])
    return torch.cat(nll)


def images_of(model: Any, row: PackedRow) -> dict[str, torch.Tensor]:
    """Arguments of transformers for the images of a row, from transformers' own processor."""
    vision = model.config.vision_config
    side = IMAGE_PX // 28 * vision.patch_size * vision.spatial_merge_size
    processor = Qwen2VLImageProcessorPil(
        patch_size=vision.patch_size,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        min_pixels=side**2,
        max_pixels=side**2,
    )
    frames = [
        np.array(Image.fromarray(frame).resize((side, side), Image.Resampling.BICUBIC))
        for frame in row.frames[row.image_frame]
    ]
    images = processor(images=frames, return_tensors="pt")
    ids = torch.tensor(row.input_ids[None].astype("int64"))
    kinds = (ids == model.config.image_token_id).int()
    return {**images, "mm_token_type_ids": kinds}


def mixed_row(vocabulary: Vocabulary, lengths: list[int], *, seed: int) -> PackedRow:
    """A row of text tokens and added tokens, without image pads."""
    row = random_row(vocabulary, lengths, seed=seed, images=False)
    image_pad = vocabulary.special("<|image_pad|>")
    added = np.setdiff1d(vocabulary.added_ids, image_pad).astype(np.int32)
    rng = np.random.default_rng(seed)
    places = rng.permutation(len(row.input_ids))[: len(row.input_ids) // 2]
    row.input_ids[places] = rng.choice(added, len(places))
    return row
