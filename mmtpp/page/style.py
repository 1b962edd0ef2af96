"""Pages that load nothing and run nothing: one style, light and dark, plots as SVG.

Everything a data set brings is escaped; a page's policy forbids scripts and requests.
"""

import io

import matplotlib as mpl
from jinja2 import Environment
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# of at least 3:1 against both backgrounds; not told apart by colour alone
BLUE, ORANGE, GREEN, PURPLE = COLORS = ("#2f7fd1", "#d1662b", "#3a8f4d", "#9a5fb5")
GREY = "#808a96"
_GRID = "#80808040"

POLICY = Markup(
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
CSS = Markup("""
:root { color-scheme: light dark; --back: #fff; --text: #1c2530; --line: #d9dee5; --soft: #eef2f7;
        --hint: #fff6e0; }
@media (prefers-color-scheme: dark) {
  :root { --back: #12161c; --text: #e3e8ee; --line: #343c47; --soft: #1d242d; --hint: #3a3017; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back);
       max-width: 1180px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.3em; overflow-wrap: anywhere; } h2 { font-size: 1.1em; margin-top: 2em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2em .8em; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { font-weight: 600; } td.text { text-align: left; }
a { color: #2f7fd1; } summary { cursor: pointer; font-weight: 600; padding: .3em 0; }
:focus-visible { outline: 3px solid #d1662b; outline-offset: 2px; }
.wide { overflow-x: auto; } .hint { background: var(--hint); padding: .5em 1em; }
.small { font-size: .85em; opacity: .85; }
.plots { display: flex; flex-wrap: wrap; gap: 1.5em; } .plots figure { margin: 0; }
figcaption { font-weight: 600; } svg { max-width: 100%; height: auto; fill: currentColor; }
""")


def environment() -> Environment:
    """Of templates, which escape what they are given."""
    made = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["number"] = lambda value: f"{value:,.4g}"
    made.globals |= {"css": CSS, "policy": POLICY}
    return made


def plot(width: float = 5.6, height: float = 3.0) -> tuple[Figure, Axes]:
    """A figure in inches and its axes."""
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
    """A figure as SVG whose lines and letters take the page's colour.

    Args:
        figure: what is black in it will be the page's text colour.
        description: read to those who do not see it.
    """
    sink = io.StringIO()
    # letters as paths: no fonts are needed to read it
    with mpl.rc_context({"svg.fonttype": "path", "legend.framealpha": 0.0}):
        figure.savefig(sink, format="svg", metadata={"Date": None}, transparent=True)
    text = sink.getvalue()
    svg = text[text.index("<svg") :].replace("#000000", "currentColor")
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
