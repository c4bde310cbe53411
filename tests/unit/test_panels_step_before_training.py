"""The panel of the largest step: closed forms at one layer, and where the prediction holds and breaks."""

import re

import pytest
import torch

from firststep import constant_step
from firststep.book.panels.step_before_training import IMAGES, SCHEMES, step_before_training

simulate = step_before_training.simulate


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_layer_has_the_step_of_linear_regression(scheme):
    tables = simulate(scheme=scheme, activation="tanh", width=8).tables
    x = constant_step.pixels(IMAGES, dtype=torch.float64, device="cpu")[0]
    step = 2 * IMAGES / float(torch.linalg.matrix_norm(x, 2)) ** 2
    ones = [s for d, s in zip(*tables["drawn"].values(), strict=True) if d == 1]
    assert ones == pytest.approx([step] * 3, rel=0.01) and tables["predicted"]["step"][0] == pytest.approx(
        step, rel=1e-3
    )


def test_wide_orthogonal_networks_stay_and_narrow_relu_networks_leave():
    assert simulate(scheme="orthogonal", activation="tanh", width=128).survived
    assert not simulate(scheme="He", activation="relu", width=8).survived


@pytest.mark.parametrize("name, value", [("width", 0), ("width", 257), ("scheme", "sign"), ("activation", "sigmoid")])
def test_bad_input_is_named(name, value):
    good = {"scheme": "He", "activation": "tanh", "width": 8}
    with pytest.raises(ValueError, match=f"{name} must be .*got {name}={re.escape(repr(value))}"):
        simulate(**good | {name: value})
