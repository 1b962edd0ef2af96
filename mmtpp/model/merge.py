"""Merge an adapter into its base: the result can be loaded without PEFT and without mmtpp.

Axes: T tokens, N labels, V vocabulary.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmtpp.core.errors import ModelError
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.backbones.family import Family
from mmtpp.model.backbones.registry import family_of
from mmtpp.model.base_folder import load_base, save_base
from mmtpp.model.batch import Batch, Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.folders.companions import read_companions, write_companions
from mmtpp.model.parameters.lora import load_adapter
from mmtpp.model.parameters.own_rows import enlarge_wrapped
from mmtpp.model.processor import image_side
from mmtpp.model.tokens.vocabulary import Vocabulary

PROBE_PX = 56
# largest accepted mean difference of a label's likelihood, divided by the mean likelihood: in
# float32 sums have another order, and in bfloat16 the merged weights are rounded to 8 bits
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def merge_adapter(base: Path, adapter: Path, output: Path, *, dtype: torch.dtype) -> float:
    """Write base and adapter as one model, and check that its likelihoods are the same.

    The weights are added in ``dtype`` and written in the type of the base's files, together with
    the base's small files. The written model is then loaded with transformers alone and compared
    with the base and its adapter in mmtpp, on a row with plain text, every added token, and an
    image if the model sees images.

    Args:
        base: Local folder of the base model.
        adapter: Local folder of its adapter.
        output: Existing, empty local folder.
        dtype: Type in which the weights are added and the likelihoods are computed.

    Returns:
        The largest difference of a label's likelihood, in nats.

    Raises:
        ModelError: Base and adapter do not belong together, or the difference is too large.
    """
    backbone, vocabulary = load_base(base, dtype=dtype)
    family = family_of(backbone)
    recorded = family.model_class.config_class.from_pretrained(base, local_files_only=True).dtype
    stored = recorded if isinstance(recorded, torch.dtype) else dtype
    if stored not in TOLERANCES:
        raise ModelError(
            f"a base in {stored} cannot be merged, only float32 and bfloat16", where=str(base)
        )
    adapted = load_adapter(backbone, vocabulary, adapter)
    batch = _build_probe(family, vocabulary, dtype)
    with torch.no_grad():
        adapted_nll_N, _ = EventModel(adapted).eval()(batch)
    enlarge_wrapped(adapted, family.text_config(backbone.config))
    merged = adapted.merge_and_unload().to(stored)  # pyright: ignore[reportCallIssue]
    save_base(merged, vocabulary, output)
    write_companions(read_companions(str(base)), output)
    del merged, adapted, backbone  # frees the memory before the merged model is loaded
    merged_nll_N = _nll_by_transformers(family, output, batch, dtype)
    differences_N = (adapted_nll_N - merged_nll_N).abs()
    relative = float(differences_N.mean() / adapted_nll_N.mean())
    tolerance = max(TOLERANCES[dtype], TOLERANCES[stored])
    if not relative <= tolerance:
        raise ModelError(
            f"the merged model differs from base and adapter by {relative:.3g} of the likelihood, "
            f"more than {tolerance:g}",
            where=str(output),
            cause="the weights lose too much precision by rounding; set model.precision = float32",
        )
    return float(differences_N.max())


def _build_probe(family: Family, vocabulary: Vocabulary, dtype: torch.dtype) -> Batch:
    """A random row with plain text, every added token, and an image if the family sees images."""
    rng = np.random.default_rng(0)
    image_format, image_pad = family.image_format, vocabulary.special("<|image_pad|>")
    text = rng.integers(0, vocabulary.byte_base - 32, 64).tolist()
    image = []
    if image_format is not None:
        pads = [image_pad] * image_side(PROBE_PX) ** 2
        image = [
            vocabulary.special("<|vision_start|>"),
            *pads,
            vocabulary.special("<|vision_end|>"),
        ]
    added = [token for token in vocabulary.added_ids if token != image_pad]
    ids = [*text, *image, *rng.permutation(added).tolist()]
    input_ids = np.array(ids, dtype=np.int32)
    is_pad = input_ids == image_pad
    batcher = Batcher(
        image_pad=image_pad,
        image_px=PROBE_PX,
        device=torch.device("cpu"),
        dtype=dtype,
        image_format=image_format,
    )
    frames = rng.integers(0, 256, (1, PROBE_PX, PROBE_PX, 3), dtype=np.uint8)
    num_images = int(image_format is not None)
    return batcher(
        PackedRow(
            sample_id=0,
            input_ids=input_ids,
            modality=np.where(is_pad, Modality.MASKED, Modality.TEXT).astype(np.uint8),
            segment=np.zeros(len(ids), dtype=np.int32),
            event=np.zeros(len(ids), dtype=np.int32),
            may_be_label=np.ones(len(ids), dtype=np.bool_),
            frames=frames[:num_images],
            image_frame=np.zeros(num_images, dtype=np.int32),
            event_type=np.zeros(1, dtype=np.int16),
            event_is_target=np.ones(1, dtype=np.bool_),
        )
    )


def _nll_by_transformers(
    family: Family, folder: Path, batch: Batch, dtype: torch.dtype
) -> torch.Tensor:
    """(N,) nats of the labels, computed with transformers alone."""
    model = family.model_class.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    ).eval()
    images: dict[str, Any] = {}
    if batch.pixel_values is not None:
        images = {
            "pixel_values": batch.pixel_values,
            "image_grid_thw": batch.grid,
            "mm_token_type_ids": batch.image_mask.int(),
        }
    with torch.no_grad():
        logits_TV = model(input_ids=batch.input_ids, use_cache=False, **images).logits[0]
    log_probs = logits_TV[batch.labels - 1].float().log_softmax(-1)
    return -log_probs.gather(1, batch.input_ids[0, batch.labels, None])[:, 0]
