"""Explorables: one object, two lives.

In JupyterLab an :class:`Explorable` is a panel of ipywidgets that calls ``simulate`` live, at any value. On a page
of the built book there is no kernel: there it replays a grid that was computed at build time, in the browser,
with no network. Both lives draw the same Vega-Lite chart and state the same prediction, measurement and verdict.
"""

import html
import inspect
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, wraps

import altair as alt
import ipywidgets as widgets
import vl_convert
from IPython.display import display

from firststep import checks, scale

Value = float | int | str
LIVE_STYLE = """<style>
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 0.2em 1em; }
dl.facts dt { font-weight: 600; } dl.facts dd { margin: 0; }
dl.facts.survived dd:last-of-type { color: #0a7d4f; } dl.facts.broken dd:last-of-type { color: #c4372c; }
</style>"""  # JupyterLab has no style sheet of the book
SIGNIFICANT = 4  # digits kept of the numbers a page replays


@dataclass(frozen=True)
class Control:
    """One thing a reader can move.

    Attributes:
        label: what the reader sees.
        values: the grid replayed on the page, in order: all numbers, or all words.
        default: the value at the start, one of ``values``.
        log: whether the live slider is logarithmic.
        low: smallest value that the panel can be called with, on the grid or not; ``None`` for no limit.
        high: largest such value.
        name: the argument of the panel's function; :func:`explorable` fills it in.
    """

    label: str
    values: tuple[Value, ...]
    default: Value
    log: bool = False
    low: float | None = None
    high: float | None = None
    name: str = ""

    def __post_init__(self):
        checks.require(len(self.values) > 1, "values", self.values, "at least two values, else nothing moves")
        checks.require(len(set(self.values)) == len(self.values), "values", self.values, "distinct")
        checks.require(self.default in self.values, "default", self.default, f"one of {self.values}")
        words = sum(isinstance(value, str) for value in self.values)
        checks.require(words in (0, len(self.values)), "values", self.values, "all numbers, or all words")
        positive = words == 0 and min(self.values) > 0
        checks.require(positive or not self.log, "values", self.values, "positive numbers where log=True")

    def check(self, value: Value) -> None:
        """Refuse what the panel cannot be called with.

        Raises:
            ValueError: no word of the grid where it has words; else no finite number, none within the limits, or none
                that is whole where the grid is.
        """
        if isinstance(self.values[0], str):
            checks.one_of(self.name, value, self.values)
            return
        checks.number(self.name, value)
        whole = all(isinstance(v, int) for v in self.values)
        checks.require(not whole or checks.is_integer(value), self.name, value, "an integer")
        inside = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)
        limits = [f"at least {self.low}"] * (self.low is not None) + [f"at most {self.high}"] * (self.high is not None)
        checks.require(inside, self.name, value, " and ".join(limits))

    @property
    def kind(self) -> str:
        """``choice`` for words and where there are two values, which no reader wants to slide between."""
        return "choice" if isinstance(self.values[0], str) or len(self.values) == 2 else "slider"

    def widget(self) -> widgets.Widget:
        """The live control: any value between the ends of the grid, not only those on it."""
        common = {"description": self.label, "value": self.default, "style": {"description_width": "12em"}}
        wide = widgets.Layout(width="32em")
        if self.kind == "choice":
            return widgets.ToggleButtons(options=list(self.values), **common)
        low, high = min(self.values), max(self.values)
        if all(isinstance(v, int) for v in self.values):
            return widgets.IntSlider(min=low, max=high, continuous_update=False, layout=wide, **common)
        if self.log:
            ends = {"min": math.log10(low), "max": math.log10(high)}
            return widgets.FloatLogSlider(**ends, step=0.01, continuous_update=False, layout=wide, **common)
        return widgets.FloatSlider(
            min=low, max=high, step=(high - low) / 400, readout_format=".4g", continuous_update=False,
            layout=wide, **common,
        )  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What one call of ``simulate`` returns.

    Attributes:
        tables: the chart's named data sets, each a mapping of column to equally long lists.
        prediction: what the claim says must happen, with its numbers.
        measurement: what happened.
        verdict: whether the claim survived, in a sentence.
        survived: the same as a bool; ``None`` where the claim says nothing.
    """

    tables: dict[str, dict[str, list]]
    prediction: str
    measurement: str
    verdict: str
    survived: bool | None


@dataclass(frozen=True)
class Explorable:
    """Controls, a simulation, and a chart; made by :func:`explorable`.

    Attributes:
        name: unique on the page; also the id of its element.
        claim: id of the claim that the reader tries to break.
        task: one sentence that tells the reader what to try.
        controls: what can be moved.
        simulate: pure function of the controls' values.
        chart: the chart over ``alt.NamedData`` sources named like the tables of the outcome.
        presets: settings worth a button, by its words; what a setting does not name stands at its default.
    """

    name: str
    claim: str
    task: str
    controls: tuple[Control, ...]
    simulate: Callable[..., Outcome]
    chart: alt.TopLevelMixin
    presets: dict[str, dict[str, Value]] = field(default_factory=dict)

    def __post_init__(self):
        grids = {control.name: control.values for control in self.controls}
        for words, setting in self.presets.items():
            known = all(name in grids and value in grids[name] for name, value in setting.items())
            checks.require(known, f"preset {words!r}", setting, f"values on the grid of the controls, {grids}")

    def show(self) -> None:
        """Display the panel: live where a kernel will stay, a replay where a page is being built."""
        if scale.building():
            display({"text/html": self.replay(), "text/plain": f"[explorable: {self.task}]"}, raw=True)
        else:
            display(self.live())

    @property
    def defaults(self) -> dict[str, Value]:
        return {control.name: control.default for control in self.controls}

    @cached_property
    def grid(self) -> list[dict]:
        """Outcomes at every point of the grid, the last control moving fastest, numbers rounded for transport."""
        names = [control.name for control in self.controls]
        points = itertools.product(*(control.values for control in self.controls))
        return [_rounded(vars(self.simulate(**dict(zip(names, point, strict=True))))) for point in points]

    def spec(self, outcome: Outcome) -> dict:
        """The chart as Vega-Lite with the data of one outcome."""
        with alt.data_transformers.disable_max_rows():
            spec = self.chart.to_dict()
        spec["datasets"] = {name: rows(_rounded(table)) for name, table in outcome.tables.items()}
        return spec

    def svg(self, outcome: Outcome) -> str:
        """The chart as a picture, drawn without a browser; its ink is the page's text colour."""
        return vl_convert.vegalite_to_svg(self.spec(outcome)).replace("#010203", "currentColor")

    def replay(self) -> str:
        """HTML for a page without a kernel; ``assets/explore.js`` brings it to life."""
        start = self.simulate(**self.defaults)
        pool, points = _shared(self.grid)
        payload = {
            "spec": self.spec(start),
            "controls": [
                {"name": c.name, "label": c.label, "kind": c.kind, "values": c.values, "start": self._place(c, {})}
                for c in self.controls
            ],
            "presets": {
                words: [self._place(c, setting) for c in self.controls] for words, setting in self.presets.items()
            },
            "tables": pool,
            "grid": points,
        }
        data = json.dumps(payload, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
        return (
            f'<section class="explorable" id="explore-{self.name}" aria-label="Explorable: {html.escape(self.task)}">'
            f'<header><strong>Try to break it</strong> <a href="#{self.claim}"><code>{self.claim}</code></a></header>'
            f'<p>{html.escape(self.task)}</p><div class="controls"></div>'
            f'<div class="chart" role="img" aria-live="off" aria-label="Chart. {html.escape(start.measurement)}">'
            f"{self.svg(start)}</div>{facts(start)}"
            f'<script type="application/json">{data}</script></section>'
        )

    @staticmethod
    def _place(control: Control, setting: dict[str, Value]) -> int:
        return control.values.index(setting.get(control.name, control.default))

    def live(self) -> widgets.Widget:
        """The panel of ipywidgets: every move calls ``simulate``."""
        moved = {control.name: control.widget() for control in self.controls}
        chart, text = widgets.HTML(), widgets.HTML()

        def draw(_change: object = None) -> None:
            try:
                outcome = self.simulate(**{name: widget.value for name, widget in moved.items()})
            except ValueError as error:
                text.value = f"<p><strong>Not possible:</strong> {html.escape(str(error))}</p>"
                return
            chart.value, text.value = self.svg(outcome), facts(outcome)

        for widget in moved.values():
            widget.observe(draw, names="value")
        draw()
        shortcuts = [self._shortcut(words, setting, moved) for words, setting in (*self.presets.items(), ("Reset", {}))]
        task = widgets.HTML(f"{LIVE_STYLE}<p>{html.escape(self.task)}</p>")
        head = widgets.VBox([task, widgets.HBox(shortcuts)])
        return widgets.VBox([head, *moved.values(), chart, text])

    def _shortcut(self, words: str, setting: dict[str, Value], moved: dict[str, widgets.Widget]) -> widgets.Button:
        button = widgets.Button(description=words, layout=widgets.Layout(width="auto"))

        def put(_button: object) -> None:
            for name, value in (self.defaults | setting).items():
                moved[name].value = value

        button.on_click(put)
        return button


def explorable(
    *,
    claim: str,
    task: str,
    chart: alt.TopLevelMixin,
    presets: dict[str, dict[str, Value]] | None = None,
    **controls: Control,
) -> Callable[[Callable[..., Outcome]], Explorable]:
    """Make a panel of a function of its controls; the panel has the function's name.

    Args:
        claim: as :class:`Explorable`, and so are ``task``, ``chart`` and ``presets``.
        task: see there.
        chart: see there.
        presets: see there.
        **controls: one for each argument of the function, in the order in which they are shown.

    Example:
        >>> @explorable(claim="toy.line", task="Bend it.", chart=..., slope=Control("slope", (0, 1, 2), 1, low=0))
        ... def line(slope) -> Outcome: ...
    """
    named = tuple(replace(control, name=name) for name, control in controls.items())

    def decorate(function: Callable[..., Outcome]) -> Explorable:
        signature = inspect.signature(function)

        @wraps(function)
        def simulate(*given: Value, **values: Value) -> Outcome:
            arguments = signature.bind(*given, **values).arguments
            for control in named:
                control.check(arguments[control.name])
            return function(**arguments)

        name = function.__name__.replace("_", "-")
        return Explorable(name, claim, task, named, simulate, chart, presets or {})

    return decorate


def facts(outcome: Outcome) -> str:
    """Prediction, measurement and verdict of one outcome, as HTML."""
    state = {True: "survived", False: "broken", None: "silent"}[outcome.survived]
    return (
        f'<dl class="facts {state}" aria-live="polite"><dt>Predicted</dt><dd>{html.escape(outcome.prediction)}</dd>'
        f"<dt>Measured</dt><dd>{html.escape(outcome.measurement)}</dd>"
        f"<dt>Verdict</dt><dd>{html.escape(outcome.verdict)}</dd></dl>"
    )


def rows(table: dict[str, list]) -> list[dict]:
    """Columns to records, as Vega wants them."""
    return [dict(zip(table, values, strict=True)) for values in zip(*table.values(), strict=True)]


def _shared(grid: list[dict]) -> tuple[list[dict], list[dict]]:
    """Store each distinct table once; the points of the grid refer to tables by position."""
    position: dict[str, int] = {}
    points = []
    for outcome in grid:
        texts = {name: json.dumps(table) for name, table in outcome["tables"].items()}
        refer = {name: position.setdefault(text, len(position)) for name, text in texts.items()}
        points.append({**outcome, "tables": refer})
    return [json.loads(text) for text in position], points


def _rounded(value: object) -> object:
    """Keep the digits that a screen can show; JSON has no infinities."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        short = float(f"{value:.{SIGNIFICANT}g}")  # the largest floats round up to infinity
        return short if math.isfinite(short) else None
    return value
