"""The layers that charts of panels are made of: theory dashed, measurements coloured, paths with their start.

A layer is a function of the two axes; :func:`chart` puts layers over each other. The data sets are those of the tables
that a panel returns, by name, so that the page can exchange them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import altair as alt

from firststep.book.figures import COLORS, VEGA_INK

DASHED = [6, 4]
WIDTH, HEIGHT = 520, 250  # in JupyterLab; on a page the plot is as wide as its column


@dataclass(frozen=True)
class Axis:
    """A column of the tables on an axis of the chart.

    Attributes:
        field: name of the column.
        encoding: its title, scale and ticks, without the channel.
    """

    field: str
    encoding: dict


Layer = Callable[[Axis, Axis], alt.Chart]


def axis(
    field: str,
    title: str,
    *,
    scale: str = "linear",
    domain: Sequence[float] | None = None,
    ticks: Sequence[float] | None = None,
    form: str | None = None,
    whole: bool = False,
) -> Axis:
    """An axis.

    Args:
        field: the column that it shows.
        title: what the reader reads.
        scale: ``linear``, ``log``, ``sqrt`` or ``symlog``.
        domain: its two ends; by default those of the data.
        ticks: where its labels stand.
        form: of the labels, in d3's format; by default ``.0e`` on logarithmic axes.
        whole: no labels between integers.
    """
    look = {"format": form or (".0e" if scale == "log" else None), "values": ticks, "tickMinStep": 1 if whole else None}
    span = {"type": scale, "domain": domain and list(domain), "nice": False if domain else None}
    drop = lambda given: {name: value for name, value in given.items() if value is not None}  # noqa: E731
    return Axis(field, {"title": title, "scale": alt.Scale(**drop(span)), "axis": alt.Axis(**drop(look))})


def chart(x: Axis, y: Axis, *layers: Layer, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """Layers over each other, in the book's look."""
    return themed(plot(x, y, *layers, width=width, height=height))


def plot(x: Axis, y: Axis, *layers: Layer, width: int = WIDTH, height: int = HEIGHT) -> alt.LayerChart:
    """As :func:`chart`, as a part of a larger one that is still to be :func:`themed`."""
    return alt.layer(*(layer(x, y) for layer in layers)).properties(width=width, height=height)


def encoded(mark: alt.Chart, x: Axis, y: Axis, **more) -> alt.Chart:
    """A mark on the two axes; ``more`` are its other channels, for layers of a panel's own."""
    channels = {"x": alt.X(f"{x.field}:Q", **x.encoding), "y": alt.Y(f"{y.field}:Q", **y.encoding)}
    return mark.encode(**channels, **more)


def line(table: str, color: str, *, dots: bool = False, steps: bool = False, opacity: float = 1.0) -> Layer:
    """Measurements, joined."""
    look = {"color": COLORS[color], "point": {"color": COLORS[color]} if dots else False, "opacity": opacity}
    if steps:
        look["interpolate"] = "step-after"
    return lambda x, y: encoded(alt.Chart(alt.NamedData(table)).mark_line(clip=True, **look), x, y)


def theory(table: str) -> Layer:
    """What is predicted: dashed, in the colour of the text."""
    mark = alt.Chart(alt.NamedData(table)).mark_line(strokeDash=DASHED, color=VEGA_INK, clip=True)
    return lambda x, y: encoded(mark, x, y)


def points(table: str, color: str, *, size: int = 40, opacity: float = 1.0) -> Layer:
    """Measurements, one by one."""
    look = {"filled": True, "size": size, "opacity": opacity, "color": COLORS[color], "clip": True}
    return lambda x, y: encoded(alt.Chart(alt.NamedData(table)).mark_point(**look), x, y)


def level(table: str, *, color: str | None = None, dash: Sequence[int] = DASHED) -> Layer:
    """A horizontal line: a threshold or a bound; dashed in the colour of the text, or whole in another."""
    look = {"color": COLORS[color], "strokeWidth": 2} if color else {"color": VEGA_INK, "strokeDash": list(dash)}
    mark = alt.Chart(alt.NamedData(table)).mark_rule(**look)
    return lambda x, y: mark.encode(y=alt.Y(f"{y.field}:Q", **y.encoding))


def band(table: str, color: str, low: str, high: str) -> Layer:
    """Between two heights."""
    mark = alt.Chart(alt.NamedData(table)).mark_rect(color=COLORS[color], opacity=0.15)
    return lambda x, y: mark.encode(y=alt.Y(f"{low}:Q", **y.encoding), y2=f"{high}:Q")


def path(table: str, *, order: str = "step") -> Layer:
    """The way of a run through the plane, with its start."""

    def layer(x: Axis, y: Axis) -> alt.LayerChart:
        run = encoded(alt.Chart(alt.NamedData(table)), x, y, order=f"{order}:Q")
        dots = {"filled": True, "size": 22, "color": COLORS["vermilion"]}
        way = run.mark_line(clip=True, color=COLORS["vermilion"], point=dots)
        first = run.transform_filter(f"datum.{order} == 0")
        return way + first.mark_point(clip=True, filled=True, size=120, color=COLORS["blue"])

    return layer


def cross(**at: float) -> Layer:
    """A marked place, by the fields of the two axes: a saddle."""
    mark = alt.Chart(alt.Data(values=[at])).mark_point(shape="cross", size=110, color=VEGA_INK)
    return lambda x, y: encoded(mark, x, y)


def segment(*ends: dict[str, float]) -> Layer:
    """A fixed dashed line."""
    mark = alt.Chart(alt.Data(values=list(ends))).mark_line(strokeDash=DASHED, color=VEGA_INK)
    return lambda x, y: encoded(mark, x, y)


def themed(chart: alt.TopLevelMixin) -> alt.TopLevelMixin:
    """The book's look for a Vega-Lite chart: no background, ink in the page's text colour."""
    size = {"labelFontSize": 12, "titleFontSize": 13, "titleFontWeight": "normal"}
    text = {"labelColor": VEGA_INK, "titleColor": VEGA_INK, **size}
    axis = {"gridColor": VEGA_INK, "gridOpacity": 0.1, "domainColor": VEGA_INK, "tickColor": VEGA_INK, **text}
    plain = chart.configure(background="transparent").configure_view(strokeOpacity=0)
    return plain.configure_axis(**axis).configure_legend(**text)
