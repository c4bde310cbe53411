"""Slopes, correlations and means: against closed forms and scipy.stats, and their intervals against their level."""

import numpy as np
import pytest
from scipy import stats

from firststep import report


def test_the_slope_of_a_power_law_is_its_exponent():
    x = np.array([1.0, 2, 5, 10])
    found = report.loglog_slope(x, 3 * x**-0.5)
    assert found.value == pytest.approx(-0.5)
    assert found.low == pytest.approx(-0.5) and found.high == pytest.approx(-0.5)


def test_a_slope_and_its_error_are_those_of_scipy():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    theirs, ours = stats.linregress(x, y), report.slope(x, y)
    assert (ours.value, ours.error) == pytest.approx((theirs.slope, theirs.stderr))


def test_an_intercept_and_its_error_are_those_of_scipy():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 12))
    theirs, ours = stats.linregress(x, y), report.intercept(x, y)
    assert (ours.value, ours.error) == pytest.approx((theirs.intercept, theirs.intercept_stderr))
    assert report.intercept([1, 2], [3, 5])[:2] == (1.0, np.inf)


def test_two_points_leave_the_slope_without_an_interval():
    assert report.slope([0, 1], [0, 2])[:1] == (2.0,)
    assert report.slope([0, 1], [0, 2]).high == np.inf


@pytest.mark.parametrize("ties", [False, True])
def test_the_rank_correlation_is_that_of_scipy(ties):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, 30))
    x, y = (x.round(), y.round()) if ties else (x, y)
    assert report.rank_correlation(x, y).value == pytest.approx(stats.spearmanr(x, y).statistic)


def test_a_monotone_relation_has_correlation_one_and_an_interval_that_is_not_degenerate():
    found = report.rank_correlation(range(8), np.arange(8) ** 3)
    assert found.value == pytest.approx(1)
    assert found.low < 1


def test_the_partial_rank_correlation_is_the_formula_of_three_rank_correlations():
    x, y, z = np.random.default_rng(3).normal(size=(3, 40))
    xy, xz, yz = (report.rank_correlation(*pair).value for pair in ((x, y), (x, z), (y, z)))
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    assert report.partial_rank_correlation(x, y, z).value == pytest.approx(expected)


def test_what_two_quantities_owe_to_a_third_is_taken_out():
    rng = np.random.default_rng(4)
    z = rng.normal(size=200)
    x, y = z + 0.1 * rng.normal(size=(2, 200))
    assert report.rank_correlation(x, y).low > 0.9
    assert abs(report.partial_rank_correlation(x, y, z).value) < 0.2


@pytest.mark.parametrize("estimate", [
    lambda rng: report.mean(rng.normal(size=5)),
    lambda rng: report.slope(np.arange(6), rng.normal(size=6)),
    lambda rng: report.rank_correlation(*rng.normal(size=(2, 20))),
    lambda rng: report.partial_rank_correlation(*(rng.normal(size=(2, 20)) + 3 * (z := rng.normal(size=20))), z),
])  # fmt: skip
def test_intervals_hold_the_truth_as_often_as_they_say(estimate):
    rng = np.random.default_rng(2)
    found = [estimate(rng) for _ in range(1_000)]
    assert 0.925 < np.mean([e.low <= 0 <= e.high for e in found]) < 0.975  # 3.6 standard errors of the share


@pytest.mark.parametrize("call, name", [
    (lambda: report.mean([1.0]), "values"),
    (lambda: report.mean([1.0, np.nan]), "values"),
    (lambda: report.mean([1.0, 2.0], level=1), "level"),
    (lambda: report.loglog_slope([1, 2], [0, 1]), "y"),
    (lambda: report.slope([1, 1], [0, 1]), "x"),
    (lambda: report.slope([1, 2, 3], [0, 1]), "y"),
    (lambda: report.rank_correlation([1, 2, 3, 4], [1, 1, 1, 1]), "y"),
    (lambda: report.rank_correlation("abcd", [1, 2, 3, 4]), "x"),
    (lambda: report.partial_rank_correlation([1, 2, 3, 5, 4], [1, 3, 2, 4, 5], [1, 1, 1, 1, 1]), "given"),
    (lambda: report.partial_rank_correlation([1, 2, 3, 4, 5], [1, 3, 2, 4, 5], [1, 2, 3, 4, 5]), "x"),
])  # fmt: skip
def test_bad_input_is_named(call, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        call()
