"""``mmtpp settings`` and the page of settings."""

from pathlib import Path

import pytest

from mmtpp.cli.main import main
from mmtpp.cli.settings_command import CHANGES, as_markdown, settings
from mmtpp.config.affects import Affects
from mmtpp.config.load import load_config
from mmtpp.config.schema import RunConfig

PAGE = Path(__file__).parents[3] / "mmtpp" / "config" / "README.md"


def test_every_setting_is_listed_with_help():
    by_path = {setting.path: setting for setting in settings()}
    tree = RunConfig().model_dump()

    def paths(part: dict, prefix: str = "") -> list[str]:
        return [
            path
            for key, value in part.items()
            for path in (
                paths(value, f"{prefix}{key}.")
                if isinstance(value, dict) and key != "machine_labels"
                else [f"{prefix}{key}"]
            )
        ]

    assert set(by_path) == set(paths(tree))
    assert all(setting.help and setting.takes for setting in by_path.values())


def test_defaults_are_valid_assignments():
    assignments = [
        f"{setting.path}={setting.default}"
        for setting in settings()
        if setting.default not in ("{}", "none")
    ]
    assert load_config(None, assignments).model_dump() == load_config(None).model_dump()


def test_the_text_of_some_settings(capsys):
    assert main(["settings", "lora", "rank", "0", "trains"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "lora.rank = 16                                     whole number, at least 0",
        "    Rank of the LoRA matrices; 0 trains all parameters. Changes: run.",
    ]
    by_path = {setting.path: setting.takes for setting in settings()}
    assert by_path["optimizer.p"] == "inf or number, at least 1"
    assert by_path["model.tiny_width"] == (
        "whole number, at least 24 and at most 3072, a multiple of 24"
    )
    assert by_path["optimizer.beta1"] == "number, at least 0 and less than 1"
    assert by_path["training.final_lr_fraction"] == "number, more than 0 and at most 1"
    assert by_path["run.name"] == "text, at most 100 characters"
    assert by_path["source.csv.quote"] == "text, 1 character"
    assert by_path["template.time_bytes"] == "2, 3, 4"


def test_the_page_explains_every_value_of_the_column_changes():
    assert set(CHANGES) == set(Affects)
    head = PAGE.read_text().partition("## run")[0]
    assert all(f"| {shape} | {about} |" in head for shape, about in CHANGES.items())


def test_a_word_that_no_setting_has_is_an_error(capsys):
    assert main(["settings", "blancmange"]) == 1
    printed = capsys.readouterr().err
    assert "blancmange" in printed
    assert "mmtpp/evaluate/README.md" in printed  # perhaps the word is part of a metric


def test_the_page_is_up_to_date():
    assert PAGE.read_text() == as_markdown(), (
        "run mmtpp settings --markdown > mmtpp/config/README.md"
    )


@pytest.mark.parametrize("setting", ["training.num_steps", "zero.stage", "source.columns.time"])
def test_the_page_has_one_line_per_setting(setting):
    assert PAGE.read_text().count(f"| `{setting}` |") == 1
