"""The report in a real browser."""

from pathlib import Path

import pytest

from tests.report import HOSTILE, NUM_EVENTS, made_up_report

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_seen_and_used_with_the_keyboard(browser, tmp_path: Path, scheme: str):
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
    assert [each for each in requests if not each.startswith("data:")] == [path.as_uri()]
    assert HOSTILE in page.title()
    for box in page.eval_on_selector_all(".plots svg", _BOXES):
        assert box["width"] > 100
        assert box["height"] > 100
    back, text = page.evaluate(_COLOURS)
    assert _contrast(back, text) >= 7
    assert (sum(back) < 150) == (scheme == "dark")
    letters = page.eval_on_selector_all(".plots svg g[id^=text] use", _FILLS)
    assert len(letters) > 50
    assert {tuple(each) for each in letters} == {tuple(text)}
    # what an event is shows when it is pointed at, with its image, and when it has the focus
    events = page.locator("details[open] > .timeline .event")
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
    assert page.locator("details[open] > .timeline").count() == 2
    page.screenshot(path=tmp_path / f"report-{scheme}.png", full_page=True)
    page.close()


_BOXES = "all => all.map(each => each.getBoundingClientRect().toJSON())"
_FILLS = "all => all.map(each => getComputedStyle(each).fill.match(/\\d+/g).map(Number))"
_COLOURS = """() => {
  const style = getComputedStyle(document.body);
  return [style.backgroundColor, style.color].map(each => each.match(/\\d+/g).map(Number));
}"""


def _contrast(one: list[int], other: list[int]) -> float:
    """WCAG 2.1, relative luminance."""

    def luminance(colour: list[int]) -> float:
        parts = [each / 255 for each in colour[:3]]
        linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4
                  for each in parts]  # fmt: skip
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)
