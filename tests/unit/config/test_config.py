"""Configuration: precedence, all faults at once, every shipped file."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from mmtpp.config import renamed
from mmtpp.config.affects import Affects, declared_affects
from mmtpp.config.fingerprint import run_fingerprint, run_name
from mmtpp.config.load import config_from_tree, load_config, require, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.sweep.best_config import as_toml
from mmtpp.sweep.load_sweep import load_sweep

ROOT = Path(__file__).parents[3]


def test_set_wins_over_file_and_file_over_default(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    file = tmp_path / "a.toml"
    file.write_text('[compression]\ndelta = 1.5\n[store]\nuri = "a"\n')
    config = load_config(file, ["store.uri=s3://b/c", "lora.rank=4", 'source.types=["x", "y"]'])
    assert (config.compression.delta, config.store.uri, config.lora.rank) == (1.5, "s3://b/c", 4)
    assert config.source.types == ("x", "y")
    assert config.compression.strategy == "temporal"
    assert config.tracking.uri == f"sqlite:///{Path.cwd() / 'mlruns.db'}"


def test_tracking_uri_defaults_to_the_environment(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert load_config(None).tracking.uri == "http://127.0.0.1:5000"


def test_all_faults_are_reported_at_once_with_suggestions():
    with pytest.raises(ConfigError) as caught:
        load_config(
            None,
            [
                "compression.delta=-1",
                "lora.rnk=4",
                "training.num_workers=abc",
                "nonsense",
                "zero.stage=4",
                "temporal.delta=3",
                "training.learning_rate=nan",
            ],
        )
    message = str(caught.value)
    for part in (
        "compression.delta = -1: Input should be greater than or equal to 0",
        "lora.rnk: no such key; did you mean lora.rank?",
        "training.num_workers = 'abc': Input should be a valid integer",
        "--set nonsense: write it as section.key=value",
        "zero.stage = 4: Input should be less than or equal to 3",
        "temporal: no such key",
        "training.learning_rate",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("source.columns.time_format=soon", "source.columns: time_format = 'soon': neither one of"),
        ("source.columns.time_format=%d.%m.%Q", "'Q' is a bad directive"),
        ("source.columns.time_format=%d %d %Y", "a directive occurs twice"),
        ("source.columns.time_format=%d %b", "has no year: set source.columns.year"),
        ("source.columns.time_zone=Mars/Olympus", "not an IANA time zone"),
        ("source.csv.encoding=klingon", "source.csv.encoding = 'klingon': unknown encoding"),
        ("source.csv.encoding=base64", "is not a text encoding"),
        ('source.csv.separator="\\""', "must be different characters"),
    ],
)
def test_formats_of_files_are_checked_before_any_file_is_read(assignment: str, problem: str):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [assignment])
    assert problem in str(caught.value)


def test_validation_must_come_before_the_test():
    by_time = ["split.by=time", "split.test_from=2024-01-01"]
    load_config(None, [*by_time, "split.validation_from=2023-12-01"])
    load_config(None, [*by_time, "split.validation_from=1e9"])  # the unit is not known here
    with pytest.raises(ConfigError, match="validation comes before the test"):
        load_config(None, [*by_time, "split.validation_from=2024-02-01"])


@pytest.mark.parametrize(
    ("assignment", "suggestion"),
    [
        ("training.learning_rat=1", "training.learning_rate?"),
        ("expert.learning_rte=1", "expert.learning_rate?"),
        (
            "optimizer.learning_rat=1",
            "expert.learning_rate or update.learning_rate or training.learning_rate?",
        ),
        ("optimizer.width=1", "expert.width?"),
        ("optimzer.name=muon", "optimizer?"),
        ("source.columns.sequnce=id", "source.columns.sequence?"),
    ],
)
def test_a_suggestion_prefers_the_typed_section(assignment: str, suggestion: str):
    with pytest.raises(ConfigError) as caught:
        load_config(None, [assignment])
    assert str(caught.value).endswith(f": no such key; did you mean {suggestion}")


def test_an_old_name_suggests_the_new_one(monkeypatch):
    """A setting, a whole section, and settings in a section that no longer exists."""
    monkeypatch.setattr(
        renamed,
        "RENAMED",
        {
            "lora.order": "lora.rank",
            "scaling": "zero",
            "rounding.weights.bits": "optimizer_precision.weights.mantissa_bits",
            "rounding.stored": "optimizer_precision.stored_states",
        },
    )
    assignments = ["lora.order=4", "scaling.stage=1", "rounding.weights.bits=7", "rounding.other=1"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, [*assignments, "rounding.stored=int8", "lora.unheard=1"])
    for line in (
        "lora.order: was renamed to lora.rank",
        "scaling: was renamed to zero",
        "rounding.weights.bits: was renamed to optimizer_precision.weights.mantissa_bits",
        "rounding.stored: was renamed to optimizer_precision.stored_states",
        "rounding.other: no such key",
        "lora.unheard: no such key",
    ):
        assert line in str(caught.value)


def test_renamed_settings_have_their_new_name_only():
    paths = [path for path, _ in declared_affects(RunConfig)]
    known = {path[:end] for path in paths for end in _ends_of_parts(path)}
    for old, new in renamed.RENAMED.items():
        assert new in known, f"{old} was renamed to {new}, which does not exist"
        assert old not in known, f"{old} exists, so it was not renamed"


def _ends_of_parts(path: str) -> list[int]:
    """Lengths of the paths of the setting and of its sections."""
    return [index for index, sign in enumerate(path) if sign == "."] + [len(path)]


def test_a_uri_with_a_password_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as caught:
        load_config(None, ["tracking.uri=http://user:hunter2@host/"])
    assert "must not carry" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_a_container_of_an_azure_account_is_no_user():
    uri = "abfs://events@account.dfs.core.windows.net/store"
    assert load_config(None, [f"store.uri={uri}"]).store.uri == uri
    for wrong in ("abfs://user:hunter2@account/x", "s3://events@host/x"):
        with pytest.raises(ConfigError, match="must not carry"):
            load_config(None, [f"store.uri={wrong}"])


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, "the file does not exist; a relative path starts at"),
        (b"a = [", "the file is not TOML: "),
        (b"[lora]\nrank = 1\n[lora]\n", "twice (at line 3"),
        (b'a = "caf\xe9"', "the file is not text in UTF-8: "),
    ],
)
def test_an_unreadable_file_is_an_error_with_its_cause(tmp_path, content, cause):
    file = tmp_path / "job.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert cause in caught.value.cause
    assert (caught.value.where, caught.value.setting) == (str(file), f"--config = {file}")


def test_required_settings_are_all_named():
    with pytest.raises(ConfigError, match=r"(?s)source\.uri.*store\.uri"):
        require(load_config(None), "source.uri", "store.uri")


@pytest.mark.parametrize("path", sorted(ROOT.glob("jobs/configs/*.toml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads(path: Path):
    load_config(path)


@pytest.mark.parametrize("path", sorted(ROOT.glob("tune/configs/*.toml")), ids=lambda p: p.name)
def test_every_shipped_sweep_loads_and_names_real_settings(path: Path):
    assert len(load_sweep(path, []).grid()) > 1


def test_best_toml_loads_as_the_same_configuration(tmp_path):
    config = load_config(ROOT / "jobs/configs/demo_adapt.toml", ['source.types=["é", "b"]'])
    file = tmp_path / "best.toml"
    file.write_text(as_toml(config, "jobs/pretrain.py"))
    assert load_config(file) == config
    assert config_from_tree(tomllib.loads(file.read_text())) == config


def test_every_setting_has_a_help_text():
    def walk(model, prefix=""):
        for name, field in model.model_fields.items():
            if hasattr(field.annotation, "model_fields"):
                yield from walk(field.annotation, f"{prefix}{name}.")
            else:
                yield prefix + name, field.description

    missing = [key for key, text in walk(RunConfig) if not text]
    assert not missing


def test_every_setting_declares_what_it_shapes():
    undeclared = [path for path, shapes in declared_affects(RunConfig) if not shapes]
    assert not undeclared, "add a member of config.affects.Affects to the annotation"
    for path, shapes in declared_affects(RunConfig):
        assert shapes == {Affects.NOTHING} or Affects.NOTHING not in shapes, path


# settings that keep the run, and settings that start another run
SAME = {
    "training.num_workers": 4,
    "training.cpus_per_worker": 2.0,
    "training.device": "cpu",
    "training.activation_checkpointing": True,
    "training.max_failures": 9,
    "training.checkpoint_every": 7,
    "zero.stage": 1,
    "generation.max_tokens": 9,
    "generation.repetition_penalty": 1.5,
    "prediction.num_futures": 3,
    "evaluation.num_futures": 2,
    "evaluation.max_sequences": 5,
    "tracking.experiment": "other",
    "run.wait_for_machines_s": 1.0,
    "store.uri": "/elsewhere",
    "store.cache_gib": 1.0,
    "source.max_rejected_fraction": 0.5,
    "tasks.text": 1.0,
    "evaluation.horizon": 1.0,
}
OTHER = {
    "compression.delta": 0.3,
    "template.style": "dense",
    "window.max_tokens": 512,
    "training.learning_rate": 1e-3,
    "training.num_steps": 7,
    "training.seed": 1,
    "lora.rank": 4,
    "model.tiny_width": 48,
    "optimizer.name": "muon",
    "optimizer_precision.stored_states": "int8",
    # scores of validation, by which the best model is kept
    "evaluation.targets_delta": 0.5,
    "evaluation.overlap_fraction": 0.25,
    "training.validation_sequences": 3,
}


def test_the_name_of_a_run_follows_what_shapes_it_and_nothing_else():
    config = load_config(None)
    name = run_name(config, "pretrain", store="s")
    assert name.startswith("tiny-pretrain-")
    for key, value in SAME.items():
        changes = {key: value, **({"evaluation.horizon": 1.0} if "futures" in key else {})}
        assert run_name(with_values(config, changes), "pretrain", store="s") == name, key
    for key, value in OTHER.items():
        assert run_name(with_values(config, {key: value}), "pretrain", store="s") != name, key
    assert run_name(config, "pretrain", store="other") != name
    assert run_name(with_values(config, {"run.name": "mine"}), "pretrain", store="s") == "mine"


def test_a_task_names_fine_tuning_and_a_text_names_evaluation():
    config = load_config(None)
    asked = with_values(config, {"tasks.text": 1.0})
    written = with_values(config, {"generation.max_tokens": 9})
    assert run_fingerprint(config, job="finetune") != run_fingerprint(asked, job="finetune")
    assert run_fingerprint(config, job="finetune") == run_fingerprint(written, job="finetune")
    assert run_name(config, "evaluate", store="s") != run_name(written, "evaluate", store="s")


def test_steps_may_be_left_out_of_a_fingerprint():
    config = load_config(None)
    longer = with_values(config, {"training.num_steps": 2000})
    assert run_fingerprint(config) != run_fingerprint(longer)
    assert run_fingerprint(config, steps=False) == run_fingerprint(longer, steps=False)


def test_instants_of_a_split_are_numbers_or_dates():
    split = config_from_tree(
        tomllib.loads('[split]\nby = "time"\nvalidation_from = 2024-03-01\ntest_from = 12.5')
    ).split
    assert (split.validation_from, split.test_from) == ("2024-03-01", "12.5")
    for settings in (
        {"by": "time", "test_from": "soon"},
        {"test_from": 5},
        {"by": "time", "test_from": True},
    ):
        with pytest.raises(ConfigError):
            config_from_tree({"split": settings})


@pytest.mark.parametrize("job", ["prepare", "pretrain", "evaluate"])
def test_jobs_refuse_bad_settings_with_status_one(job: str):
    done = subprocess.run(
        [sys.executable, f"jobs/{job}.py", "--set", "lora.rnk=1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "did you mean lora.rank?" in done.stderr
    assert "Traceback" not in done.stderr
