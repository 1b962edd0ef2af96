"""Merging an adapter into its base: a Hugging Face folder that needs neither PEFT nor this project.

Axes: T tokens, N labels, V vocabulary.
"""

from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from mmtpp.core.errors import ModelError
from mmtpp.core.row import Row
from mmtpp.core.tokens import Modality
from mmtpp.model.batch import Batch, Batcher
from mmtpp.model.companions import read_companions, write_companions
from mmtpp.model.event_model import EventModel
from mmtpp.model.lora import load_adapter
from mmtpp.model.processor import image_side
from mmtpp.model.qwen_vl import load_base, save_base
from mmtpp.model.vocabulary import Vocabulary

PROBE_PX = 56
# mean difference of a label's likelihood over the mean likelihood. float32: sums in another order;
# bfloat16: the merged weights themselves are rounded to 8 bits
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def merge_adapter(base: Path, adapter: Path, output: Path, *, dtype: torch.dtype) -> float:
    """Write base plus adapter as one model, with the base's small files, and compare it, read
    back, with the two apart.

    The weights are added in ``dtype`` and written in that of the base's files. The comparison is
    between this project's forward pass of base and adapter and plain transformers' of what was
    written, on a probe with an image, ordinary text and every added token.

    Args:
        base: local folder of the base model.
        adapter: local folder of its adapter.
        output: existing, empty, local.
        dtype: to compute in.

    Returns:
        The largest difference of a label's likelihood, nats.

    Raises:
        ModelError: base and adapter do not belong together, or the difference is too large.
    """
    backbone, vocabulary = load_base(base, dtype=dtype)
    recorded = Qwen2_5_VLConfig.from_pretrained(base, local_files_only=True).dtype
    stored = recorded if isinstance(recorded, torch.dtype) else dtype
    if stored not in TOLERANCES:
        raise ModelError(
            f"a base in {stored} is not merged; float32 and bfloat16 are", where=str(base)
        )
    adapted = load_adapter(backbone, vocabulary, adapter)
    batch = _probe(vocabulary, dtype)
    with torch.no_grad():
        apart_N, _ = EventModel(adapted).eval()(batch)
    merged = adapted.merge_and_unload().to(stored)  # pyright: ignore[reportCallIssue]
    save_base(merged, vocabulary, output)
    write_companions(read_companions(str(base)), output)
    del merged, adapted, backbone  # before the next copy is read
    together_N = _plain_nll(output, batch, dtype)
    differences_N = (apart_N - together_N).abs()
    relative = float(differences_N.mean() / apart_N.mean())
    tolerance = max(TOLERANCES[dtype], TOLERANCES[stored])
    if not relative <= tolerance:
        raise ModelError(
            f"the merged model differs from base and adapter by {relative:.3g} of the likelihood, "
            f"more than {tolerance:g}",
            where=str(output),
            cause="weights that rounding spoils; compute in float32 (model.precision)",
        )
    return float(differences_N.max())


def _probe(vocabulary: Vocabulary, dtype: torch.dtype) -> Batch:
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


def _plain_nll(folder: Path, batch: Batch, dtype: torch.dtype) -> torch.Tensor:
    """Likelihoods as anyone computes them who has only transformers."""
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
