"""The HTML pages in a real browser."""

from pathlib import Path

import pytest

from mmtpp.cli.main import main
from tests.helpers.report import HOSTILE, LONG, NUM_EVENTS, made_up_report, realistic_report

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_readable_and_usable_with_the_keyboard(browser, tmp_path: Path, scheme: str):
    path = tmp_path / "report.html"
    path.write_text(made_up_report())
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1200, "height": 900})
    requests: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.goto(path.as_uri())
    assert problems == []
    assert [request for request in requests if not request.startswith("data:")] == [path.as_uri()]
    assert HOSTILE in page.title()
    for box in page.eval_on_selector_all(".figures svg", _BOXES):
        assert box["width"] > 100
        assert box["height"] > 100
    back, text = page.evaluate(_COLOURS)
    assert _contrast(back, text) >= 7
    assert (sum(back) < 150) == (scheme == "dark")
    letters = page.eval_on_selector_all(".figures svg g[id^=text] use", _FILLS)
    assert len(letters) > 50
    assert {tuple(color) for color in letters} == {tuple(text)}
    # the card of an event, with its image, shows on hover and on focus
    events = page.locator("details[open] > .wide > .timeline .event")
    assert events.count() == NUM_EVENTS
    third, fourth = events.nth(2), events.nth(3)
    assert not third.locator(".card").is_visible()
    third.locator(".hit").hover()
    assert third.locator(".card").is_visible()
    assert HOSTILE in third.locator(".card").text_content()
    assert third.locator("use").bounding_box()["width"] == pytest.approx(84, rel=0.2)
    page.mouse.move(0, 0)
    third.focus()
    page.keyboard.press("Tab")
    assert fourth.locator(".card").is_visible()
    assert not third.locator(".card").is_visible()
    page.locator("summary", has_text="hard").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open] > .wide > .timeline").count() == 2
    page.screenshot(path=tmp_path / f"report-{scheme}.png", full_page=True)
    page.close()


@pytest.fixture(scope="module")
def realistic() -> str:
    return realistic_report()


@pytest.mark.parametrize("width", [1200, 800, 380])
def test_the_report_fits_the_screen(browser, tmp_path: Path, width: int, realistic: str):
    """300 types with long names, errors of days, dates, five baselines; all parts are open."""
    path = tmp_path / "report.html"
    path.write_text(realistic)
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    _assert_fits(page, width)
    # wider parts scroll inside a box that the keyboard can reach
    for box in page.locator(".wide").all():
        assert box.get_attribute("tabindex") == "0"
        assert box.get_attribute("aria-label")
    metrics = page.locator(".metrics")
    assert metrics.evaluate(_LAST_CELL_ENDS) <= width or width == 800
    assert metrics.get_by_role("cell", name="days").count() > 10
    assert metrics.get_by_role("rowheader").first.is_visible()
    sizes = page.eval_on_selector_all("main *", _LETTER_SIZES)
    assert min(sizes) >= 12
    if width == 380:
        for svg in page.locator(".figures > figure > svg").all():
            assert svg.bounding_box()["width"] > 300
    page.screenshot(path=tmp_path / f"report-{width}.png", full_page=True)
    page.close()


@pytest.mark.parametrize("width", [1200, 800, 380])
def test_the_inspection_fits_the_screen(browser, tmp_path: Path, width: int):
    raw, path = tmp_path / ("a-long-name-" * 9), tmp_path / "inspect.html"
    raw.mkdir()
    rows = [f"pump,2024-01-{day:02d},type {day} {LONG},text" for day in range(1, 31)]
    (raw / "events.csv").write_text("\n".join(["id,when,what,text", *rows, "pump,someday,,"]))
    columns = ("time=when", "sequence=id", "type=what", "text=text")
    settings = [f"--set=source.columns.{column}" for column in columns]
    arguments = ["--kind", "columns", "--set=source.types=auto", "--html", str(path)]
    assert main(["inspect", str(raw), *arguments, *settings]) == 0
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(path.as_uri())
    _assert_fits(page, width)
    assert page.get_by_role("row", name="interval").get_by_text("1 day").count() > 0
    page.screenshot(path=tmp_path / f"inspect-{width}.png", full_page=True)
    page.close()


def _assert_fits(page, width: int) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(_CUT_OFF, width) == []


# elements beyond the right edge that are not inside a scrolling box
_CUT_OFF = """width => [...document.querySelectorAll('body *')].filter(element =>
  element.getBoundingClientRect().right > width + 1 && element.getBoundingClientRect().width > 0
  && !element.parentElement.closest('.wide') && getComputedStyle(element).clipPath == 'none'
  ).map(element => element.outerHTML.slice(0, 80))"""
_LAST_CELL_ENDS = (
    "all => Math.max(...[...all.querySelectorAll('td')].map("
    "cell => cell.getBoundingClientRect().right))"
)
_LETTER_SIZES = """all => all.filter(element => [...element.childNodes].some(
  node => node.nodeType == 3 && node.textContent.trim())
  && element.getBoundingClientRect().width > 0
  && !element.closest('defs')).map(element => parseFloat(getComputedStyle(element).fontSize)
  * (element.ownerSVGElement ? element.getScreenCTM().a : 1))"""
_BOXES = "all => all.map(element => element.getBoundingClientRect().toJSON())"
_FILLS = "all => all.map(element => getComputedStyle(element).fill.match(/\\d+/g).map(Number))"
_COLOURS = """() => {
  const style = getComputedStyle(document.body);
  return [style.backgroundColor, style.color].map(color => color.match(/\\d+/g).map(Number));
}"""


def _contrast(one: list[int], other: list[int]) -> float:
    """Contrast ratio of two colours (WCAG 2.1)."""

    def luminance(colour: list[int]) -> float:
        parts = [value / 255 for value in colour[:3]]
        linear = [
            value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
            for value in parts
        ]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
