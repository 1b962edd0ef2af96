"""``report.html``: numbers by hand, nothing of the data is markup, nothing is loaded."""

import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from mmtpp.evaluate.drawing import MAX_TEXT, _cut
from mmtpp.evaluate.examples import MIN_TARGETS, RANKS, choose_windows
from mmtpp.evaluate.figures import against_history
from mmtpp.evaluate.metrics import estimate
from mmtpp.evaluate.page import Subject, as_report
from tests.report import HOSTILE, NUM_EVENTS, made_up_report, made_up_targets


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs
                       if name in ("src", "href", "xlink:href")]  # fmt: skip


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
    assert 2 * NUM_EVENTS == page.count('<g class="event" tabindex="0" role="img" aria-label=')


def test_the_table_has_the_metrics_and_marks_the_best(page: str):
    targets = made_up_targets()
    median = targets["quantile_50"].to_numpy()
    mae = 60 * np.abs(targets["interval"].to_numpy() - median).mean()
    [row] = re.findall(r'<th scope="row">model</th>(.*?)</tr>', page, re.DOTALL)[-1:]
    assert f'class="best">{mae:,.4g}<span' in row
    [baseline] = re.findall(r'<th scope="row">poisson</th>(.*?)</tr>', page, re.DOTALL)
    assert f">{2 * mae:,.4g}<span" in baseline
    assert "best" not in baseline
    # 13 of the 39 before the last are compressed, each with half a kept one's attention
    similar, kept = 13 * 0.01, 26 * 0.02
    assert f"gives {similar:.1%} of its attention to the compressed" in page
    assert f"{kept:.1%} to the kept ones" in page
    assert "3 older images are" in page


def test_curves_against_history_by_hand():
    targets = made_up_targets()
    curve = against_history(targets, "time_nll", is_perplexity=False)
    context, wait = targets["context"].to_numpy(), targets["interval"].to_numpy()
    chosen = (context >= 8) & (context < 16)
    error = 1.96 * wait[chosen].std(ddof=0) / np.sqrt(chosen.sum())
    mean = wait[chosen].mean()
    assert (context[chosen].mean(), mean, mean - error, mean + error) == pytest.approx(
        curve[3], rel=2e-2
    )
    assert [1.0, 2.5] == [point[0] for point in curve[:2]]
    assert [] == against_history(targets, "text_nll", is_perplexity=True)
    kinds = against_history(targets, "type_nll", is_perplexity=True)
    chances = np.exp(targets["type_nll"].to_numpy()[chosen].mean())
    assert chances == pytest.approx(kinds[3][1])


def test_long_texts_are_cut_where_the_card_ends():
    assert _cut("a" * MAX_TEXT) == "a" * MAX_TEXT
    assert _cut("a" * (MAX_TEXT + 1)) == "a" * MAX_TEXT + "…"
    assert _cut("漢" * MAX_TEXT) == "漢" * (MAX_TEXT // 2) + "…"


def test_examples_go_from_easy_to_hard():
    """Window w of 21 has targets of w nats; one with too few targets is never chosen."""
    names = [f"s{each:02d}" for each in range(22)]
    rows = [
        {"sequence_id": name, "position": place, "time_nll": float(window), "type_nll": None}
        for window, name in enumerate(names)
        for place in range(1, (MIN_TARGETS if window < 21 else MIN_TARGETS - 1) + 1)
    ]
    schema = pa.schema([("sequence_id", pa.string()), ("position", pa.int32()),
                        ("time_nll", pa.float64()), ("type_nll", pa.float64())])  # fmt: skip
    windows = pa.table({"sequence_id": names, "first_scored": [1] * 22, "end": [50] * 22})
    chosen = choose_windows(windows, pa.Table.from_pylist(rows, schema))
    assert {1: "easy", 5: "rather easy", 10: "typical", 15: "rather hard", 19: "hard"} == chosen
    assert list(RANKS) == list(chosen.values())
    none = pa.Table.from_pylist(rows[-2:], schema)
    assert {} == choose_windows(windows, none)


def test_the_page_warns_of_few_sequences(page: str):
    targets = made_up_targets(5)
    found = estimate(targets, seconds_per_unit=60.0, resamples=20)
    subject = Subject("few", {}, ("a", "b"), 60.0)
    assert "5 held-out sequences are few" in as_report(subject, targets, {"model": found}, [], [])
    assert "sequences are few" not in page  # of 30
