"""What a language model needs to be updated: its base, its tasks, its types and its clock."""

import json
from pathlib import Path

import pytest

from mmtpp.config.load import config_from_tree, with_values
from mmtpp.core.errors import ConfigError, MmtppError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.update.language_model_checks import check_tasks, check_update_events, continue_config
from mmtpp.update.updated_model import PresentModel
from tests.helpers.manifests import sample_manifest
from tests.helpers.stand_in import stand_in

TASKS = TrainedTasks(("time", "type", "joint"), IntervalRange(1, 9, 1.0), (0, 1), (), 1.0, False)
HUB = "hf://owner/model"


def _present(folder: Path, base: str | None, registered: str = "", **changes: object):
    """An adapter of a base; a whole model where the base is None."""
    folder.mkdir(exist_ok=True)
    if base is not None:
        config = json.dumps({"base_model_name_or_path": base})
        (folder / "adapter_config.json").write_text(config)
    config = config_from_tree({"update": {"model": str(folder), "new_from": 5}})
    manifest = sample_manifest(occurring_types=(0, 1))
    store = stand_in(PreparedStore, uri="store", manifest=manifest)
    return PresentModel(with_values(config, changes), store, registered)


@pytest.mark.parametrize(
    ("named", "registered", "given", "expected"),
    [
        ("/models/a", "", "", "/models/a"),
        ("/models/a", "", "/models/a/", "/models/a"),
        ("/models/gone", "/models/a", "", "/models/a"),  # as the registry has it
        ("", "", "/models/a", "/models/a"),
        (f"{HUB}@1234", "", HUB, f"{HUB}@1234"),
        (f"{HUB}@1234", "", f"{HUB}@1234", f"{HUB}@1234"),
    ],
)
def test_an_adapter_is_continued_on_its_base(tmp_path, named, registered, given, expected):
    present = _present(tmp_path / "m", named, registered, **{"model.path": given})
    config = continue_config(present)
    assert (config.model.path, config.model.adapter) == (expected, str(tmp_path / "m"))


def test_a_whole_model_is_continued_itself(tmp_path):
    present = _present(tmp_path / "m", None, **{"model.path": "/models/a", "model.adapter": "/b"})
    config = continue_config(present)
    assert (config.model.path, config.model.adapter) == (str(tmp_path / "m"), "")


@pytest.mark.parametrize(
    ("named", "changes", "message", "setting"),
    [
        ("/models/a", {"model.path": "/models/b"}, "another base model, /models/a", "= /models/b"),
        (f"{HUB}@1", {"model.path": f"{HUB}@2"}, "another base model", f"= {HUB}@2"),
        ("", {}, "does not name the model that it adapts", "model.path, which is empty"),
        ("/a", {"model.preset": "expert"}, "are those of an expert", "model.preset = expert"),
        ("/a", {"update.trains": "prompts"}, "not have these", "update.trains = prompts"),
        (
            "/a",
            {"update.epochs": 9, "update.learning_rate": 0.5},
            "not have these",
            "update.epochs = 9, update.learning_rate = 0.5",
        ),
    ],
)
def test_settings_that_do_not_fit_are_an_error(tmp_path, named, changes, message, setting):
    with pytest.raises(ConfigError, match=message) as caught:
        continue_config(_present(tmp_path / "m", named, **changes))
    assert setting in caught.value.setting
    assert caught.value.where == str(tmp_path / "m")


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (None, "fine-tuned on no task"),
        (("time", "text"), "fine-tuned on time, text"),
        (("type",), "fine-tuned on type"),
        (("time", "type", "qa"), "whole sequences, which are neither new nor old"),
        (("time", "type"), "the weights of other tasks are above 0"),
    ],
)
def test_a_model_of_other_tasks_is_refused(tmp_path, trained, message):
    config = continue_config(_present(tmp_path / "m", "/a"))
    assert check_tasks(config, TASKS) == TASKS
    tasks = None
    if trained is not None:
        tasks = TrainedTasks(trained, TASKS.interval_range, (0,), (), 1.0, False)
    with pytest.raises(ConfigError) as caught:
        check_tasks(config, tasks)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("codes", "tick", "message"),
    [((0,), 1.0, "never seen: 1"), ((0, 1), 0.5, "trained with ticks of 0.5")],
)
def test_unknown_types_and_another_clock_are_refused(tmp_path, codes, tick, message):
    present = _present(tmp_path / "m", "/a")
    check_update_events(present, TASKS)
    tasks = TrainedTasks(TASKS.tasks, IntervalRange(1, 9, tick), codes, (), 1.0, False)
    with pytest.raises(ModelError) as caught:
        check_update_events(present, tasks)
    assert isinstance(caught.value, MmtppError)
    assert message in str(caught.value)
