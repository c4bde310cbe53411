"""One object, two lives: what the replay shows is what the live panel would compute."""

import json
import math
import re
import sys
from html.parser import HTMLParser

import altair as alt
import ipywidgets as widgets
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import explore
from firststep.book.explore import Control, Explorable, Outcome

pytestmark = pytest.mark.usefixtures("clean_environment")

SLOPES, WORDS, POWERS = (-2, 0, 3), ("plain", "<b>&'\""), (0.1, 1.0, 10.0)


def simulate(slope, word, power):
    if slope == 1:
        raise ValueError(f"slope must not be one <here>, got slope={slope}")
    y = [slope * power * k / 3 for k in range(4)]
    return Outcome(
        tables={"line": {"x": list(range(4)), "y": y}, "same": {"x": [0, 1]}},
        prediction=f"</script><!--<script> {word}",
        measurement=f"{word}: {y[-1]}",
        verdict=word,
        survived={-2: True, 0: None, 3: False}.get(int(slope)),
    )


def panel(**changes):
    parts = {
        "name": "toy", "claim": "toy.algebra", "task": "Move <everything> & see.",
        "controls": (
            Control("slope", SLOPES, 3, name="slope"),
            Control("word", WORDS, "plain", name="word"),
            Control("power", POWERS, 1.0, log=True, name="power"),
        ),
        "simulate": simulate,
        "chart": alt.Chart(alt.NamedData("line")).mark_line().encode(x="x:Q", y="y:Q"),
    }  # fmt: skip
    return Explorable(**parts | changes)


class Page(HTMLParser):
    """A page with its scripts, as a browser sees them: nothing in a script is markup until it ends."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.classes, self.scripts, self.inside, self.words = [], [], [], None, []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.classes.append(dict(attributes).get("class") or "")
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        (self.scripts if self.inside == "script" else self.words).append(data)


def payload(source):
    (script,) = Page(source).scripts
    return json.loads(script, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# Controls


def test_a_control_starts_at_its_default_and_spans_its_grid():
    integer, choice, logarithmic = (c.widget() for c in panel().controls)
    linear = Control("x", (-0.5, 0.25, 1.5), 0.25).widget()
    assert isinstance(integer, widgets.IntSlider) and (integer.min, integer.max, integer.value) == (-2, 3, 3)
    assert isinstance(choice, widgets.ToggleButtons) and (choice.options, choice.value) == (WORDS, "plain")
    assert isinstance(logarithmic, widgets.FloatLogSlider) and logarithmic.value == 1.0
    assert math.isclose(logarithmic.base**logarithmic.min, 0.1) and math.isclose(logarithmic.base**logarithmic.max, 10)
    assert isinstance(linear, widgets.FloatSlider) and (linear.min, linear.max, linear.value) == (-0.5, 1.5, 0.25)


def test_a_live_control_takes_values_that_are_not_on_the_grid():
    slider = Control("x", (0.0, 0.5, 1.0), 0.0).widget()
    slider.value = 0.3
    assert slider.value == 0.3
    assert all(not w.continuous_update for w in (slider, Control("n", (1, 2, 9), 1).widget()))


@pytest.mark.parametrize(
    "values, default, log, says",
    [
        ((1.0,), 1.0, False, "values must be at least two values, else nothing moves, got values=(1.0,)"),
        ((), None, False, "values must be at least two values"),
        ((1, 2, 1), 1, False, "values must be distinct, got values=(1, 2, 1)"),
        ((1, 2), 3, False, "default must be one of (1, 2), got default=3"),
        ((1, "two"), 1, False, "values must be all numbers, or all words, got values=(1, 'two')"),
        ((0.0, 1.0), 1.0, True, "values must be positive numbers where log=True, got values=(0.0, 1.0)"),
        (("a", "b"), "a", True, "values must be positive numbers where log=True, got values=('a', 'b')"),
    ],
)
def test_a_control_that_could_not_move_is_refused(values, default, log, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        Control("x", values, default, log)


@pytest.mark.parametrize("value", ["x", None, math.nan, -0.1, 3.1, True])
def test_a_control_checks_its_own_range(value):
    control = Control("size", (0.5, 1.0, 2.0), 1.0, low=0, high=3, name="size")
    control.check(0), control.check(3.0), control.check(2.9)
    with pytest.raises(ValueError, match=r"^size must be"):
        control.check(value)


def test_whole_numbers_and_words_are_kept_to():
    with pytest.raises(ValueError, match=r"^depth must be an integer"):
        Control("depth", (1, 2, 4), 1, name="depth").check(2.5)
    with pytest.raises(ValueError, match=r"^law must be one of"):
        Control("law", ("sign", "normal"), "sign", name="law").check("uniform")


def test_a_decorated_function_is_the_panel():
    chart = alt.Chart(alt.NamedData("line")).mark_line().encode(x="x:Q", y="y:Q")
    parts = {"claim": "toy.algebra", "task": "Bend it.", "chart": chart, "presets": {"steep": {"slope": 3}}}

    @explore.explorable(**parts, slope=Control("slope", SLOPES, 0, low=-2), word=Control("word", WORDS, "plain"))
    def bent_line(slope, word):
        return Outcome({"line": {"x": [0, 1], "y": [0, slope]}}, word, "m", "v", None)

    assert (bent_line.name, bent_line.defaults) == ("bent-line", {"slope": 0, "word": "plain"})
    assert bent_line.simulate(3, word=WORDS[1]).tables["line"]["y"] == [0, 3]
    with pytest.raises(ValueError, match=r"^slope must be at least -2"):
        bent_line.simulate(-3, "plain")


# The grid


def test_the_grid_has_every_point_with_the_last_control_moving_fastest():
    grid = panel().grid
    assert len(grid) == len(SLOPES) * len(WORDS) * len(POWERS)
    points = [(s, w, p) for s in SLOPES for w in WORDS for p in POWERS]
    for (slope, word, power), outcome in zip(points, grid, strict=True):
        assert outcome == explore._rounded(vars(simulate(slope, word, power)))


@given(value=st.floats(-1.79e308, 1.79e308))
def test_rounding_keeps_four_significant_digits(value):
    assert math.isclose(explore._rounded(value), value, rel_tol=5.1e-4, abs_tol=1e-320)


def test_rounding_touches_nothing_but_floats_and_turns_what_json_lacks_into_null():
    largest = sys.float_info.max  # 1.7977e308: its first four digits are more than there is
    value = {"a": [123456, True, None, "1.23456", 1.23456], "b": {"c": [math.nan, math.inf, -math.inf, largest]}}
    expected = {"a": [123456, True, None, "1.23456", 1.235], "b": {"c": [None] * 4}}
    assert explore._rounded(value) == expected


def test_rows_are_records_and_need_columns_of_one_length():
    assert explore.rows({"x": [1, 2], "y": [3, 4]}) == [{"x": 1, "y": 3}, {"x": 2, "y": 4}]
    with pytest.raises(ValueError, match="shorter"):
        explore.rows({"x": [1, 2], "y": [3]})


def test_two_numbers_are_a_choice_and_no_slider():
    control = Control("target", (-1, 1), 1)
    assert control.kind == "choice" and isinstance(control.widget(), widgets.ToggleButtons)


def test_presets_are_buttons_that_put_every_control_in_its_place():
    head, slope, word, power, *_ = panel(presets={"steep": {"slope": -2, "power": 10.0}}).live().children
    steep, reset = head.children[1].children
    assert (steep.description, reset.description) == ("steep", "Reset")
    word.value = WORDS[1]
    steep.click()
    assert (slope.value, word.value, power.value) == (-2, "plain", 10.0)
    reset.click()
    assert (slope.value, word.value, power.value) == (3, "plain", 1.0)


@pytest.mark.parametrize("setting", [{"slope": 1.5}, {"colour": 1}])
def test_a_preset_that_the_page_cannot_show_is_refused(setting):
    with pytest.raises(ValueError, match="preset 'odd' must be values on the grid"):
        panel(presets={"odd": setting})


# Replay


def test_the_replay_holds_the_controls_the_start_and_every_outcome():
    data = payload(panel().replay())
    assert [(c["label"], c["kind"], c["start"]) for c in data["controls"]] == [
        ("slope", "slider", 2), ("word", "choice", 0), ("power", "slider", 1),
    ]  # fmt: skip
    assert [tuple(c["values"]) for c in data["controls"]] == [SLOPES, WORDS, POWERS]
    assert [c["name"] for c in data["controls"]] == ["slope", "word", "power"]
    assert payload(panel(presets={"odd": {"slope": SLOPES[0]}}).replay())["presets"] == {"odd": [0, 0, 1]}
    for found, expected in zip(data["grid"], panel().grid, strict=True):
        tables = {name: data["tables"][index] for name, index in found["tables"].items()}
        assert {**found, "tables": tables} == expected


def test_the_replay_stores_each_distinct_table_once():
    tables = payload(panel().replay())["tables"]
    texts = [json.dumps(table) for table in tables]
    assert len(texts) == len(set(texts))
    assert texts.count('{"x": [0, 1]}') == 1


def test_the_replay_shows_the_defaults_before_any_script_runs():
    source = panel().replay()
    start = simulate(3, "plain", 1.0)
    page = Page(source)
    assert "facts broken" in page.classes
    assert start.measurement in page.words
    data = payload(source)
    assert data["spec"]["datasets"]["line"] == explore.rows(explore._rounded(start.tables["line"]))
    # The point of the grid that the script starts from is that of the defaults.
    position = 0
    for control in data["controls"]:
        position = position * len(control["values"]) + control["start"]
    assert data["grid"][position]["measurement"] == start.measurement


def test_no_text_of_an_explorable_ends_its_script_or_becomes_markup():
    page = Page(panel().replay())
    assert page.tags.count("script") == 1
    assert "b" not in page.tags and "everything" not in page.tags
    raw = panel().replay()
    script = raw[raw.index('<script type="application/json">') + 32 : raw.rindex("</script>")]
    assert "<" not in script
    assert payload(raw)["grid"][0]["prediction"].startswith("</script><!--<script>")


def test_the_replay_has_no_infinity_and_no_nan_even_where_the_start_has():
    def overflowing(**values):
        return Outcome({"line": {"x": [0, 1, 2], "y": [1.0, math.inf, math.nan]}}, "p", "m", "v", None)

    data = payload(panel(simulate=overflowing).replay())
    assert [row["y"] for row in data["spec"]["datasets"]["line"]] == [1.0, None, None]


@pytest.mark.parametrize("survived, state", [(True, "survived"), (False, "broken"), (None, "silent")])
def test_facts_say_whether_the_claim_survived(survived, state):
    page = Page(explore.facts(Outcome({}, "<p>", "m & n", "v", survived)))
    assert page.classes[0] == f"facts {state}"
    assert page.words == ["Predicted", "<p>", "Measured", "m & n", "Verdict", "v"]


# Live


def test_moving_a_control_computes_and_draws_anew():
    calls = []

    def recorded(**values):
        calls.append(values)
        return simulate(**values)

    box = panel(simulate=recorded).live()
    _, slope, word, power, chart, text = box.children
    assert calls == [{"slope": 3, "word": "plain", "power": 1.0}]
    before = chart.value, text.value
    power.value = 2.5  # not on the grid
    assert calls[-1] == {"slope": 3, "word": "plain", "power": 2.5}
    assert chart.value != before[0] and text.value != before[1]
    slope.value, word.value = -2, WORDS[1]
    assert calls[-1] == {"slope": -2, "word": WORDS[1], "power": 2.5}
    assert "facts survived" in text.value


def test_a_value_that_the_simulation_refuses_is_shown_as_a_sentence_and_the_next_move_recovers():
    _, slope, *_, chart, text = panel().live().children
    slope.value = 1
    assert text.value == ("<p><strong>Not possible:</strong> slope must not be one &lt;here&gt;, got slope=1</p>")
    slope.value = 0
    assert "facts silent" in text.value
    assert "<svg" in chart.value


def test_the_picture_takes_over_the_ink_of_the_page():
    ink = alt.Chart(alt.NamedData("line")).mark_line(color="#010203").encode(x="x:Q", y="y:Q")
    source = panel(chart=ink).svg(simulate(3, "plain", 1.0))
    assert "#010203" not in source and "currentColor" in source


# Which life


def test_a_page_being_built_replays_and_a_notebook_is_live(monkeypatch):
    shown = []
    monkeypatch.setattr(explore, "display", lambda thing, **options: shown.append(thing))
    panel().show()
    monkeypatch.setenv("FIRSTSTEP_BUILD", "1")
    panel().show()
    live, page = shown
    assert isinstance(live, widgets.VBox)
    assert page["text/plain"] == "[explorable: Move <everything> & see.]"
    assert payload(page["text/html"])["grid"]
