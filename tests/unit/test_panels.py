"""Every explorable of the book: its replay against live calls, its controls, and closed forms of its own."""

import functools
import json
import math
import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep.book import claims, panels
from firststep.book.panels.plateau import DTYPES, plateau
from firststep.book.panels.scalar_pair import scalar_pair

pytestmark = pytest.mark.usefixtures("clean_environment")
PANELS = panels.every_panel()
NAMES = sorted(PANELS)


def thinned(panel):
    """The panel on a part of its grid: the default and one end of every control, and both ends where it has few."""
    controls = []
    for control in panel.controls:
        first, *_, last = control.values
        kept = {control.default, first if control.default == last else last}
        kept |= {first, last} if len(panel.controls) <= 3 else set()
        controls.append(replace(control, values=tuple(v for v in control.values if v in kept)))
    return replace(panel, controls=tuple(controls), presets={})


@functools.cache
def computed(name):
    """A thinned panel and its replay; the whole grid is computed whenever the book is built."""
    panel = thinned(PANELS[name])
    return panel, panel.replay()


def payload(source):
    script = re.search(r'<script type="application/json">(.*?)</script>', source, re.DOTALL)[1]
    return json.loads(script, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def position(controls, chosen):
    """Where ``assets/explore.js`` looks for the outcome at these positions of the controls."""
    found = 0
    for control, index in zip(controls, chosen, strict=True):
        found = found * len(control["values"]) + index
    return found


def equal_up_to_rounding(replayed, live):
    if isinstance(live, dict):
        return replayed.keys() == live.keys() and all(equal_up_to_rounding(replayed[k], live[k]) for k in live)
    if isinstance(live, list):
        return len(replayed) == len(live) and all(map(equal_up_to_rounding, replayed, live))
    if isinstance(live, float):
        return math.isclose(replayed, live, rel_tol=5.1e-4) if math.isfinite(live) else replayed is None
    return replayed == live


# Every panel


@pytest.mark.parametrize("name", NAMES)
def test_what_the_replay_looks_up_equals_a_live_call_up_to_rounding(name):
    panel, source = computed(name)
    data, rng = payload(source), random.Random(name)
    assert len(data["grid"]) == math.prod(len(c.values) for c in panel.controls)
    for _ in range(10):
        chosen = [rng.randrange(len(c["values"])) for c in data["controls"]]
        values = [c["values"][i] for c, i in zip(data["controls"], chosen, strict=True)]
        live = panel.simulate(**dict(zip(panel.defaults, values, strict=True)))
        replayed = data["grid"][position(data["controls"], chosen)]
        tables = {key: data["tables"][index] for key, index in replayed["tables"].items()}
        assert equal_up_to_rounding(tables, live.tables), values
        for fact in ("prediction", "measurement", "verdict", "survived"):
            assert replayed[fact] == getattr(live, fact), values


@pytest.mark.parametrize("name", NAMES)
def test_random_points_of_the_whole_grid_and_between_its_points_can_be_simulated_and_drawn(name):
    panel, rng = PANELS[name], random.Random(name)
    for between in (False, True) * 4:
        point = {}
        for control in panel.controls:
            value = rng.choice(control.values)
            if between and control.kind == "slider":
                low, high = min(control.values), max(control.values)
                whole = all(isinstance(v, int) for v in control.values)
                value = rng.randint(low, high) if whole else rng.uniform(low, high)
            point[control.name] = value
        try:
            outcome = panel.simulate(**point)
        except ValueError as error:
            assert between and any(name in str(error) for name in point), point
            continue
        assert "<svg" in panel.svg(outcome), point
        assert all(len({len(column) for column in table.values()}) == 1 for table in outcome.tables.values()), point


@pytest.mark.parametrize("name", NAMES)
def test_every_control_changes_the_outcome_somewhere(name):
    panel, source = computed(name)
    grid, sizes = payload(source)["grid"], [len(c.values) for c in panel.controls]
    for k, control in enumerate(panel.controls):
        stride, size = math.prod(sizes[k + 1 :]), sizes[k]
        starts = [i for i in range(len(grid)) if i // stride % size == 0]
        moves = [{json.dumps(grid[i + stride * v]["tables"]) for v in range(size)} for i in starts]
        assert any(len(tables) > 1 for tables in moves), f"{control.name} never changes a table"


@pytest.mark.parametrize("name", NAMES)
def test_the_replay_needs_no_network(name):
    _, source = computed(name)
    urls = set(re.findall(r"""(?:https?:)?//[^"'\s<>\\)]+""", source))
    known = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", payload(source)["spec"]["$schema"]}
    assert urls <= known  # names of formats, which no browser fetches
    assert "@import" not in source and "url(" not in source.replace("url(#", "")


@pytest.mark.parametrize("name", NAMES)
def test_the_chart_draws_every_table_and_no_other(name):
    panel, _ = computed(name)
    spec = panel.chart.to_dict()
    drawn = set(re.findall(r'"data": {"name": "(\w+)"}', json.dumps(spec)))
    drawn -= set(spec.get("datasets", {}))  # what the chart brings along itself
    assert drawn == set(panel.simulate(**panel.defaults).tables)


def layers(spec, data=None):
    """Every mark of a chart as (name of its table, its part of the specification)."""
    data = spec.get("data", {}).get("name", data)
    if "encoding" in spec:
        yield data, spec
    for group in ("layer", "hconcat", "vconcat"):
        for part in spec.get(group, []):
            yield from layers(part, data)


@pytest.mark.parametrize("name", NAMES)
def test_every_column_that_a_layer_draws_is_in_its_table(name):
    panel, _ = computed(name)
    tables = panel.simulate(**panel.defaults).tables
    asked = [(data, channel["field"]) for data, part in layers(panel.chart.to_dict()) if data in tables
             for channel in part["encoding"].values() if isinstance(channel, dict) and "field" in channel]  # fmt: skip
    assert asked
    assert [(data, field) for data, field in asked if field not in tables[data]] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_first_view_shows_something_and_judges_it(name):
    outcome = PANELS[name].simulate(**PANELS[name].defaults)
    assert outcome.survived is not None
    assert sum(len(next(iter(table.values()))) for table in outcome.tables.values()) > 1


@pytest.mark.parametrize("name", NAMES)
def test_a_state_that_judges_nothing_says_why(name):
    _, source = computed(name)
    silent = [point["verdict"] for point in payload(source)["grid"] if point["survived"] is None]
    assert all(len(words.split()) >= 4 for words in silent)


def test_no_two_panels_share_an_id():
    ids = [panel.name for panel in PANELS.values()]
    assert len(ids) == len(set(ids))


def test_a_panel_bears_the_name_of_its_module():
    assert all(panel.name == name.replace("_", "-") for name, panel in PANELS.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_control_refuses_by_name_what_the_panel_cannot_be_called_with(name):
    panel = PANELS[name]
    for control in panel.controls:
        for value in (math.nan, None, "no such word", 1e300 if control.high else math.inf):
            with pytest.raises(ValueError, match=f"^{control.name} must be"):
                panel.simulate(**panel.defaults | {control.name: value})


@pytest.mark.parametrize("name", NAMES)
def test_the_panel_tests_a_claim_of_the_ledger_and_its_section_bears_its_name(name):
    panel, source = computed(name)
    assert panel.claim in claims.ledger()
    assert f'id="explore-{panel.name}"' in source


@pytest.mark.parametrize("name", NAMES)
def test_moving_any_live_control_redraws_the_chart(name):
    panel = PANELS[name]
    *_, chart, text = box = panel.live().children
    controls = box[1:-2]
    for control, widget in zip(panel.controls, controls, strict=True):
        pictures = {chart.value}
        for value in control.values:
            widget.value = value
            assert "Not possible" not in text.value
            pictures.add(chart.value)
            if len(pictures) > 1:
                break
        assert len(pictures) > 1, f"{control.name} does not move the chart"
        widget.value = control.default


# The plateau


@settings(max_examples=25)
@given(rank_1=st.integers(1, 12), rank_2=st.integers(1, 12), aligned=st.booleans())
def test_the_bound_is_the_dimension_of_the_hidden_space(rank_1, rank_2, aligned):
    factors = "aligned" if aligned else "unaligned"
    outcome = plateau.simulate(rank_1, rank_2, factors, "float64", 0)
    closed_form = min(12, max(rank_1, rank_2) if aligned else min(16, rank_1 + rank_2))
    assert outcome.tables["bound"]["rank"] == [closed_form]
    assert outcome.prediction.startswith(f"rank at most {closed_form} ")


@pytest.mark.parametrize("factors, reached", [("unaligned", 5), ("aligned", 3)])
def test_projected_descent_stops_at_the_bound(factors, reached):
    outcome = plateau.simulate(2, 3, factors, "projected float64", 60)
    assert outcome.survived
    assert outcome.tables["rank"]["rank"][0] == 2  # the product of the start has the smaller of both ranks
    assert outcome.tables["rank"]["rank"][-1] == max(outcome.tables["rank"]["rank"]) == reached


def test_round_off_leaves_the_plateau_earlier_in_float32_than_in_float64_and_never_under_the_projection():
    left = {}
    for arithmetic in DTYPES:
        tables = plateau.simulate(1, 1, "unaligned", arithmetic, 150).tables
        rank = zip(tables["rank"]["iteration"], tables["rank"]["rank"], strict=True)
        left[arithmetic] = next((step for step, r in rank if r > 2), math.inf)
    assert 1 < left["float32"] < left["float64"] < left["projected float64"] == math.inf


def test_no_iterations_measure_the_start():
    outcome = plateau.simulate(4, 2, "unaligned", "float64", 0)
    assert outcome.tables["rank"] == {"iteration": [0], "rank": [2]}


# The scalar pair


@given(start=st.floats(0.05, 1.4), step_size=st.floats(0.01, 0.1), sign=st.sampled_from([1, -1]))
def test_equal_weights_with_target_minus_one_and_opposite_ones_with_target_one_reach_the_saddle(start, step_size, sign):
    # On the line w₂ = s·w₁ with target −s a step is w ← w (1 − η (w² + 1)), which shrinks to the saddle.
    outcome = scalar_pair.simulate(start, sign * start, step_size, -sign)
    assert outcome.measurement.startswith("the saddle at (0, 0)")
    assert outcome.survived is False
    w = start
    path = outcome.tables["path"]
    for k in range(path["step"][3] + 1):
        if k in path["step"][:4]:
            at = path["step"].index(k)
            assert math.isclose(path["w1"][at], w, rel_tol=1e-9)
            assert math.isclose(path["w2"][at], sign * w, rel_tol=1e-9)
        w *= 1 - step_size * (w * w + 1)


@given(w1=st.floats(0.2, 1.4), w2=st.floats(0.2, 1.4), target=st.sampled_from([1, -1]))
def test_starts_off_the_line_reach_a_minimum(w1, w2, target):
    if abs(w1 - w2) < 0.1 and target == -1:
        return
    outcome = scalar_pair.simulate(w1, w2, 0.05, target)
    assert outcome.measurement.startswith("the global minimum")
    assert outcome.survived is True


@pytest.mark.parametrize("w1, w2, target", [(1.2, 0.3, 1), (0.4, -1.1, 1), (1.3, 0.6, -1)])
def test_the_limit_conserves_the_imbalance_as_the_step_size_vanishes(w1, w2, target):
    def end(step_size):
        measurement = scalar_pair.simulate(w1, w2, step_size, target).measurement
        a, b = map(float, re.search(r"at \((.*), (.*)\)", measurement).groups())
        return a, b

    # Gradient flow keeps w₁² − w₂² = c and ends where w₁w₂ = target: w₁² = (c + √(c² + 4)) / 2.
    c = w1**2 - w2**2
    limit = math.sqrt((c + math.sqrt(c * c + 4)) / 2)
    a, b = end(0.002)
    assert math.isclose(abs(a), limit, abs_tol=8e-3)
    assert math.isclose(a * b, target, abs_tol=2e-2)  # three digits are printed
    assert abs(abs(end(0.2)[0]) - limit) > 5e-3 or c == 0


def test_descent_moves_the_imbalance_by_the_square_of_the_step_size():
    # Per step w₁² − w₂² changes by η² (w₂² − w₁²) r², r the residual: a total of order η.
    def drift(step_size):
        path = scalar_pair.simulate(1.2, 0.3, step_size, 1).tables["path"]
        return (1.2**2 - 0.3**2) - (path["w1"][-1] ** 2 - path["w2"][-1] ** 2)

    assert drift(0.02) > 0
    assert math.isclose(drift(0.02) / drift(0.01), 2, rel_tol=0.05)


@pytest.mark.parametrize("w1, w2", [(0.0, 0.0), (0.0, 1.0), (-0.5, 0.0)])
def test_a_start_of_rank_zero_tests_nothing(w1, w2):
    outcome = scalar_pair.simulate(w1, w2, 0.1, 1)
    assert outcome.survived is None
    assert "says nothing" in outcome.prediction


@pytest.mark.parametrize("target", [1, -1])
def test_level_curves_are_hyperbolas_and_the_green_one_has_loss_zero(target):
    levels = scalar_pair.simulate(1.0, 0.5, 0.1, target).tables["levels"]
    branches = {}
    for w1, w2, branch, kind in zip(levels["w1"], levels["w2"], levels["branch"], levels["kind"], strict=True):
        branches.setdefault((branch, kind), set()).add(round(0.5 * (w1 * w2 - target) ** 2, 12))
    assert all(len(losses) == 1 for losses in branches.values())
    assert {next(iter(v)) for (_, kind), v in branches.items() if kind == "minimum"} == {0.0}
    assert all(next(iter(v)) > 0 for (_, kind), v in branches.items() if kind == "level")


def test_a_steep_start_diverges_and_says_so():
    outcome = scalar_pair.simulate(1.5, 1.5, 1.0, -1)
    assert outcome.measurement.startswith("diverged after")
    assert outcome.survived is None
