"""``mmtpp inspect``: figures computed by hand for a small data set, and real danmaku."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmtpp.cli.main import main
from mmtpp.inspect.measure import QUANTILES
from mmtpp.model.tokens.vocabulary import train_tokenizer

HOSTILE = "<script>alert(1)</script>"


def _write_events(folder: Path, *, names: bool = False) -> None:
    """Two sequences: intervals 1, 1.5, 4 with two images, one missing; and one interval of 2."""
    (folder / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "images" / "a.png")

    def event(time: float, kind: int, image: str | None, wait: float) -> dict:
        code: object = f"kind {kind} {HOSTILE}" if names else kind
        return {
            "time": time,
            "text": f"t{kind}",
            "image_path": image,
            "TPP_attribute": {"event_type": code, "time_since_last_event": wait},
        }

    one = [
        event(0, 0, "images/a.png", 0),
        event(1, 0, "images/a.png", 1),
        event(2.5, 1, "images/b.png", 1.5),
        event(6.5, 1, "images/b.png", 9),
    ]
    two = [event(3, 1, None, 0), event(1, 0, None, 0), {"time": 1}]
    (folder / "one.json").write_text(json.dumps(one))
    (folder / "two.json").write_text(json.dumps(two))


def _inspect(tmp_path: Path, *arguments: str) -> dict:
    out = tmp_path / "out" / "report.json"
    assert main(["inspect", *arguments, "--json", str(out)]) == 0
    return json.loads(out.read_text())


def test_figures_equal_those_computed_by_hand(tmp_path: Path, capsys):
    raw = tmp_path / "raw"
    _write_events(raw)
    report = _inspect(
        tmp_path,
        str(raw),
        "--deltas",
        "1",
        "--set",
        "template.style=minimal",
        "--set",
        "window.max_tokens=64",
    )
    assert (report["num_read"], report["num_events"], report["num_sequences"]) == (7, 6, 2)
    assert report["rejected_by_cause"] == {"missing_type": 1}
    assert tuple(report["rejected_examples"][0][key] for key in ("path", "row")) == ("two.json", 2)
    # the events of "two" are out of order and declare intervals of 0; "one" declares 9 for 4
    assert (report["num_reordered"], report["num_disagreeing"]) == (1, 2)
    assert report["interval"] == np.quantile([1, 1.5, 4, 2], QUANTILES).tolist()
    assert report["types"] == {"0": 3, "1": 3}
    assert tuple(
        report[key] for key in ("num_events_with_image", "num_images", "num_images_missing")
    ) == (4, 2, 1)
    assert report["num_distinct_texts"] == 2
    none, temporal, *_ = report["choices"]
    assert (none["strategy"], none["compressed"]) == ("none", 0.0)
    # |1.5 - 1| < 1; |4 - 1.5|, |1 - 0| and |2 - 0| are at least 1
    assert (temporal["strategy"], temporal["compressed"]) == ("temporal", 1 / 6)
    text = report["text_tokens"][0]
    assert report["text_tokens"] == [text] * len(QUANTILES)
    # minimal: 4 time bytes, the type, the text and its end; every event of "one" has an image
    image = 4 + 2
    assert none["tokens_per_event"] == pytest.approx((6 * (6 + text) + 4 * image) / 6)
    assert [row["style"] for row in report["styles"]] == ["paper", "compact", "minimal", "dense"]
    printed = capsys.readouterr().out
    assert "rejected, missing_type: 1" in printed
    assert "two.json, row 3: type is None" in printed
    assert "1 files missing" in printed


def test_durations_and_dates_are_readable(tmp_path: Path, capsys):
    """Two intervals, 2.5 and 3.5 days of 24 hours; quantiles are interpolated linearly."""
    raw, page = tmp_path / "raw", tmp_path / "page.html"
    raw.mkdir()
    times = ["2024-02-28 12:00:00", "2024-03-02 00:00:00", "2024-03-05 12:00:00"]
    lines = [f"pump,{time},on" for time in times]
    (raw / "pump.csv").write_text("\n".join(["id,when,what", *lines]))
    _inspect(
        tmp_path,
        str(raw),
        "--kind",
        "columns",
        "--html",
        str(page),
        *(f"--set=source.columns.{name}" for name in ("time=when", "sequence=id", "type=what")),
        "--set=source.types=auto",
    )
    printed = capsys.readouterr().out
    [interval] = [line for line in printed.splitlines() if line.startswith("interval ")]
    assert [re.split(r"\s{2,}", interval)[place] for place in (1, 4, 5, 9)] == [
        "2.5 days",
        "2.75 days",
        "3 days",
        "3.5 days",
    ]
    html = page.read_text()
    assert "from 2024-02-28 12:00:00 UTC to 2024-03-05 12:00:00 UTC" in html
    assert "<td>2.5 days</td>" in html
    assert "<th>" not in html  # every header has a scope


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_loads_no_resources_and_escapes_names(tmp_path: Path):
    raw = tmp_path / "raw"
    _write_events(raw, names=True)
    page = tmp_path / "page.html"
    report = _inspect(tmp_path, str(raw), "--html", str(page))
    assert report["hints"][0].startswith(
        'types are named in the files: set source.types = "auto", or source.types = ["kind 0'
    )
    parsed = _Page()
    parsed.feed(page.read_text())
    assert "svg" in parsed.tags
    assert not parsed.tags & {"script", "img", "iframe", "link", "object"}
    assert f"kind 1 {HOSTILE}" in parsed.text
    assert all(link.startswith("#") for link in parsed.links)


def test_real_danmaku_are_measured_with_the_vocabulary_of_a_model(tmp_path: Path, real_data: Path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "tokenizer.json").write_text(train_tokenizer(["哈哈哈"], size=512))
    report = _inspect(
        tmp_path,
        str(real_data / "danmaku_bilibili_xml"),
        "--kind",
        "danmaku",
        "--max-files",
        "9",
        "--deltas",
        "0.2",
        "--set",
        f"model.path={model}",
    )
    assert (report["num_files"], report["num_files_in_source"]) == (9, 92)
    assert report["vocabulary"] == f"the vocabulary of {model}"
    none, *rows = report["choices"]
    by_strategy = {row["strategy"]: row for row in rows}
    # about half of the intervals differ from the one before by less than 0.2 s
    assert 0.4 < by_strategy["temporal"]["compressed"] < 0.65
    assert by_strategy["hybrid"]["compressed"] < by_strategy["temporal"]["compressed"]
    assert by_strategy["temporal"]["events_per_context"] > 1.5 * none["events_per_context"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--kind", "columns"], "needs source.columns.time"),
        (["--kind", "danmaku"], "no .xml files"),
        (["--set", "window.max_tokens=64", "--set", "template.image_px=280"], "more than"),
        (["--set", "windows.max_tokens=64"], "window"),
    ],
)
def test_errors_name_the_setting_to_change(
    tmp_path: Path, capsys, arguments: list[str], problem: str
):
    _write_events(tmp_path / "raw")
    assert main(["inspect", str(tmp_path / "raw"), *arguments]) == 1
    assert problem in capsys.readouterr().err


def test_unusual_data_sets_are_measured(tmp_path: Path, capsys):
    """One event per sequence, an id in two files, an empty file, control characters in names."""
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("mon", "tue"):
        (raw / f"{name}.csv").write_text("t,id,kind\n1,a,\x1b[31mred\n")
    (raw / "header.csv").write_text("t,id,kind\n")
    (raw / "empty.csv").write_text("")
    columns = ["source.columns.time=t", "source.columns.sequence=id", "source.columns.type=kind"]
    arguments = [part for column in columns for part in ("--set", column)]
    joined = _inspect(tmp_path, str(raw), "--kind", "columns", *arguments)
    assert (joined["num_sequences"], set(joined["interval"])) == (1, {0.0})
    assert "sequences with events in several files: 1" in joined["hints"][1]
    arguments += ["--set", "source.partitioning=file"]
    report = _inspect(tmp_path, str(raw), "--kind", "columns", *arguments)
    assert (report["num_events"], report["interval"]) == (2, [])
    assert report["rejected_by_cause"] == {"malformed_file": 1}
    assert "for example 'a'" in report["hints"][1]
    assert "33.3% of the events are rejected" in report["hints"][2]  # prepare would stop
    assert "source.malformed_file = reject" in report["hints"][3]
    assert "\x1b" not in capsys.readouterr().out


def test_images_that_prepare_refuses_are_named(tmp_path: Path):
    (tmp_path / "a.csv").write_text(
        "t,i\n0,s3://pictures/a.png\n1,s3://pictures/b.png\n2,../c.png\n"
    )
    arguments = ["--set", "source.columns.time=t", "--set", "source.columns.image=i"]
    report = _inspect(tmp_path, str(tmp_path / "a.csv"), "--kind", "columns", *arguments)
    [hint] = [hint for hint in report["hints"] if "images" in hint]
    assert "prepare rejects 3 events" in hint
    assert "source.image_roots" in hint
    allowed = [*arguments, "--set", "source.image_roots=['s3://pictures']"]
    report = _inspect(tmp_path, str(tmp_path / "a.csv"), "--kind", "columns", *allowed)
    assert any("prepare rejects 1 events" in hint for hint in report["hints"])


@pytest.mark.parametrize(
    ("settings", "sequences", "events"),
    [
        ([], (1, 0, 1), (4, 0, 4)),  # by hash of the ids "train" and "test"
        (["split.by=given"], (1, 0, 1), (4, 0, 4)),
        (["split.by=time", "split.test_fraction=0.25"], (2, 0, 2), (6, 0, 2)),
        (["split.by=time", "split.validation_from=1", "split.test_from=3"], (2, 2, 2), (2, 4, 2)),
    ],
)
def test_the_sizes_of_the_splits_are_those_that_prepare_will_write(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    settings: list[str],
    sequences: tuple[int, ...],
    events: tuple[int, ...],
):
    raw, page = tmp_path / "raw", tmp_path / "page.html"
    raw.mkdir()
    for name in ("train", "test"):
        (raw / f"{name}.csv").write_text("t\n0\n1\n2\n3\n")
    settings = ["source.columns.time=t", "split.validation_fraction=0", *settings]
    arguments = [word for setting in settings for word in ("--set", setting)]
    report = _inspect(tmp_path, str(raw), "--kind", "columns", *arguments, "--html", str(page))
    splits = ("train", "validation", "test")
    assert report["sequences_by_split"] == dict(zip(splits, sequences, strict=True))
    assert report["events_by_split"] == dict(zip(splits, events, strict=True))
    by = report["split_by"]
    assert f"splits (split.by = {by}): train {sequences[0]} sequences with {events[0]} events" in (
        capsys.readouterr().out
    )
    assert f'<th scope="row">test</th><td>{sequences[2]}</td>' in page.read_text()


def test_sequences_without_a_given_split_are_a_hint(tmp_path: Path):
    file = tmp_path / "events.csv"
    file.write_text("t\n0\n1\n")
    settings = ("--set=source.columns.time=t", "--set=split.by=given")
    report = _inspect(tmp_path, str(file), *settings)
    assert report["sequences_by_split"] == {"train": 0, "validation": 0, "test": 0}
    assert report["hints"][0].startswith("1 sequences do not name their split: prepare stops")


def test_the_kind_of_a_file_is_that_of_its_suffix(tmp_path: Path, capsys):
    file = tmp_path / "raw" / "events.csv"
    file.parent.mkdir()
    file.write_text("at,what\n0,1\n1,1\n")
    assert main(["inspect", str(file)]) == 1
    assert "source.columns.time, which is empty" in capsys.readouterr().err
    report = _inspect(tmp_path, str(file), "--set", "source.columns.time=at")
    assert report["kind"] == "columns"
    assert "read with --kind columns, because of its suffix .csv" in capsys.readouterr().err
    assert main(["inspect", str(file.parent)]) == 1
    assert "source.kind = columns or easytpp reads .csv files" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--deltas", "-1"], ["--deltas", "x"], ["--max-files", "-3"]]
)
def test_wrong_arguments_are_refused(arguments: list[str], capsys):
    with pytest.raises(SystemExit):
        main(["inspect", "somewhere", *arguments])
    assert arguments[0] in capsys.readouterr().err


def test_a_missing_folder_is_an_error_with_its_cause_and_setting(tmp_path: Path, capsys):
    missing = tmp_path / "nowhere"
    assert main(["inspect", str(missing)]) == 1
    assert capsys.readouterr().err.splitlines()[-4:] == [
        "error: there is no such file or folder",
        f"  where: {missing}",
        "  likely cause: the path is misspelt, or relative to another folder",
        f"  setting: source.uri = {missing}",
    ]
