"""Samples of the plan to the ranks, on a real cluster."""

import numpy as np
import pytest

from mmtpp.data.feed import iter_rows, rank_samples
from mmtpp.data.plan import make_plan
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.storage.manifest import load_manifest
from tests.on_ray.settings import STORE, make_config


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_the_feed_delivers_the_plan_at_any_world_size(store, num_ranks: int):
    config = make_config()
    manifest = load_manifest(STORE)
    settings = assemble_settings(config, manifest, split="train")
    token_ids = store_vocabulary(STORE, manifest).token_ids()
    plan = make_plan(settings, token_ids)
    consumed = []
    for rank in range(num_ranks):
        samples = rank_samples(plan, seed=0, first_step=3, num_steps=6, samples_per_step=4,
                               rank=rank, num_ranks=num_ranks)  # fmt: skip
        rows = list(iter_rows(plan, samples, settings, token_ids))
        assert samples.tolist() == [row.sample_id for row in rows]
        assert all(len(row.input_ids) <= 256 for row in rows)
        consumed.append(samples.reshape(3, -1))
    whole = rank_samples(plan, seed=0, first_step=0, num_steps=6, samples_per_step=4, rank=0,
                         num_ranks=1)[12:]  # fmt: skip
    assert whole.tolist() == np.concatenate(consumed, axis=1).ravel().tolist()
