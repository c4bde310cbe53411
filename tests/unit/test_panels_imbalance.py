"""The explorables of the chapter on imbalance say what the theorems say."""

import pytest

from firststep.book.panels import imbalance


@pytest.mark.parametrize("product", ["along", "against", "random"])
@pytest.mark.parametrize("c", [0.3, 3.0])
def test_the_bound_holds_wherever_it_promises_something(c, product):
    outcome = imbalance.simulate_rate(c=c, target=0.5, product=product, weakest=0.4)
    assert outcome.survived is True and f"e^(−{2 * 0.4 * c:.3g} t)" in outcome.prediction


def test_a_balanced_start_is_promised_nothing():
    outcome = imbalance.simulate_rate(c=0.0, target=0.5, product="against", weakest=1.0)
    assert outcome.survived is None and outcome.prediction == "nothing: c = 0"


def test_both_conditions_give_the_min_norm_solution_and_one_does_not():
    both = imbalance.simulate_min_norm(hidden=50, decay=0.5, condition="both", seed=0)
    one = imbalance.simulate_min_norm(hidden=50, decay=0.5, condition="V U₂ᵀ = 0", seed=0)
    assert both.survived is True and both.tables["end"]["distance"][0] < 1e-6
    assert one.survived is None and one.tables["end"]["distance"][0] > 0.1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: imbalance.simulate_rate(-1.0, 0.5, "along", 1.0), "c must be a number of at least 0"),
        (lambda: imbalance.simulate_rate(1.0, -0.5, "along", 1.0), "target must be a number of at least 0"),
        (lambda: imbalance.simulate_rate(1.0, 0.5, "up", 1.0), "product must be one of"),
        (lambda: imbalance.simulate_rate(1.0, 0.5, "along", 0.0), "weakest must be in"),
        (lambda: imbalance.simulate_min_norm(5, 0.5, "both", 0), "hidden must be an integer between 12"),
        (lambda: imbalance.simulate_min_norm(50, 2.0, "both", 0), "decay must be in"),
        (lambda: imbalance.simulate_min_norm(50, 0.5, "all", 0), "condition must be one of"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
