"""The explorables of the chapter on imbalance say what the theorems say."""

import pytest

from firststep.book.panels.imbalance_min_norm import imbalance_min_norm
from firststep.book.panels.imbalance_rate import imbalance_rate


@pytest.mark.parametrize("product", ["along", "against", "random"])
@pytest.mark.parametrize("c", [0.3, 3.0])
def test_the_bound_holds_wherever_it_promises_something(c, product):
    outcome = imbalance_rate.simulate(c=c, target=0.5, product=product, weakest=0.4)
    assert outcome.survived is True and f"e^(−{2 * 0.4 * c:.3g} t)" in outcome.prediction


def test_a_balanced_start_is_promised_nothing():
    outcome = imbalance_rate.simulate(c=0.0, target=0.5, product="against", weakest=1.0)
    assert outcome.survived is None and outcome.prediction == "nothing: c = 0"


def test_both_conditions_give_the_min_norm_solution_and_one_does_not():
    both = imbalance_min_norm.simulate(hidden=50, decay=0.5, condition="both", seed=0)
    one = imbalance_min_norm.simulate(hidden=50, decay=0.5, condition="V U₂ᵀ = 0", seed=0)
    assert both.survived is True and both.tables["end"]["distance"][0] < 1e-6
    assert one.survived is None and one.tables["end"]["distance"][0] > 0.1
