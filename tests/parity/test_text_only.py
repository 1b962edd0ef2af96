"""A run without images does not run the vision tower and has bit-identical results."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mmtpp.config.load import config_from_tree
from mmtpp.model.base_folder import build_tiny, save_base
from tests.helpers.tiny_models import batcher
from tests.parity.ranks import (
    STEPS,
    VOCABULARY,
    Job,
    Result,
    event_model,
    plain_losses,
    rows_of,
    run_ranks,
)

HALF = STEPS // 2
TEXT_ONLY = Job(3, images=False, blank_frame=False)
STAGES = (0, 2, 3)


def _likelihoods(*, lora: bool, blank_frame: bool, grad: bool) -> tuple[torch.Tensor, dict, int]:
    """Nats of the labels of some rows, gradients of the sum, and number of passes of the tower."""
    model = event_model(lora=lora, images=False)
    passes: list[None] = []
    model.base.model.visual.register_forward_pre_hook(lambda *_: passes.append(None))
    move = batcher(VOCABULARY, blank_frame=blank_frame)
    with torch.set_grad_enabled(grad):
        nll = torch.cat([model(move(row))[0] for row in rows_of(0, images=False)])
    if grad:
        nll.sum().backward()
    gradients = {
        name: parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    return nll.detach(), gradients, len(passes)


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("grad", [False, True])
def test_a_row_without_images_scores_the_same_bits_without_the_tower(lora: bool, grad: bool):
    before, gradients_before, passes_before = _likelihoods(lora=lora, blank_frame=True, grad=grad)
    after, gradients, passes = _likelihoods(lora=lora, blank_frame=False, grad=grad)
    assert (len(rows_of(0)), 0) == (passes_before, passes)
    assert torch.equal(before, after)
    if grad:
        assert gradients.keys() == gradients_before.keys()
        assert not [name for name in gradients if "visual" in name]
        assert all(torch.equal(gradients_before[name], gradients[name]) for name in gradients)


def test_rows_with_images_are_the_same_with_and_without_blank_frames():
    model = event_model(lora=False).eval()
    (row, *_) = rows_of(0)
    assert len(row.frames)
    with torch.no_grad():
        always, needed = (
            model(batcher(VOCABULARY, blank_frame=blank_frame)(row))[0]
            for blank_frame in (True, False)
        )
    assert torch.equal(always, needed)


@pytest.fixture(scope="module")
def two_ranks() -> dict[str, Result]:
    """Runs of every stage with a black frame in the tower and without the tower; and an adapter."""
    jobs = {
        f"{name}-{stage}": replace(TEXT_ONLY, stage=stage, lora=stage == 1, blank_frame=shown)
        for stage in (*STAGES, 1)
        for name, shown in (("tower", True), ("none", False))
    }
    return dict(zip(jobs, run_ranks(2, *jobs.values()), strict=True))


@pytest.mark.parametrize("stage", [*STAGES, 1])
def test_losses_of_two_ranks_are_the_same_bits_without_the_tower(
    two_ranks: dict[str, Result], stage: int
):
    tower, none = two_ranks[f"tower-{stage}"], two_ranks[f"none-{stage}"]
    assert tower.losses == none.losses
    assert tower.grad_norms == none.grad_norms
    assert (tower.tower_passes, none.tower_passes) == (STEPS * 2, 0)  # a rank has two rows per step
    plain = plain_losses(images=False, lora=stage == 1)
    assert plain[0] > plain[-1] + 0.1
    assert plain == pytest.approx(none.losses, abs=5e-5)


@pytest.mark.parametrize(("num_ranks", "stage"), [(1, 0), (2, 0), (2, 1), (2, 2)])
def test_an_adapter_needs_no_black_frame_next_to_rows_with_images(num_ranks: int, stage: int):
    """One of four rows has no image: on the last rank, the tower runs for one row of two."""
    job = Job(stage, lora=True)
    with_frame, without = run_ranks(num_ranks, job, replace(job, blank_frame=False))
    assert with_frame.losses == without.losses
    assert with_frame.grad_norms == without.grad_norms
    if num_ranks == 1:  # passes are those of the first rank
        assert (with_frame.tower_passes, without.tower_passes) == (STEPS * 4, STEPS * 3)


def test_a_text_only_run_resumes_on_one_rank_and_keeps_the_tower(tmp_path: Path):
    """Two ranks with ZeRO-3, then one rank without ZeRO; the saved model has the base's tower."""
    base, saved, output = (tmp_path / name for name in ("base", "saved", "output"))
    for folder in (base, saved, output):
        folder.mkdir()
    save_base(build_tiny(VOCABULARY, seed=0), VOCABULARY, base)
    (first,) = run_ranks(2, replace(TEXT_ONLY, base=str(base), end=HALF, save=str(saved)))
    (second,) = run_ranks(
        1, replace(TEXT_ONLY, stage=0, first=HALF, load=str(saved), output=str(output))
    )
    assert plain_losses(images=False) == pytest.approx(first.losses + second.losses, abs=5e-5)
    assert first.tower_passes + second.tower_passes == 0
    for path in saved.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names = [*file.keys()]
        assert names
        assert not [name for name in names if "visual" in name]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, output))
    assert before.keys() == after.keys()
    tower = [name for name in before if "visual" in name]
    assert len(tower) > 10
    assert all(torch.equal(before[name], after[name]) for name in tower)
    assert not torch.equal(before["model.norm.weight"], after["model.norm.weight"])


@pytest.mark.parametrize(
    ("images", "rank", "freeze", "trains"),
    [
        ("per_event", 0, False, True),
        ("on_change", 0, False, True),
        ("on_change", 0, True, False),
        ("on_change", 8, False, False),
        ("none", 0, False, False),
        ("none", 8, True, False),
    ],
)
def test_the_tower_is_trained_in_a_run_with_images(
    images: str, rank: int, freeze: bool, trains: bool
):
    config = config_from_tree(
        {
            "template": {"images": images},
            "lora": {"rank": rank},
            "training": {"freeze_vision": freeze},
        }
    )
    assert trains == config.trains_vision
    assert (images != "none") == config.shows_images
