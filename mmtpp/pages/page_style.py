"""Style of pages that load nothing and run nothing: light and dark, figures as SVG.

All text from data sets is escaped. The policy of a page forbids scripts and requests.
"""

import io
from importlib.resources import files
from itertools import accumulate
from unicodedata import east_asian_width

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# contrast of at least 3:1 against both backgrounds; no figure distinguishes by colour alone
BLUE, ORANGE, GREEN, PURPLE = COLORS = ("#2f7fd1", "#d1662b", "#3a8f4d", "#9a5fb5")
GREY = "#808a96"
_GRID = "#80808040"

_POLICY = Markup(
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">"
)
_CSS = Markup(files("mmtpp.pages").joinpath("templates/page.css").read_text(encoding="utf-8"))


def shorten(text: str, limit: int) -> str:
    """Truncate a text to a width; an ellipsis marks the missing part.

    Args:
        text: The text.
        limit: Maximum width in letters; East Asian letters count twice.
    """
    widths = accumulate(2 if east_asian_width(letter) in "WF" else 1 for letter in text)
    fits = sum(width <= limit for width in widths)
    return text if fits == len(text) else f"{text[:fits]}…"


def load_template(package: str, name: str) -> Template:
    """Load a template of a page or figure, which escapes all values.

    Args:
        package: Package whose folder ``templates`` holds the file.
        name: Name of the file.
    """
    environment = Environment(
        loader=PackageLoader(package), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = lambda value: f"{value:,.4g}"
    environment.globals |= {"css": _CSS, "policy": _POLICY}
    return environment.get_template(name)


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
