"""Merge an adapter into its base: the result can be loaded without PEFT and without mmtpp.

Axes: T tokens, N labels, V vocabulary.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmtpp.core.errors import ModelError
from mmtpp.core.representation.row import Row
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.batch import Batch, Batcher
from mmtpp.model.companions import read_companions, write_companions
from mmtpp.model.event_model import EventModel
from mmtpp.model.lora import load_adapter
from mmtpp.model.processor import image_side
from mmtpp.model.qwen_vl import load_base, save_base
from mmtpp.model.vocabulary import Vocabulary

PROBE_PX = 56
# largest accepted mean difference of a label's likelihood, divided by the mean likelihood: in
# float32 sums have another order, and in bfloat16 the merged weights are rounded to 8 bits
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def merge_adapter(base: Path, adapter: Path, output: Path, *, dtype: torch.dtype) -> float:
    """Write base and adapter as one model, and check that its likelihoods are the same.

    The weights are added in ``dtype`` and written in the type of the base's files, together with
    the base's small files. The written model is then loaded with transformers alone and compared
    with the base and its adapter in mmtpp, on a row with an image, plain text and every added
    token.

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
    recorded = Qwen2_5_VLConfig.from_pretrained(base, local_files_only=True).dtype
    stored = recorded if isinstance(recorded, torch.dtype) else dtype
    if stored not in TOLERANCES:
        raise ModelError(
            f"a base in {stored} cannot be merged, only float32 and bfloat16", where=str(base)
        )
    adapted = load_adapter(backbone, vocabulary, adapter)
    batch = _build_probe(vocabulary, dtype)
    with torch.no_grad():
        adapted_nll_N, _ = EventModel(adapted).eval()(batch)
    merged = adapted.merge_and_unload().to(stored)  # pyright: ignore[reportCallIssue]
    save_base(merged, vocabulary, output)
    write_companions(read_companions(str(base)), output)
    del merged, adapted, backbone  # frees the memory before the merged model is loaded
    merged_nll_N = _nll_by_transformers(output, batch, dtype)
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


def _build_probe(vocabulary: Vocabulary, dtype: torch.dtype) -> Batch:
    """A random row with an image, plain text and every added token."""
    rng = np.random.default_rng(0)
    pads = [vocabulary.special("<|image_pad|>")] * image_side(PROBE_PX) ** 2
    ids = [
        *rng.integers(0, vocabulary.byte_base - 32, 64).tolist(),
        vocabulary.special("<|vision_start|>"),
        *pads,
        vocabulary.special("<|vision_end|>"),
        *rng.permutation(vocabulary.added_ids).tolist(),
    ]
    input_ids = np.array(ids, dtype=np.int32)
    is_pad = input_ids == pads[0]
    batcher = Batcher(image_pad=pads[0], image_px=PROBE_PX, device=torch.device("cpu"), dtype=dtype)
    return batcher(
        Row(
            sample_id=0,
            input_ids=input_ids,
            modality=np.where(is_pad, Modality.MASKED, Modality.TEXT).astype(np.uint8),
            segment=np.zeros(len(ids), dtype=np.int32),
            event=np.zeros(len(ids), dtype=np.int32),
            scored=np.ones(len(ids), dtype=np.bool_),
            frames=rng.integers(0, 256, (1, PROBE_PX, PROBE_PX, 3), dtype=np.uint8),
            image_frame=np.zeros(1, dtype=np.int32),
            event_type=np.zeros(1, dtype=np.int16),
            event_is_target=np.ones(1, dtype=np.bool_),
        )
    )


def _nll_by_transformers(folder: Path, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
    """(N,) nats of the labels, computed with transformers alone."""
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, local_files_only=True
    ).eval()
    with torch.no_grad():
        logits_TV = model(
            input_ids=batch.input_ids,
            pixel_values=batch.pixel_values,
            image_grid_thw=batch.grid,
            mm_token_type_ids=batch.image_mask.int(),
            use_cache=False,
        ).logits[0]
    log_probs = logits_TV[batch.labels - 1].float().log_softmax(-1)
    return -log_probs.gather(1, batch.input_ids[0, batch.labels, None])[:, 0]
