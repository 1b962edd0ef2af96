"""Pretraining, adaptation, validation and evaluation on a real cluster with S3 and MLflow."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from mlflow.tracking import MlflowClient
from peft import PeftModel, get_peft_model_state_dict
from ray.train import Checkpoint, TrainingFailedError
from safetensors.torch import load_file

from mmtpp.config.load import with_values
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.representation.supervision import AllTokens
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import load_store, store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import load_plan, samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.evaluate.scores.metric_names import (
    EVENT_TYPE_ACCURACY,
    EVENT_TYPE_ACCURACY_MOST_FREQUENT,
)
from mmtpp.model.base_folder import load_base
from mmtpp.model.folders.folder import local_folder
from mmtpp.predict.export import export
from mmtpp.storage.filesystems import filesystem_of
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import (
    copy_folder,
    list_files,
    read_bytes,
    remove_folder,
    write_bytes,
)
from mmtpp.train.checkpoints.checkpoint import (
    BEST_BY,
    TrainingProgress,
    load_progress,
    restore_checkpoint,
)
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.launch import pretrain
from mmtpp.train.launch.run_folder import RESULT_FILE
from mmtpp.train.launch.sample_plans import plan_validation_samples
from tests.helpers.curves import curve
from tests.helpers.job_settings import RUNS, STORE, make_config
from tests.helpers.killing import worker_killed_after_checkpoint
from tests.helpers.published_events import publish_events


def test_training_learns_and_is_tracked(base, stack):
    assert base["steps"] == 12
    client = MlflowClient(stack.mlflow_uri)
    run = client.get_run(base["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["compression.delta"] == "0.5"
    history = client.get_metric_history(base["run_id"], "train/loss_per_token")
    assert [point.step for point in history] == list(range(1, 13))
    assert history[0].value > history[-1].value + 0.3
    assert run.data.metrics["validation/events"] > 10
    assert {"model", "config.json"} <= {item.path for item in client.list_artifacts(base["run_id"])}
    with local_folder(base["model_uri"]) as folder:
        assert folder is not None
        load_base(folder, dtype=torch.float32)


def test_training_resumes_in_the_same_run_after_a_killed_worker(base, stack):
    """The losses equal those of the uninterrupted run."""
    with worker_killed_after_checkpoint(f"{RUNS}/killed"):
        result = pretrain(make_config(**{"run.name": "killed", "training.max_failures": 1}))
    client = MlflowClient(stack.mlflow_uri)
    losses = curve(client, result["run_id"])
    assert set(losses) == set(range(1, 13))
    assert losses == curve(client, base["run_id"])  # bit for bit
    (experiment,) = client.search_experiments(filter_string="name = 'mmtpp'")
    runs = client.search_runs([experiment.experiment_id], "attributes.run_name = 'killed'")
    assert [run.info.run_id for run in runs] == [result["run_id"]]
    assert runs[0].info.status == "FINISHED"


def test_a_finished_run_of_given_compute_returns_its_result_without_training(store, stack):
    config = make_config(
        **{
            "run.name": "compute",
            "training.max_flops": 1e10,
            "training.num_workers": 1,
            "model.tiny_width": 24,
        }
    )
    result = pretrain(config)
    assert result["steps"] != config.training.num_steps
    remove_folder(result["model_uri"])
    assert pretrain(config) == result
    assert not list_files(result["model_uri"], "config.json")  # the model is not written again


@pytest.mark.slow  # two more runs
def test_a_run_interrupted_before_its_result_only_writes_the_result(store, stack):
    config = make_config(**{"run.name": "unfinished"})
    result = pretrain(config)
    client = MlflowClient(stack.mlflow_uri)
    before = curve(client, result["run_id"])
    remove_folder(result["model_uri"])
    filesystem, path = filesystem_of(f"{RUNS}/unfinished/{RESULT_FILE}")
    filesystem.delete_file(path)
    assert pretrain(config) == result
    assert curve(client, result["run_id"]) == before
    with local_folder(result["model_uri"]) as folder:
        assert folder is not None
        load_base(folder, dtype=torch.float32)


@pytest.mark.slow  # tests/parity/test_topology.py is a fast version
def test_a_failed_run_resumes_with_another_number_of_workers_and_stage(base, stack):
    """From 2 workers and the default ZeRO stage to 1 worker and stage 0, with the same losses."""
    name = {"run.name": "resized"}
    killed = worker_killed_after_checkpoint(f"{RUNS}/resized")
    with killed, pytest.raises(TrainingFailedError):
        pretrain(make_config(**name, **{"training.max_failures": 0}))
    result = pretrain(make_config(**name, **{"training.num_workers": 1, "zero.stage": 0}))
    assert result["steps"] == 12
    client = MlflowClient(stack.mlflow_uri)
    expected, losses = (curve(client, run_id) for run_id in (base["run_id"], result["run_id"]))
    assert losses == pytest.approx(expected, abs=1e-4)  # sums are in another order


def test_ranks_of_one_machine_share_one_copy_of_a_checkpoint(stack):
    """A rank that restores while another rank restores does not replace its files."""
    expected = TrainingProgress(step=3, plan_fingerprint="p", vocabulary_hash="v")
    write_bytes(f"{RUNS}/shared/progress.json", json.dumps(asdict(expected)).encode())
    write_bytes(f"{RUNS}/shared/state/optimizer.pt", b"x" * 1000)
    filesystem, path = filesystem_of(f"{RUNS}/shared")
    checkpoint = Checkpoint(path, filesystem)
    folders: list[Path] = []

    class Rank:
        def load(self, folder: Path, *, num_steps: int) -> None:
            folders.append(folder)
            before = (folder / "state" / "optimizer.pt").stat()
            if len(folders) < 3:
                restore_checkpoint(cast(DeepSpeedEngine, Rank()), checkpoint, run_uri=RUNS, step=3)
            after = (folder / "state" / "optimizer.pt").stat()
            assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
            assert after.st_size == 1000

    assert load_progress(checkpoint, fresh=replace(expected, step=0)) == expected
    restore_checkpoint(cast(DeepSpeedEngine, Rank()), checkpoint, run_uri=RUNS, step=3)
    assert len(folders) == 3
    assert len(set(folders)) == 1
    assert not any(folder.exists() for folder in folders)
    with pytest.raises(ModelError, match="plan_fingerprint p, this run has q"):
        load_progress(checkpoint, fresh=replace(expected, plan_fingerprint="q"))


@pytest.fixture(scope="module")
def untracked(base) -> dict:
    """An adapter that was trained while the tracking server could not be reached."""
    changes = {
        "tracking.uri": "http://127.0.0.1:1",
        "model.path": base["model_uri"],
        "lora.rank": 4,
        "run.name": "adapter",
        "training.num_steps": 5,
        "training.num_workers": 1,
        "training.validate_every": 1,
    }
    return pretrain(make_config(**changes))


@pytest.fixture(scope="module")
def untracked_model(base, untracked) -> dict:
    """Settings of jobs that read this adapter."""
    return {
        "model.path": base["model_uri"],
        "model.adapter": untracked["adapter_uri"],
        "training.num_workers": 1,
    }


def test_training_continues_without_a_tracking_server_and_stores_its_calls(untracked):
    assert (untracked["steps"], untracked["run_id"]) == (5, None)
    backlogs = list_files(f"{RUNS}/adapter", ".jsonl")
    calls = [
        json.loads(line)
        for file in backlogs
        for line in read_bytes(f"s3://{file.path}").splitlines()
    ]
    assert {"params", "metrics", "status"} <= {call["call"] for call in calls}
    _check_best(untracked, calls)


def test_an_adapter_is_loaded_by_the_code_of_its_card(base, untracked, tmp_path):
    """The code needs transformers and PEFT, and nothing of this project."""
    copy_folder(untracked["adapter_uri"], str(tmp_path / "adapter"))
    copy_folder(base["model_uri"], str(tmp_path / "base"))
    model, _ = load_base(tmp_path / "base", dtype=torch.float32)
    loaded = PeftModel.from_pretrained(model, tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert set(get_peft_model_state_dict(loaded)) == set(saved)
    card = (tmp_path / "adapter" / "README.md").read_text()
    assert "library_name: peft" in card
    assert "5 steps of 4 rows" in card
    names = {"BASE": str(tmp_path / "base"), "FOLDER": str(tmp_path / "adapter")}
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    exec(compile(code, "card", "exec"), names)  # noqa: S102
    ids = torch.arange(20)[None]
    plain: Any = names["model"]
    assert torch.equal(loaded(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_an_exported_model_is_a_whole_folder(untracked_model):
    exported = export(make_config(**untracked_model, **{"run.name": "exported"}))
    assert cast(float, exported["max_difference_nats"]) < 1e-3
    with local_folder(str(exported["model_uri"])) as folder:
        assert folder is not None
        load_base(folder, dtype=torch.float32)
        assert (folder / "template.json").exists()


def test_every_held_out_event_with_a_predecessor_is_scored(untracked_model, stack):
    with pytest.raises(ModelError, match=r"trained with template\.style = minimal, here dense"):
        evaluate(make_config(**untracked_model, **{"template.style": "dense"}))
    result = evaluate(make_config(**untracked_model))
    manifest = load_manifest(STORE)
    plan = make_plan(
        build_sample_settings(make_config().sample_sections, manifest, split="test"),
        store_vocabulary(STORE, manifest).token_ids(),
    )
    test_events = manifest.events_by_split["test"]
    # every held-out event except first events of sequences and events that compression dropped
    assert result["events"] <= test_events - manifest.sequences_by_split["test"]
    assert result["events"] > 0.5 * test_events
    assert plan.num_similar > 0
    accuracy = result["metrics"][EVENT_TYPE_ACCURACY]
    assert 0 <= accuracy <= 1
    assert result["baselines"][EVENT_TYPE_ACCURACY_MOST_FREQUENT] < 0.5
    run = MlflowClient(stack.mlflow_uri).get_run(result["run_id"])
    assert run.data.metrics[EVENT_TYPE_ACCURACY] == accuracy
    json.dumps(result, allow_nan=False)


def _check_best(result: dict, calls: list[dict]) -> None:
    """The adapter with the lowest validation loss is kept; earlier best adapters are deleted."""
    losses = {call["step"]: call[BEST_BY] for call in calls if BEST_BY in call and call["step"]}
    assert set(losses) == set(range(1, 6))
    best = min(losses, key=lambda step: losses[step])
    assert result["best_adapter_uri"] == f"{result['adapter_uri']}-best-{best:06d}"
    files = list_files(f"{RUNS}/adapter", "adapter_model.safetensors")
    folders = {info.path.split("/")[-2] for info in files}
    assert folders == {"adapter", f"adapter-best-{best:06d}"}
    last, best_weights = (
        read_bytes(f"{result[key]}/adapter_model.safetensors")
        for key in ("adapter_uri", "best_adapter_uri")
    )
    assert (last == best_weights) == (best == 5)


def test_validation_scores_the_same_events_for_every_delta(store, tmp_path):
    prepared_store = load_store(STORE)
    targets = []
    for delta in (0.0, 2.0):
        changes = {"compression.delta": delta, "evaluation.targets_delta": 2.0}
        config = make_config(**changes | {"window.max_tokens": 128})
        uri = str(tmp_path / str(delta))
        settings = plan_validation_samples(
            config.sample_sections,
            prepared_store,
            uri,
            num_sequences=2,
            supervision=AllTokens(),
        )
        assert settings is not None
        plan = load_plan(f"{uri}/validation_plan.parquet")
        table = Assembler(settings, prepared_store.vocabulary.token_ids())(
            samples_table(plan, np.arange(plan.num_samples))
        )
        events = set()
        for index in range(len(table)):
            row = row_from_arrow(table, index, image_px=56)
            scored = np.zeros(len(row.event_type), dtype=np.bool_)
            scored[row.event[row.may_be_label & (row.event >= 0)]] = True
            sequences, times = table["sequences"][index].as_py(), table["event_time"][index].as_py()
            names = [sequences[segment] for segment in table["event_segment"][index].as_py()]
            events |= {(names[i], times[i]) for i in np.flatnonzero(scored & row.event_is_target)}
        targets.append(events)
    assert targets[0] == targets[1]
    assert len({name for name, _ in targets[0]}) == 2


def test_more_steps_under_the_same_name_continue_the_run(store, stack, caplog):
    changes = {"run.name": "longer", "training.num_steps": 4, "training.num_workers": 1}
    config = make_config(**changes, **{"training.validation_sequences": 0})
    first = pretrain(config)
    client = MlflowClient(stack.mlflow_uri)
    before = curve(client, first["run_id"])
    assert sorted(before) == [1, 2, 3, 4]
    longer = pretrain(with_values(config, {"training.num_steps": 7}))
    assert "training.num_steps = 4 -> 7" in caplog.text
    assert (longer["steps"], longer["run_id"]) == (7, first["run_id"])
    after = curve(client, first["run_id"])
    assert sorted(after) == list(range(1, 8))  # no step was repeated: one value per step
    assert {step: after[step] for step in before} == before
    assert pretrain(with_values(config, {"training.num_steps": 7})) == longer
    with pytest.raises(ConfigError, match=r"cannot become shorter.*training\.num_steps = 7 -> 4"):
        pretrain(config)


def test_other_settings_or_data_under_the_same_run_name_are_refused(base, tmp_path):
    with pytest.raises(ConfigError, match=r"compression\.delta: 0\.5 -> 2\.0"):
        pretrain(make_config(**{"run.name": "base", "compression.delta": 2.0}))
    raw, target = str(tmp_path / "raw"), str(tmp_path / "store")
    publish_events(raw, bad=True)
    prepare(make_config(**{"source.uri": raw, "store.uri": target, "split.test_fraction": 0.1}))
    backup = str(tmp_path / "backup")
    copy_folder(STORE, backup)
    try:
        copy_folder(target, STORE)
        with pytest.raises(DataError, match="this run was started on data"):
            pretrain(make_config(**{"run.name": "base"}))
    finally:  # other tests read the store
        remove_folder(STORE)
        copy_folder(backup, STORE)
