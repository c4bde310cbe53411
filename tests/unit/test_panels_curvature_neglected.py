"""The explorable of the neglected term: what it shows follows the count of powers, and relu neglects nothing."""

import math
import re

import pytest

from firststep.book.panels.neglected_term import neglected_term

simulate = neglected_term.simulate


def medians(**values):
    found = simulate(**({"bias_scale": 0.0, "activation": "tanh"} | values)).measurement
    return [float(number) for number in re.findall(r"[\d.]+(?:e[+-]\d+)?(?=,|$)", found.split(": ")[1])]


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
@pytest.mark.parametrize(
    "activation, bias_scale, order",
    [
        ("tanh", 0.0, lambda layer, depth: 2 * layer - depth),
        ("tanh", 0.5, lambda layer, depth: layer - depth + 1),
        ("softplus", 0.0, lambda layer, depth: layer - depth),
    ],
)
def test_the_share_of_the_neglected_term_has_the_counted_order(depth, activation, bias_scale, order):
    sizes = (1e-4, 1e-3)
    low, high = (medians(weight_scale=s, depth=depth, activation=activation, bias_scale=bias_scale) for s in sizes)
    assert len(low) == depth
    for layer, (a, b) in enumerate(zip(low, high, strict=True), start=1):
        assert math.log10(b / a) == pytest.approx(order(layer, depth), abs=0.1)


def test_relu_neglects_nothing_at_any_scale():
    for scale in (0.01, 3.0):
        outcome = simulate(weight_scale=scale, bias_scale=0.3, depth=4, activation="relu")
        assert outcome.survived and outcome.tables["ratios"]["ratio"] == []


def test_the_panel_breaks_the_approximation_for_small_weights_and_saves_it_for_one_layer():
    assert not simulate(weight_scale=0.01, bias_scale=0.0, depth=3, activation="tanh").survived
    assert simulate(weight_scale=0.01, bias_scale=0.0, depth=1, activation="tanh").survived


@pytest.mark.parametrize(
    "name, value",
    [("weight_scale", 0.0), ("bias_scale", -0.1), ("depth", 0), ("depth", 9), ("activation", "sigmoid")],
)
def test_bad_input_is_named(name, value):
    good = {"weight_scale": 1.0, "bias_scale": 0.0, "depth": 2, "activation": "tanh"}
    with pytest.raises(ValueError, match=f"{name} must be .*got {name}={re.escape(repr(value))}"):
        simulate(**good | {name: value})
