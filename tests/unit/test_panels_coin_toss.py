"""The panel on the sign of the determinant says what the theorem says."""

import pytest

from firststep.book.panels.coin_toss import ARRIVED, LONGEST, SIGNS, SINGULAR_VALUES, coin_toss

BOUND = SINGULAR_VALUES[-1] ** 2 / 2


def last(outcome):
    return outcome.tables["excess"]["excess"][-1]


@pytest.mark.parametrize("depth", [2, 3, 4])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_balanced_start_arrives_exactly_if_the_sign_is_right(seed, depth):
    right, wrong = (coin_toss.simulate(seed, depth, sign, 1.0) for sign in SIGNS)
    assert right.survived is None and "the target is reached" in right.measurement
    assert wrong.survived is True and last(wrong) >= BOUND * (1 - 1e-6)


def test_one_lighter_layer_frees_the_start_and_one_heavier_layer_only_where_there_are_two():
    free = [coin_toss.simulate(1, depth, "the other", weight) for depth, weight in ((2, 0.5), (2, 2.0), (3, 0.5))]
    assert all(outcome.survived is None and "reached" in outcome.measurement for outcome in free)
    held = coin_toss.simulate(1, 3, "the other", 2.0)
    assert held.survived is True and last(held) > BOUND * (1 - 1e-6)


def test_the_curve_starts_at_time_zero_and_ends_at_the_last_time_unless_it_falls_off_the_chart():
    table = coin_toss.simulate(0, 2, "the other", 1.0).tables["excess"]
    assert (table["time"][0], table["time"][-1]) == (0, LONGEST)
    assert min(coin_toss.simulate(0, 2, "the start's", 1.0).tables["excess"]["excess"]) < ARRIVED


@pytest.mark.parametrize("values, name", [((0, 1, "the other", 1.0), "depth"), ((0, 2, "neither", 1.0), "sign")])
def test_bad_arguments_are_named(values, name):
    with pytest.raises(ValueError, match=name):
        coin_toss.simulate(*values)
