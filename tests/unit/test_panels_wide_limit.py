"""The explorable of the wide limit says what the theory says."""

import pytest

from firststep.book.panels import wide_limit

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("gamma", ["∞", "1/(2√d)"])
def test_r_stays_near_its_prediction(gamma):
    assert wide_limit.wide_limit.simulate(gamma, 64, "gaussian", "N = 3√d").survived is True


def test_few_samples_have_another_law():
    outcome = wide_limit.wide_limit.simulate("∞", 64, "uniform", "N = √d")
    assert outcome.survived is True and "√d/1.25 = 6.4" in outcome.prediction
    assert min(x for x, y in zip(*outcome.tables["law"].values(), strict=True) if y > 0) > 0.25


def test_without_normalization_the_claim_says_nothing_and_r_collapses():
    outcome = wide_limit.wide_limit.simulate("∞", 64, "gaussian", "no batch norm")
    assert outcome.survived is None and outcome.verdict.startswith("Without batch normalization")


def test_the_bars_hold_at_least_the_plateau_and_no_round_off():
    heights, _ = wide_limit.spectrum(1.0, 16, "gaussian", "N = 3√d")
    assert float(heights.sum()) * 0.1 + 0.02 >= 6 / 4 and float(heights.sum()) * 0.1 <= 12 / 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("2", 64, "gaussian", "N = √d"), "gamma must be one of"),
        (("1", 3, "gaussian", "N = √d"), "d must be at least 4 and at most 128"),
        (("1", 64, "cauchy", "N = √d"), "law must be one of"),
        (("1", 64, "gaussian", "N = d"), "setting must be one of"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        wide_limit.wide_limit.simulate(*arguments)
