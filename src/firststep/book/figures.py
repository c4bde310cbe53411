"""The book's look: one style for all figures, theory dashed, measurements coloured with a band over seeds.

Figures are shown as inline SVG whose ink is the page's own text colour, so that one picture serves the light and
the dark page, and whose alternative text and caption survive the build.
"""

import html
import io
import re
from itertools import count

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from numpy.typing import ArrayLike

from firststep import checks, scale

# After Okabe & Ito, distinct for colour-blind readers; contrast of at least 3 on the white and on the dark page.
COLORS = {
    "blue": "#1f72c4", "vermilion": "#d1491f", "green": "#0b8a60",
    "purple": "#a353b5", "orange": "#b37400", "sky": "#2c92b8",
}  # fmt: skip
PHONE = 3.7  # inches: the column of a phone, so that letters keep their size there
_INK = VEGA_INK = "#010203"  # stands for the page's text colour until the SVG is written
STYLE = {
    "figure.dpi": 100,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titlecolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=list(COLORS.values())),
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 10.5,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "path",
    "svg.hashsalt": "firststep",
}
_number = count()


def new(rows: int = 1, columns: int = 1, *, width: float = 7.2, height: float = 3.2, **kwargs) -> tuple:
    """A figure and its axes in the book's style; sizes in inches, further arguments as ``plt.subplots``.

    The style stays on for the session, since matplotlib reads parts of it only when legends and texts are added.
    """
    plt.rcParams.update(STYLE)
    fig, axes = plt.subplots(rows, columns, figsize=(width, height), **kwargs)
    plt.close(fig)  # only show() displays it, so drawing may span several cells
    return fig, axes


def predicted(ax: Axes, x: ArrayLike, y: ArrayLike, label: str | None = "predicted", **kwargs) -> None:
    """Draw theory: dashed, in the colour of the text."""
    ax.plot(x, y, **{"color": _INK, "ls": "--", "lw": 1.3, "zorder": 3, "label": label} | kwargs)


def band(ax: Axes, x: ArrayLike, y: ArrayLike, label: str, color: str, *, level: float = 1.0, **kwargs) -> None:
    """Draw measurements: the median over seeds, and a band that holds the central part of them.

    Args:
        ax: where to draw.
        x: ``(T,)``.
        y: ``(T, seeds)``.
        label: for the legend.
        color: a key of ``COLORS``.
        level: share of the seeds inside the band; 1 means from smallest to largest.

    Raises:
        ValueError: unknown colour, ``y`` is not ``(T, seeds)``, or ``level`` lies outside ``[0, 1]``.
    """
    checks.one_of("color", color, COLORS)
    checks.require(checks.number("level", level) == min(max(level, 0), 1), "level", level, "a number in [0, 1]")
    x, y = np.asarray(x), np.asarray(y)
    good = y.ndim == 2 and y.shape[0] == x.size
    checks.require(good, "y", y.shape, f"of shape (T, seeds) with T={x.size}")
    with np.errstate(invalid="ignore"):  # between two runs that never end, infinity minus infinity
        low, middle, high = np.nanquantile(y, [(1 - level) / 2, 0.5, (1 + level) / 2], axis=1)
    ax.fill_between(x, low, high, color=COLORS[color], alpha=0.22, lw=0, step=kwargs.get("drawstyle") and "post")
    ax.plot(x, middle, color=COLORS[color], label=label, **kwargs)


def conditions(*, seeds: str, dtype: str, tolerance: str | None = None) -> str:
    """What every caption ends with."""
    parts = [f"Seeds {seeds}", f"{scale.name()} scale", dtype, tolerance and f"tolerance {tolerance}"]
    return "; ".join(part for part in parts if part) + "."


def show(fig: Figure, *, alt: str, caption: str, seeds: str, dtype: str, tolerance: str | None = None) -> None:
    """Display a figure with alternative text and a caption.

    Args:
        fig: made by :func:`new`.
        alt: what the figure shows, for a reader who cannot see it.
        caption: what to see in it; ``$…$`` is typeset.
        seeds: which seeds were run, such as ``0–9``.
        dtype: floating-point type.
        tolerance: of ranks, where ranks are shown.

    Raises:
        ValueError: ``alt`` or ``caption`` is empty.
    """
    from firststep.book.claims import typeset

    for name, text, allowed in (("alt", alt, "a description of the figure"), ("caption", caption, "a sentence or two")):
        checks.require(isinstance(text, str) and bool(text.strip()), name, text, allowed)
    text = f"{caption} {conditions(seeds=seeds, dtype=dtype, tolerance=tolerance)}"
    pictures = f'<div class="wide">{svg(fig)}</div>'
    if scale.building():  # what a phone shows; it changes the figure, so it comes second
        pictures += f'<div class="narrow">{_narrow(fig)}</div>'
    markup = (
        f'<figure class="firststep"><div role="img" aria-label="{html.escape(alt)}">{pictures}</div>'
        f"<figcaption>{typeset(text)}</figcaption></figure>"
    )
    display({"text/html": markup, "text/plain": f"[figure: {alt}]"}, raw=True)


def _narrow(fig: Figure) -> str:
    """The figure for a phone: its panels below each other, letters as large as on the wide one."""
    panels = [ax for ax in fig.axes if ax.get_subplotspec() is not None]
    grid = GridSpec(len(panels), 1, figure=fig) if panels else []
    labels = [ax.get_ylabel() for ax in panels]
    for ax, place, label in zip(panels, grid, labels, strict=True):
        ax.set_subplotspec(place)
        ax.tick_params(labelleft=ax.yaxis.get_tick_params().get("left", True), labelbottom=True)
        if not label and ax.get_shared_y_axes().joined(ax, panels[0]):
            ax.set_ylabel(labels[0])
    for legend in tuple(fig.legends):  # a legend cannot change its columns
        names = [text.get_text() for text in legend.get_texts()]
        fig.legend(legend.legend_handles, names, loc="outside lower center", ncols=1)
        legend.remove()
    fig.set_size_inches(
        PHONE, 2.8 * max(len(panels), 1) + 0.22 * sum(len(legend.get_texts()) for legend in fig.legends)
    )
    return svg(fig, bbox_inches="tight", pad_inches=0.02)


def svg(fig: Figure, **options) -> str:
    """The figure as an SVG element of its own size that shrinks with the page and takes over its text colour.

    Args:
        fig: any figure.
        **options: as ``Figure.savefig``.
    """
    file = io.StringIO()
    fig.savefig(file, format="svg", metadata={"Date": None}, **options)
    markup = file.getvalue()
    markup = markup[markup.index("<svg") :].replace(_INK, "currentColor")
    prefix = f"f{next(_number)}-"  # ids must be unique on a page with several figures
    markup = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}", markup)
    size = r'width="([\d.]+)pt" height="[\d.]+pt"'
    return re.sub(size, r'style="width: \1pt" aria-hidden="true"', markup, count=1)
