"""Every family computes what transformers computes: packed, branched, cached, adapted and saved.

The largest differences are rounding: measured 2026-11-29, at most 3e-5 with losses up to 40 nats.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmtpp.config.schema import ModelSection, TemplateSection
from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.row import HISTORY, PackedRow
from mmtpp.core.representation.tasks import EVENT_TASKS, TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.backbones.registry import FAMILIES, check_backbone, family_of_folder
from mmtpp.model.base_folder import load_base
from mmtpp.model.batch import Batcher
from mmtpp.model.decoding.cached_history import CachedHistory
from mmtpp.model.decoding.continued_rows import ContinuedForecaster
from mmtpp.model.event_model import (
    EventModel,
    EventModelSettings,
    build_event_model,
    load_event_model,
    save_trained,
)
from mmtpp.model.flops import FlopCounter
from mmtpp.model.history_keys import HistoryKeys
from mmtpp.model.merge import merge_adapter
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.model.row_forecaster import RowForecaster
from tests.helpers.tiny_models import IMAGE_PX, nll, random_row, tiny_backbone
from tests.parity.branched_rows import events_of, path_of, row_alone, row_of
from tests.parity.families import (
    CASES,
    Case,
    loaded,
    mixed_row,
    nll_of_transformers,
    with_all_rows,
    write_base,
)
from tests.parity.ranks import Job, plain_losses, run_ranks

TOLERANCE = {"rtol": 0, "atol": 1e-4}
cases = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


def _row(case: Case, lengths: list[int], seed: int = 1) -> PackedRow:
    return mixed_row(case.vocabulary, lengths, seed=seed)


def _settings(rank: int) -> EventModelSettings:
    return EventModelSettings(
        lora_rank=rank,
        lora_alpha=16,
        lora_dropout=0.0,
        freeze_vision=True,
        activation_checkpointing=False,
        seed=0,
        dtype=torch.float32,
    )


def _trained(case: Case, base: Path, *, rank: int) -> EventModel:
    """A model after three steps, which change every trained row."""
    model = build_event_model(_settings(rank), case.vocabulary, path=base)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    batch = _batcher(case)(_row(case, [300, 40]))
    for _ in range(3):
        model(batch)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def _nll(model: Any, case: Case, row: PackedRow) -> torch.Tensor:
    with torch.no_grad():
        return model(_batcher(case)(row))[0]


def _batcher(case: Case, *, blank_frame: bool = False) -> Batcher:
    return Batcher(
        image_pad=case.vocabulary.special("<|image_pad|>"),
        image_px=IMAGE_PX,
        device=torch.device("cpu"),
        dtype=torch.float32,
        blank_frame=blank_frame,
        image_format=FAMILIES[case.model_type].image_format,
    )


def _from_folder(case: Case, folder: Path) -> Any:
    """The model of a folder, loaded by transformers alone."""
    model_class: Any = FAMILIES[case.model_type].model_class
    return model_class.from_pretrained(folder).eval()


@cases
@torch.no_grad()
def test_packed_rows_have_the_likelihoods_of_separate_forwards(case: Case, tmp_path: Path):
    base, plain = loaded(case, tmp_path)
    row = _row(case, [40, 25, 60])
    expected = nll_of_transformers(plain, row)
    torch.testing.assert_close(_nll(EventModel(base), case, row), expected, **TOLERANCE)


@cases
@torch.no_grad()
def test_branches_have_the_likelihoods_of_separate_forwards(case: Case, tmp_path: Path):
    base, plain = loaded(case, tmp_path)
    settings = TemplateSettings("compact", "none", image_tokens=4, run_encoding="run_length")
    template = Template(case.vocabulary.token_ids(), settings)
    part = lay_out_branches(template, events_of(12, 0), [3, 4, 11], tasks=EVENT_TASKS)
    row = row_of([part])
    row = replace(row, frames=row.frames[:0])
    together = dict(zip(row.label_positions(), _nll(EventModel(base), case, row), strict=True))
    branch = part.branches.branch
    for index in range(HISTORY, int(branch.max()) + 1):
        path = path_of(part, int(np.flatnonzero(branch == index)[-1]))
        alone = row_alone(row, path)
        scores = nll_of_transformers(plain, alone)
        for label, score in zip(alone.label_positions().tolist(), scores, strict=True):
            if (place := path[label]) in together:
                torch.testing.assert_close(together[place], score, **TOLERANCE)


@cases
@torch.no_grad()
def test_tokens_after_a_cached_history_have_the_logits_of_a_whole_forward(
    case: Case, tmp_path: Path
):
    base, plain = loaded(case, tmp_path)
    model = EventModel(base)
    history, rest = _row(case, [30]), _row(case, [6], seed=2).input_ids
    cache = CachedHistory.build(model, _batcher(case)(history), 2)
    cache.append(np.stack([rest[:4], rest[:4]]))
    cache.crop(cache.length - 2)
    hidden_ND = cache.append(np.stack([rest[2:], rest[2:]]))
    ids = torch.tensor(np.concatenate([history.input_ids, rest]).astype(np.int64))
    expected = plain(input_ids=ids[None], use_cache=False).logits[:, -1].expand(2, -1)
    torch.testing.assert_close(model.head.logits(hidden_ND), expected, **TOLERANCE)


@cases
@torch.no_grad()
def test_continued_rows_have_the_forecasts_of_separate_forwards(case: Case, tmp_path: Path):
    """The second row has four more events; only they and the questions pass the model."""
    base, plain = loaded(case, tmp_path)
    model, ids = EventModel(base), case.vocabulary.token_ids()
    settings = TemplateSettings("compact", "none", image_tokens=4)
    template = Template(ids, settings, has_questions=True)
    grid = IntervalRange(0.02, 5.0, 1e-6).grid(num_bytes=4)
    type_ids = case.vocabulary.type_ids([0, 3, 5, 8])
    forecast = ContinuedForecaster(model, RowForecaster(model, ids, type_ids, grid))
    sequence, keys = events_of(9, 0), HistoryKeys()
    for size in (5, 9):
        events = sequence.slice(0, size)
        laid = lay_out_branches(
            template, events, [size], tasks=["time", "type"], first_bytes=grid.first_bytes
        )
        row = PackedRow.from_window(
            laid.tokens,
            events.types,
            np.zeros((0, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8),
            branches=laid.branches,
            questions=laid.questions,
        )
        [found] = forecast([row], [keys])
        assert len(keys) == len(row.history_ids)
        at = int(laid.questions.at[laid.questions.task == TASKS["type"]][0])
        tokens = torch.tensor(row.input_ids[path_of(laid, at)].astype(np.int64))
        expected = plain(input_ids=tokens[None], use_cache=False).logits[0, -1, type_ids]
        assert found.type is not None
        torch.testing.assert_close(
            torch.from_numpy(found.type.log_probability[0]),
            expected.double().log_softmax(-1),
            **TOLERANCE,
        )


@cases
def test_an_adapter_trains_as_peft_trains_it(case: Case, tmp_path: Path):
    """Likelihoods and gradients equal those of PEFT on a model with one row a token."""
    base, plain = loaded(case, tmp_path)
    torch.manual_seed(1)
    ours = EventModel(attach_lora(base, case.vocabulary.added_ids, rank=4, alpha=8, dropout=0.0))
    torch.manual_seed(1)
    settings = next(iter(ours.backbone.peft_config.values()))
    assert isinstance(settings, LoraConfig)
    rows = settings.trainable_token_indices
    assert isinstance(rows, dict)
    ids = rows["embed_tokens"]
    theirs = attach_lora(plain, ids, rank=4, alpha=8, dropout=0.0)
    row = _row(case, [300])
    nll_N = ours(_batcher(case)(row))[0]
    expected_N = nll_of_transformers(theirs, row)
    torch.testing.assert_close(nll_N, expected_N, **TOLERANCE)
    nll_N.mean().backward()
    expected_N.mean().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    trained = {
        name.removeprefix("backbone."): parameter.grad
        for name, parameter in ours.named_parameters()
        if parameter.requires_grad
    }
    assert trained.keys() == gradients.keys()
    assert not [name for name in trained if "lora" not in name and "trainable_tokens" not in name]
    for name, gradient in gradients.items():
        torch.testing.assert_close(trained[name], gradient, rtol=1e-3, atol=1e-5)


@cases
def test_an_adapter_is_loaded_by_transformers_and_peft_alone(case: Case, tmp_path: Path):
    base, adapter = write_base(case, tmp_path / "base"), tmp_path / "adapter"
    adapter.mkdir()
    trained = _trained(case, base, rank=4)
    save_trained(trained, case.vocabulary, adapter, base="base")
    row = _row(case, [50, 20], seed=3)
    expected = _nll(trained, case, row)
    again, _ = load_event_model(path=base, adapter=adapter, dtype=torch.float32)
    assert torch.equal(expected, _nll(again, case, row))
    resumed = build_event_model(_settings(4), case.vocabulary, path=base, adapter=adapter)
    assert torch.equal(expected, _nll(resumed.eval(), case, row))

    plain = _from_folder(case, base)
    num_tokens = case.vocabulary.num_tokens
    if plain.get_input_embeddings().num_embeddings < num_tokens:
        plain.resize_token_embeddings(num_tokens, mean_resizing=False)
    plain = PeftModel.from_pretrained(plain, adapter).eval()
    with torch.no_grad():
        torch.testing.assert_close(nll_of_transformers(plain, row), expected, **TOLERANCE)


@cases
def test_a_merged_adapter_is_a_standard_folder(case: Case, tmp_path: Path):
    base, adapter, merged = (tmp_path / name for name in ("base", "adapter", "merged"))
    adapter.mkdir()
    merged.mkdir()
    write_base(case, base)
    trained = _trained(case, base, rank=4)
    save_trained(trained, case.vocabulary, adapter, base="base")
    assert merge_adapter(base, adapter, merged, dtype=torch.float32) < 1e-3
    row = _row(case, [50, 20], seed=3)
    plain = _from_folder(case, merged)
    with torch.no_grad():
        actual = nll_of_transformers(plain, row)
    torch.testing.assert_close(actual, _nll(trained, case, row), **TOLERANCE)
    assert not [name for name in plain.state_dict() if "own_rows" in name]


@cases
def test_a_whole_model_trains_and_is_a_standard_folder(case: Case, tmp_path: Path):
    base, output = write_base(case, tmp_path / "base"), tmp_path / "output"
    output.mkdir()
    untrained = build_event_model(_settings(0), case.vocabulary, path=base)
    trained = _trained(case, base, rank=0)
    row = _row(case, [50, 20], seed=3)
    expected = _nll(trained, case, row)
    assert (expected - _nll(untrained.eval(), case, row)).abs().max() > 0.01
    with torch.no_grad():
        torch.testing.assert_close(
            nll_of_transformers(with_all_rows(trained.base), row), expected, **TOLERANCE
        )
    save_trained(trained, case.vocabulary, output, base="base")
    again, _ = load_event_model(path=output, adapter=None, dtype=torch.float32)
    torch.testing.assert_close(_nll(again, case, row), expected, **TOLERANCE)
    plain = _from_folder(case, output)
    with torch.no_grad():
        torch.testing.assert_close(nll_of_transformers(plain, row), expected, **TOLERANCE)


@cases
def test_operations_are_those_that_are_computed(case: Case, tmp_path: Path):
    base, _ = loaded(case, tmp_path)
    model = EventModel(base).train()
    row = random_row(case.vocabulary, [200, 300], seed=1, images=case.vision is not None)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(_batcher(case)(row))[0].sum().backward()
    counted = FlopCounter(model, image_px=IMAGE_PX, blank_frame=False)(row)
    assert (counted.tower > 0) == (case.vision is not None)
    # torch also counts the products that the causal mask removes; see test_flops
    expected = counter.get_total_flops() - counted.attention
    assert counted.total == pytest.approx(expected, rel=0.03)


@torch.no_grad()
def test_images_have_the_likelihoods_of_separate_forwards(tmp_path: Path):
    """Frames are shown to several segments; a black frame in a row without images has no effect."""
    case = CASES["qwen3_vl"]
    base, plain = loaded(case, tmp_path)
    model = EventModel(base)
    row = random_row(case.vocabulary, [40, 15, 60], seed=4)
    assert len(row.image_frame) == 4
    expected = nll_of_transformers(plain, row)
    torch.testing.assert_close(_nll(model, case, row), expected, **TOLERANCE)
    # images change the labels after them far beyond the tolerance
    other = replace(row, frames=255 - row.frames)
    assert (_nll(model, case, other) - expected).abs().max() > 0.1
    blind = _row(case, [30])
    actual = model(_batcher(case, blank_frame=True)(blind))[0]
    torch.testing.assert_close(actual, nll_of_transformers(plain, blind), **TOLERANCE)


def test_a_trained_tower_has_the_gradients_of_separate_forwards(tmp_path: Path):
    """The features that are added after the first layers train too."""
    case = CASES["qwen3_vl"]
    base, plain = loaded(case, tmp_path)
    row = random_row(case.vocabulary, [40, 60], seed=4)
    EventModel(base).train()(_batcher(case)(row))[0].mean().backward()
    nll_of_transformers(plain, row).mean().backward()
    gradients = dict(plain.model.visual.named_parameters())
    assert any("deepstack" in name for name in gradients)
    for name, parameter in base.model.visual.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name].grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["llama, tied", "llama, a few spare rows"])
def test_zero3_trains_and_writes_a_model_with_own_rows(name: str, tmp_path: Path):
    """The base is sharded while it is loaded; losses equal those of one process."""
    case = CASES[name]
    base = write_base(case, tmp_path / "base")
    jobs = []
    for lora in (True, False):
        output = tmp_path / f"output-{lora}"
        output.mkdir()
        jobs.append(Job(3, lora=lora, base=str(base), output=str(output), images=False))
    row = _row(case, [50, 20], seed=3)
    for job, result in zip(jobs, run_ranks(2, *jobs), strict=True):
        expected = plain_losses(lora=job.lora, images=False, base=str(base))
        assert result.losses == pytest.approx(expected, abs=5e-5)
        output = Path(job.output)
        model, _ = load_event_model(
            path=base if job.lora else output,
            adapter=output if job.lora else None,
            dtype=torch.float32,
        )
        assert _nll(model, case, row).isfinite().all()
        assert model.head.num_tokens == case.vocabulary.num_tokens


def test_new_rows_have_the_mean_and_spread_of_the_embedding(tmp_path: Path):
    case = CASES["llama, tied"]
    base, plain = loaded(case, tmp_path)
    again, _ = load_base(tmp_path, dtype=torch.float32)
    rows = base.get_input_embeddings().own_rows
    assert torch.equal(rows, again.get_input_embeddings().own_rows)
    assert base.lm_head.own_rows is rows
    weight = base.get_input_embeddings().weight
    assert len(weight) + len(rows) == case.vocabulary.num_tokens == len(plain.lm_head.weight)
    torch.testing.assert_close(rows.mean(), weight.mean(), rtol=0, atol=0.05)
    torch.testing.assert_close(rows.std(), weight.std(), rtol=0.05, atol=0)


def test_an_adapter_of_another_family_is_refused_by_name(tmp_path: Path):
    case = CASES["llama, tied"]
    base, adapter = write_base(case, tmp_path / "base"), tmp_path / "adapter"
    other = write_base(CASES["qwen2, spare rows"], tmp_path / "other")
    adapter.mkdir()
    save_trained(_trained(case, base, rank=4), case.vocabulary, adapter, base="base")
    message = "belongs to a llama model, the base is a qwen2 model"
    with pytest.raises(ModelError, match=message):
        load_event_model(path=other, adapter=adapter, dtype=torch.float32)
    with pytest.raises(ModelError, match=message):
        check_backbone(
            ModelSection(path=str(other), adapter=str(adapter)), TemplateSection(images="none")
        )
    # an adapter without a record is of the oldest family
    recorded = adapter / "vocabulary.json"
    tree = json.loads(recorded.read_text())
    del tree["model_type"]
    recorded.write_text(json.dumps(tree))
    with pytest.raises(ModelError, match="belongs to a qwen2_5_vl model, the base is a llama"):
        build_event_model(_settings(4), case.vocabulary, path=base, adapter=adapter)


def test_an_unknown_family_is_refused_with_the_known_ones(tmp_path: Path):
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match=r"(?s)'t5'.*qwen2_5_vl, qwen3_vl, llama"):
        family_of_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no model_type"):
        family_of_folder(tmp_path)


def test_sliding_windows_are_refused(tmp_path: Path):
    case = CASES["qwen2, spare rows"]
    path = write_base(case, tmp_path) / "config.json"
    tree = json.loads(path.read_text())
    tree |= {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]}
    path.write_text(json.dumps(tree))
    with pytest.raises(ModelError, match=r"(?s)sliding_attention.*model\.path"):
        load_base(tmp_path, dtype=torch.float32)


def test_images_are_refused_by_a_text_family(tmp_path: Path):
    case = CASES["qwen2, spare rows"]
    base, _ = loaded(case, tmp_path)
    shown, hidden = TemplateSection(images="per_event"), TemplateSection(images="none")
    check_backbone(ModelSection(path=str(tmp_path)), hidden)
    check_backbone(ModelSection(), shown)
    with pytest.raises(ModelError, match=r"(?s)Qwen2 has no vision tower.*images = per_event"):
        check_backbone(ModelSection(path=str(tmp_path)), shown)
    row = random_row(case.vocabulary, [40], seed=0)
    with pytest.raises(ModelError, match=r"(?s)no vision tower.*template\.images"):
        _nll(EventModel(base), case, row)
    # a tiny model of Qwen2.5-VL sees the same row
    assert nll(EventModel(tiny_backbone(case.vocabulary)), case.vocabulary, row).isfinite().all()
