"""Closed forms of the chapter's explorables."""

import itertools
import math
import re

import pytest
import torch

from firststep.book.panels import collinearity
from firststep.book.panels import dtype_and_tolerance as panel
from firststep.book.panels import soft_rank_and_bound as soft
from firststep.lyapunov import gaussian_exponents

pytestmark = pytest.mark.usefixtures("clean_environment")


# Dtype and tolerance


def test_the_predicted_line_is_newmans_for_the_plain_chain():
    drift, _ = panel.gaps("plain")
    closed = gaussian_exponents(panel.WIDTH)
    assert (drift - (closed[0] - closed)).abs().max() < 0.06  # standard error of the last one: 0.015


def test_six_directions_survive_batch_normalization_at_width_sixteen():
    drift, _ = panel.gaps("batch norm")
    assert (drift[:6].abs() < 2e-3).all() and drift[6] > 0.02


@pytest.mark.parametrize("dtype", panel.DTYPES)
@pytest.mark.parametrize("chain", panel.CHAINS)
def test_one_layer_leaves_every_singular_value_above_a_small_tolerance(chain, dtype):
    outcome = panel.dtype_and_tolerance.simulate(chain, dtype, -5.0, 1)
    assert outcome.measurement.startswith("16 above 10^-5 after 1 layers")
    assert outcome.survived


def test_without_normalization_two_thousand_layers_leave_one_direction_in_sight():
    outcome = panel.dtype_and_tolerance.simulate("plain", "float64", -12.0, 2_000)
    assert outcome.measurement.startswith("1 above")
    assert outcome.prediction.startswith("exact rank 16;") and outcome.prediction.endswith(" above the tolerance")
    assert outcome.measurement.endswith("no factor is singular") and outcome.survived


def test_a_tolerance_below_round_off_decides_nothing():
    assert panel.dtype_and_tolerance.simulate("plain", "float32", -8.0, 500).survived is None
    assert panel.dtype_and_tolerance.simulate("plain", "float64", -8.0, 500).survived is not None


def test_a_lower_tolerance_never_counts_fewer():
    counts = []
    for log_tolerance in sorted(panel.LOG_TOLERANCES, reverse=True):
        shown = panel.dtype_and_tolerance.simulate("plain", "float64", log_tolerance, 100).measurement
        counts.append([int(n) for n in re.findall(r"\d+", shown.split(" above ")[0])])
    least, most = [found[0] for found in counts], [found[-1] for found in counts]
    assert least == sorted(least) and most == sorted(most)
    assert least[0] < least[-1]  # and the tolerance matters


def test_both_dtypes_see_the_same_network_above_their_round_off():
    narrow, wide = (panel.relative_spectra("plain", dtype)[49] for dtype in panel.DTYPES)
    seen = wide > 1e-4
    torch.testing.assert_close(narrow[seen], wide[seen], rtol=1e-2, atol=0)


@pytest.mark.parametrize("chain", panel.CHAINS)
def test_the_count_stays_in_the_range_of_the_exponents_wherever_it_means_something(chain):
    points = [(t, depth) for t in panel.LOG_TOLERANCES for depth in panel.DEPTHS]
    for dtype in panel.DTYPES:
        broken = [p for p in points if panel.dtype_and_tolerance.simulate(chain, dtype, *p).survived is False]
        assert broken == []


def test_the_dashed_line_falls_by_the_gap_times_depth():
    line = panel.dtype_and_tolerance.simulate("plain", "float64", -5.0, 100).tables["predicted"]
    drift, _ = panel.gaps("plain")
    assert line["value"][0] == 0
    assert line["value"][1] == pytest.approx(-100 * float(drift[1]) / math.log(10))
    assert min(line["value"]) >= panel.FLOOR


# Soft rank and bound

SOFT = {"gamma": "1", "d": 16, "depth": 100, "tau": 0.1, "setting": "Gaussian inputs"}
BOUND = re.compile(r"√\(\(1−α\)d\) = ([\d.e-]+), with α = ([\d.]+)")


def bound_and_alpha(outcome):
    return tuple(map(float, BOUND.search(outcome.prediction).groups()))


def test_one_sample_has_soft_and_stable_rank_one_at_every_depth_and_breaks_a_bound_above_one():
    outcome = soft.soft_rank_and_bound.simulate(**SOFT | {"setting": "rank-one inputs", "tau": 0.01, "d": 32})
    assert set(outcome.tables["soft"]["average"]) == {1.0}
    assert outcome.tables["stable"]["average"] == pytest.approx([1.0] * len(outcome.tables["stable"]["depth"]))
    assert bound_and_alpha(outcome)[0] > 1 and outcome.survived is False


@pytest.mark.parametrize("setting", soft.SETTINGS)
def test_without_a_random_branch_the_averages_are_those_of_the_inputs(setting):
    tables = soft.soft_rank_and_bound.simulate(**SOFT | {"gamma": "0", "setting": setting}).tables
    for name in ("soft", "stable"):
        assert tables[name]["average"] == pytest.approx([tables[name]["average"][0]] * len(tables[name]["depth"]))


def test_the_threshold_zero_counts_every_dimension():
    assert set(soft.soft_rank_and_bound.simulate(**SOFT | {"tau": 0.0}).tables["soft"]["average"]) == {16.0}


@pytest.mark.parametrize("tau", [0.01, 0.3, 0.5])
def test_the_bound_is_the_theorems_with_the_alpha_of_gaussian_inputs_whatever_the_setting(tau):
    outcomes = [soft.soft_rank_and_bound.simulate(**SOFT | {"tau": tau, "setting": s}) for s in soft.SETTINGS]
    (bound, alpha), *others = map(bound_and_alpha, outcomes)
    assert others == [(bound, alpha)] * 2
    assert bound == pytest.approx((1 - tau) ** 2 * math.sqrt((1 - alpha) * 16), rel=0.01)
    assert 0.8 < alpha < 0.95


@pytest.mark.parametrize("setting", ["Gaussian inputs", "rank-one inputs"])
def test_normalized_rows_keep_the_soft_rank_above_the_stable_one_times_one_less_tau_squared(setting):
    for tau in (0.01, 0.1, 0.3, 0.5):
        tables = soft.soft_rank_and_bound.simulate(**SOFT | {"tau": tau, "setting": setting}).tables
        pairs = zip(tables["soft"]["average"], tables["stable"]["average"], strict=True)
        assert all(soft >= (1 - tau) ** 2 * stable for soft, stable in pairs)


def test_inside_its_assumptions_the_bound_holds_at_every_point_of_the_grid_where_it_says_something():
    controls = {c.name: c.values for c in soft.soft_rank_and_bound.controls}
    for gamma, d, depth, tau in itertools.product(*(controls[k] for k in ("gamma", "d", "depth", "tau"))):
        outcome = soft.soft_rank_and_bound.simulate(gamma, d, depth, tau, "Gaussian inputs")
        assert outcome.survived is (None if gamma == "0" else True)


def test_without_normalization_the_average_tends_to_one_and_breaks_the_bound():
    outcome = soft.soft_rank_and_bound.simulate("∞", 16, 1_000, 0.01, "no batch norm")
    assert outcome.tables["stable"]["average"][-1] < 1.3
    assert soft.soft_rank_and_bound.simulate("∞", 32, 1_000, 0.3, "no batch norm").survived is None


def test_the_average_over_one_layer_is_a_count_and_the_last_point_is_the_depth():
    outcome = soft.soft_rank_and_bound.simulate(**SOFT | {"depth": 1})
    assert outcome.tables["soft"]["depth"] == [1] and outcome.tables["soft"]["average"][0] in range(1, 17)
    assert soft.soft_rank_and_bound.simulate(**SOFT | {"depth": 57}).tables["soft"]["depth"][-1] == 57


# Collinear inputs

NEAR = {"spread": "1e-6", "d": 16, "gamma": "∞", "normalization": "batch norm"}


def singular_values(outcome, index):
    table = outcome.tables["sigma"]
    rows = zip(table["depth"], table["sigma"], table["index"], strict=True)
    return {depth: value for depth, value, name in rows if name == f"σ{index}"}


def test_two_rows_without_skip_connections_are_neutral():
    """E log|C| = 0 for a Cauchy variable C; its logarithm has standard deviation π/2, here over 2,000 layers."""
    assert abs(collinearity.transversal_exponent(math.inf, 2)) < 4 * math.pi / 2 / 2_000**0.5
    assert "neutral" in collinearity.collinearity.simulate(**NEAR | {"d": 2}).prediction


def test_without_skip_connections_a_wide_layer_has_the_exponent_of_the_levy_law():
    wide = 0.5 * (math.log(64) + math.log(4 / math.pi) + 0.5772156649)
    assert collinearity.transversal_exponent(math.inf, 64) == pytest.approx(wide, abs=0.12)


def test_two_rows_and_a_weak_branch_have_the_exponent_gamma_squared():
    assert collinearity.transversal_exponent(0.2, 2) == pytest.approx(0.04, abs=0.03)


@pytest.mark.parametrize("normalization", ["batch norm", "none"])
def test_without_a_random_branch_no_singular_value_moves(normalization):
    assert collinearity.transversal_exponent(0.0, 16) == pytest.approx(0, abs=1e-12)
    outcome = collinearity.collinearity.simulate(**NEAR | {"gamma": "0", "normalization": normalization})
    for index in range(1, collinearity.DRAWN + 1):
        values = singular_values(outcome, index)
        assert list(values.values()) == pytest.approx([values[0]] * len(values), rel=1e-6)
    assert outcome.survived is False


def test_nearly_collinear_inputs_start_with_one_singular_value_that_holds_all_and_end_with_a_smaller_one():
    outcome = collinearity.collinearity.simulate(**NEAR)
    largest, second = (singular_values(outcome, k) for k in (1, 2))
    assert largest[0] == pytest.approx(4, rel=1e-9)  # √d: the squares add up to d
    assert second[0] < 3e-6 and second[40] > 1 and largest[40] < 3.9
    assert outcome.survived is True


def test_the_dashed_line_starts_at_the_spread_and_ends_at_one_or_at_the_last_layer():
    fast = collinearity.collinearity.simulate(**NEAR).tables["growth"]
    slow = collinearity.collinearity.simulate(**NEAR | {"gamma": "0.1", "spread": "1e-12"}).tables["growth"]
    rate = collinearity.transversal_exponent(math.inf, 16)
    assert fast["sigma"] == pytest.approx([1e-6, 1.0]) and fast["depth"][1] == pytest.approx(6 * math.log(10) / rate)
    assert slow["depth"] == [0, 40] and slow["sigma"][1] < 1


def test_without_normalization_the_samples_stay_nearly_collinear():
    outcome = collinearity.collinearity.simulate(**NEAR | {"normalization": "none"})
    assert max(singular_values(outcome, 2).values()) < 1e-4 and outcome.survived is False


def test_exactly_collinear_inputs_and_spread_out_ones_are_no_test_of_the_claim():
    exact = collinearity.collinearity.simulate(**NEAR | {"spread": "0"})
    assert singular_values(exact, 2)[0] < 1e-14 and exact.survived is None and "round-off" in exact.verdict
    assert collinearity.collinearity.simulate(**NEAR | {"spread": "1"}).survived is None


@pytest.mark.parametrize("call, message", [
    (lambda: collinearity.transversal_exponent(math.inf, 1), "d must be an integer of at least 2, got d=1"),
    (lambda: collinearity.transversal_exponent(-1.0, 4), "gamma must be a number of at least 0"),
])  # fmt: skip
def test_the_transversal_exponent_needs_a_width_and_a_strength(call, message):
    with pytest.raises(ValueError, match=message):
        call()
