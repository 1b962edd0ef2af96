"""``report.html``: numbers by hand; names from the data are escaped; the page loads nothing."""

import io
import re
import warnings
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import confusion_matrix, root_mean_squared_error

from mmtpp.evaluate.example import DIFFICULTIES
from mmtpp.evaluate.read_examples import MIN_TARGETS, choose_windows
from mmtpp.evaluate.report.confusion import MAX_TYPES, count_confusion
from mmtpp.evaluate.report.example_figures import MAX_TEXT
from mmtpp.evaluate.report.figures import draw_report_figures, history_curve
from mmtpp.evaluate.report.report_page import Subject, render_report
from mmtpp.evaluate.report.verdict import headline, verdicts
from mmtpp.evaluate.scores.estimates import Estimate
from mmtpp.evaluate.scores.metrics import estimate_metrics, metric_differences
from mmtpp.pages.page_style import shorten
from tests.helpers.report import (
    HOSTILE,
    LONG,
    NUM_EVENTS,
    made_up_report,
    made_up_targets,
    realistic_report,
    realistic_targets,
    worse_than,
)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href")
        ]


@pytest.fixture(scope="module")
def page() -> str:
    return made_up_report()


def test_the_page_loads_nothing_and_names_are_text(page: str):
    parsed = _Page()
    parsed.feed(page)
    assert "script" not in parsed.tags
    assert HOSTILE not in page
    assert "&lt;script&gt;" in page
    assert all(link.startswith(("#", "data:image/")) for link in parsed.links)
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert len(page) < 3 * 2**20
    assert "url(http" not in page
    # every picture has words, every control a name
    assert parsed.tags.count("svg") == len(re.findall(r"<svg[^>]*aria-label=", page))
    assert page.count('<g class="event" tabindex="0" role="img" aria-label=') == 2 * NUM_EVENTS


def test_the_table_has_the_metrics_and_marks_the_best(page: str):
    """Times are in minutes; the mean absolute error of the median is less than one of them."""
    targets = made_up_targets()
    wait, median = targets["interval"].to_numpy(), targets["quantile_50"].to_numpy()
    mae = 60 * np.abs(wait - median).mean()
    assert 10 < mae < 60
    row = _row(page, "MAE of times")
    model, baseline = _cells(row)
    assert model.startswith(f"{mae:.1f} s")
    other = worse_than(targets)["quantile_50"].to_numpy()
    worse = np.abs(wait - other).mean()
    assert worse > 1
    assert baseline.startswith(f"{60 * worse:.1f} s")  # in the unit of the model
    assert ["best" in cell for cell in re.findall("<td[^>]*>", row)] == [True, False]
    assert ["%" in cell for cell in _cells(_row(page, "Accuracy of types"))] == [True, False]
    # 13 of the 39 before the last are compressed, each with half a full one's attention
    similar, full = 13 * 0.01, 26 * 0.02
    assert f"gives {similar:.1%} of its attention to the compressed" in page
    assert f"{full:.1%} to the full events" in page
    assert "3 older images are" in page


def _row(page: str, label: str) -> str:
    [row] = re.findall(rf'<th scope="row"[^>]*>{label}\s*<.*?</tr>', page, re.DOTALL)
    return row


def _cells(row: str) -> list[str]:
    return [
        re.sub(r"<[^>]*>", " ", cell).strip()
        for cell in re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
    ]


def test_dates_durations_and_names_are_readable():
    page = realistic_report()
    # 2.5 days of mean wait: errors are days, not 2.2e+05
    assert not re.search(
        r"\de[+-]\d", re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)
    )
    assert all("days" in cell for cell in _cells(_row(page, "RMSE of times")))
    assert "2024-01-01 00:00:00 UTC to 2024-" in page
    assert "event 0, type 0" in page
    assert f"冷却 unit, {LONG}" in page
    assert "<th>" not in page  # headers have a scope
    assert page.count("<th ") == len(re.findall(r'<th scope="(?:row|col)"', page))


def test_the_confusion_matrix_is_that_of_scikit_learn():
    targets = realistic_targets()
    names = [f"kind {code}" for code in range(300)]
    confusion = count_confusion(targets, names)
    assert confusion is not None
    true, predicted = (targets[name].to_numpy() for name in ("type", "predicted_type"))
    occurring, counts = np.unique(true, return_counts=True)
    by_count = dict(zip(occurring.tolist(), counts.tolist(), strict=True))
    named = [int(name.removeprefix("kind ")) for name in confusion.names[:-1]]
    assert len(confusion.names) == MAX_TYPES
    least = min(by_count[code] for code in named)
    assert all(by_count[code] <= least for code in by_count.keys() - set(named))
    labels = [*named, 999]
    both = [np.where(np.isin(column, named), column, 999) for column in (true, predicted)]
    assert (confusion.counts == confusion_matrix(*both, labels=labels)).all()
    distinct = len({*true.tolist(), *predicted.tolist()})
    assert confusion.names[-1] == f"{distinct - 19} other types"
    assert f"The 19 most frequent of {distinct} types" in confusion.note


def test_names_in_figures_are_no_formulas_and_have_letters_of_the_font():
    targets = made_up_targets()
    estimates = estimate_metrics(targets, seconds_per_unit=60.0, resamples=20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = draw_report_figures(
            targets, estimates, seconds_per_unit=60.0, names=["$\\frac{$", "冷却"]
        )
        [types] = [figure for figure in figures if figure.name == "types"]
        types.figure.savefig(io.BytesIO(), format="png")
    labels = {label.get_text() for label in types.figure.axes[0].get_yticklabels()}
    assert "$\\frac{$" in labels
    assert any(label in labels for label in ("type 1", "type 2"))


def test_differences_are_paired():
    """A constant half nat is certain, though each likelihood alone is not; RMSE as scikit-learn."""
    targets = made_up_targets()
    place = targets.column_names.index("time_nll")
    moved = targets.set_column(place, "time_nll", pa.array(targets["time_nll"].to_numpy() + 0.5))
    shuffled = moved.take(np.random.default_rng(0).permutation(len(moved)))
    estimates = metric_differences(targets, shuffled, seconds_per_unit=60.0, resamples=200)
    nll = estimates["time/nll_nats_per_event"]
    assert [nll.value, nll.low, nll.high] == pytest.approx([-0.5] * 3)
    other = worse_than(targets)
    rmse = metric_differences(targets, other, seconds_per_unit=60.0, resamples=200)["time/rmse_s"]
    wait = targets["interval"].to_numpy()
    first, second = (
        root_mean_squared_error(wait, table["mean"].to_numpy()) for table in (targets, other)
    )
    assert rmse.value == pytest.approx(60 * (first - second))
    assert rmse.low < rmse.value < rmse.high < 0
    with pytest.raises(ValueError, match="different sequences"):
        metric_differences(targets, targets.slice(0, NUM_EVENTS - 1), seconds_per_unit=60.0)


def _around(value: float, half: float = 0.01) -> Estimate:
    return Estimate(value, value - half, value + half)


def test_the_result_names_every_baseline_that_is_not_beaten():
    nll, rmse, right = "time/nll_nats_per_event", "time/rmse_s", "type/accuracy"
    hour = 3600.0
    estimates = {
        "model": {nll: _around(2.0), rmse: _around(10 * hour), right: _around(0.5)},
        "poisson": {nll: _around(2.5), rmse: _around(12 * hour), right: _around(0.25)},
        "hawkes": {nll: _around(2.1), rmse: _around(11 * hour)},
    }
    against = {
        "poisson": {nll: _around(-0.5), rmse: _around(-2 * hour), right: _around(0.25)},
        "hawkes": {nll: _around(-0.1, 0.02), rmse: _around(-1 * hour, 2 * hour)},
    }
    results = verdicts(estimates, against)
    assert [result.is_better for result in results] == [True, False, True]
    assert results[0].details == (
        "The model has 2.000 nats, and hawkes, the best of the 2 baselines, 2.100 nats: better by "
        "0.100 nats (95 % interval 0.080 to 0.120).",
    )
    assert results[1].details == (
        "The model has 10 h, and hawkes, the best of the 2 baselines, 11 h: no clear difference, "
        "better by 1 h (95 % interval -1 to 3).",
    )
    assert results[2].details == (
        "The model has 50.0 %, and poisson 25.0 %: better by 25.0 percentage points (95 % interval "
        "24.0 to 26.0).",
        "Without this measure: hawkes.",
    )
    assert headline(results, 30) == (
        "The model is better than every baseline by likelihood (NLL of times) and accuracy of "
        "types, but not better than hawkes by RMSE of times."
    )
    worse = {"hawkes": {nll: _around(0.2, 0.1)}}
    lost = verdicts({"model": {nll: _around(2.0)}, "hawkes": {nll: _around(1.8)}}, worse)
    assert headline(lost, 30) == (
        "The model is not better than hawkes by likelihood (NLL of times)."
    )
    assert "worse by 0.200 nats (95 % interval 0.100 to 0.300)" in lost[0].details[0]
    assert "One held-out sequence" in headline(lost, 1)
    endless = {"model": {nll: _around(2.0)}, "hawkes": {nll: Estimate(np.inf, 1.9, np.inf)}}
    [first] = verdicts(endless, {"hawkes": {nll: Estimate(-np.inf, -np.inf, np.nan)}})
    assert first.is_better
    assert "hawkes ∞ nats: infinite" in first.details[0]
    assert "not compared" in headline(verdicts({"model": {}}, {}), 30)


def test_the_result_stands_before_the_tables(page: str):
    assert page.index("The model is better than every baseline by") < page.index("<table")
    text = re.sub(r"\s+", " ", page.replace("\u00a0", " "))
    assert "likelihood (NLL of times) and RMSE of times" in text


def test_curves_against_history_by_hand():
    targets = made_up_targets()
    curve = history_curve(targets, "time_nll", is_perplexity=False)
    context, wait = targets["context"].to_numpy(), targets["interval"].to_numpy()
    chosen = (context >= 8) & (context < 16)
    error = 1.96 * wait[chosen].std(ddof=0) / np.sqrt(chosen.sum())
    mean = wait[chosen].mean()
    assert curve[3] == pytest.approx(
        (context[chosen].mean(), mean, mean - error, mean + error), rel=2e-2
    )
    assert [point[0] for point in curve[:2]] == [1.0, 2.5]
    assert history_curve(targets, "text_nll", is_perplexity=True) == []
    kinds = history_curve(targets, "type_nll", is_perplexity=True)
    chances = np.exp(targets["type_nll"].to_numpy()[chosen].mean())
    assert kinds[3][1] == pytest.approx(chances)


def test_long_texts_are_truncated():
    assert shorten("a" * MAX_TEXT, MAX_TEXT) == "a" * MAX_TEXT
    assert shorten("a" * (MAX_TEXT + 1), MAX_TEXT) == "a" * MAX_TEXT + "…"
    assert shorten("漢" * MAX_TEXT, MAX_TEXT) == "漢" * (MAX_TEXT // 2) + "…"


def test_examples_go_from_easy_to_hard():
    """Window w of 21 has targets of w nats; one with too few targets is never chosen."""
    names = [f"s{number:02d}" for number in range(22)]
    rows = [
        {"sequence_id": name, "position": place, "time_nll": float(window), "type_nll": None}
        for window, name in enumerate(names)
        for place in range(1, (MIN_TARGETS if window < 21 else MIN_TARGETS - 1) + 1)
    ]
    schema = pa.schema(
        [
            ("sequence_id", pa.string()),
            ("position", pa.int32()),
            ("time_nll", pa.float64()),
            ("type_nll", pa.float64()),
        ]
    )
    windows = pa.table({"sequence_id": names, "first_scored": [1] * 22, "end": [50] * 22})
    chosen = choose_windows(windows, pa.Table.from_pylist(rows, schema))
    assert chosen == {1: "easy", 5: "rather easy", 10: "typical", 15: "rather hard", 19: "hard"}
    assert list(chosen.values()) == list(DIFFICULTIES)
    none = pa.Table.from_pylist(rows[-2:], schema)
    assert choose_windows(windows, none) == {}


def test_the_page_warns_of_few_sequences(page: str):
    targets = made_up_targets(5)
    estimates = estimate_metrics(targets, seconds_per_unit=60.0, resamples=20)
    subject = Subject("few", {}, ("a", "b"), 60.0)
    assert "5 held-out sequences are few" in render_report(
        subject, targets, {"model": estimates}, [], [], {}
    )
    assert "sequences are few" not in page  # of 30
