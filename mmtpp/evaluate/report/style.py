"""Style of pages that load nothing and run nothing: light and dark, figures as SVG.

All text from data sets is escaped. The policy of a page forbids scripts and requests.
"""

import io
from itertools import accumulate
from unicodedata import east_asian_width

import matplotlib as mpl
from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# contrast of at least 3:1 against both backgrounds; no figure distinguishes by colour alone
BLUE, ORANGE, GREEN, PURPLE = COLORS = ("#2f7fd1", "#d1662b", "#3a8f4d", "#9a5fb5")
GREY = "#808a96"
_GRID = "#80808040"

POLICY = Markup(
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
CSS = Markup("""
:root { color-scheme: light dark; --back: #fff; --text: #1c2530; --line: #d9dee5; --soft: #eef2f7;
        --hint: #fff6e0; --quiet: #4c5866; --link: #1f63ab; }
@media (prefers-color-scheme: dark) {
  :root { --back: #12161c; --text: #e3e8ee; --line: #343c47; --soft: #1d242d; --hint: #3a3017;
          --quiet: #aab4c0; --link: #7db4ee; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
       max-width: 1180px; margin: 1.5em auto; padding: 0 1em; overflow-wrap: break-word;
       text-size-adjust: 100%; -webkit-text-size-adjust: 100%; }
h1 { font-size: 1.5em; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.2em; margin-top: 2em; }
p, dl, .hint { max-width: 50em; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5em; }
th, td { padding: .3em .8em; text-align: right; vertical-align: top;
         border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; } td.text, th.text { text-align: left; }
.facts td { text-align: left; overflow-wrap: anywhere; }
a { color: var(--link); } summary { cursor: pointer; font-weight: 600; padding: .4em 0;
  overflow-wrap: anywhere; }
:focus-visible { outline: 3px solid #d1662b; outline-offset: 2px; }
.wide { overflow-x: auto; max-width: 100%; }
.wide .name { overflow-wrap: anywhere; min-width: 9em; max-width: 22em; }
.pinned th[scope=row], .pinned thead > tr > :first-child { position: sticky; left: 0; z-index: 1;
  background: var(--back); padding-right: 1em; }
.pinned td { white-space: nowrap; }
.hint { background: var(--hint); padding: .5em 1em; border-radius: 6px; }
.long { max-height: 12em; overflow-y: auto; }
.small { font-size: .875em; color: var(--quiet); }
.figures { display: flex; flex-wrap: wrap; gap: 2em 1.5em; }
.figures figure { margin: 0; max-width: 100%; min-width: 0; }
.figures figure .small { max-width: 30em; }
figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; fill: currentColor; }
.broad svg { max-width: none; }
@media (max-width: 640px) { th, td { padding: .3em .5em; } h1 { font-size: 1.3em; } }
""")


def shorten(text: str, limit: int) -> str:
    """Truncate a text to a width; an ellipsis marks the missing part.

    Args:
        text: The text.
        limit: Maximum width in letters; East Asian letters count twice.
    """
    widths = accumulate(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
    fits = sum(width <= limit for width in widths)
    return text if fits == len(text) else f"{text[:fits]}…"


def environment() -> Environment:
    """Environment of templates; the templates escape all values."""
    templates = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters["number"] = lambda value: f"{value:,.4g}"
    templates.globals |= {"css": CSS, "policy": POLICY}
    return templates


def build_figure(width: float = 5.6, height: float = 3.0) -> tuple[Figure, Axes]:
    """Create a figure of this width and height, in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    return figure, axes


def log_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")


def as_svg(figure: Figure, description: str) -> Markup:
    """Write a figure as SVG whose lines and letters take the page's colour.

    Args:
        figure: The figure; black parts get the page's text colour.
        description: Description for readers who do not see the figure.
    """
    sink = io.StringIO()
    # letters become paths, so the page needs no fonts
    with mpl.rc_context({"svg.fonttype": "path", "legend.framealpha": 0.0}):
        figure.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    text = sink.getvalue()
    svg = text[text.index("<svg") :].replace("#000000", "currentColor")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
