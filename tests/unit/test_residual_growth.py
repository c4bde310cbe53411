"""Growth of signals in residual networks: quadrature against drawn layers, and the walk against networks."""

import math

import numpy as np
import pytest
import torch

from firststep import inits, residual, residual_growth

F64 = {"dtype": torch.float64, "device": "cpu"}


@pytest.mark.parametrize(("width", "block", "branch"), [(16, 4, 1.0), (5, 9, 1.0), (8, 8, 0.3)])
def test_growth_is_what_drawn_layers_do(width, block, branch):
    g, layers = inits.generator(0, device="cpu"), 20_000
    log = residual_growth.log_norms(width, block, 1, branch, networks=layers, generator=g)[1].numpy()
    mean, std = residual_growth.log_growth(width, block, branch)
    assert abs(log.mean() - mean) < 4 * std / math.sqrt(layers)
    assert log.std() == pytest.approx(std, rel=0.03)
    assert np.exp(log).mean() == pytest.approx(residual_growth.mean_growth(width, block, branch), rel=0.02)


def test_wide_layers_grow_by_their_mean_and_a_block_of_zeros_not_at_all():
    drift, noise = residual_growth.log_growth(2_000, 1_000)
    assert drift == pytest.approx(math.log(residual_growth.mean_growth(2_000, 1_000)), rel=0.01) and noise < 0.05
    assert residual_growth.log_growth(6, 3, branch=0.0) == (0.0, 0.0)
    assert residual_growth.mean_growth(7, 7) == 1.5


def test_the_walk_is_that_of_the_network():
    net = residual.ResidualMLP(4, 6, 3, 40, 2, runs=200, **F64)
    residual.start_(net, "xavier", generator=inits.generators(200, device="cpu"))
    x = torch.ones(4, 1, **F64)
    drift, noise = residual_growth.log_growth(6, 3)
    norms = net.norms(x)
    torch.testing.assert_close(norms[0], (net.first @ x).norm(dim=1))
    walked = 2 * (norms[-1] / norms[0]).log().flatten()
    assert abs(float(walked.mean()) - 40 * drift) < 4 * noise * math.sqrt(40 / 200)


@pytest.mark.parametrize(("dtype", "slow"), [(torch.float32, 1), (torch.float64, 8)])
def test_overflow_comes_where_the_walk_first_reaches_the_largest_number(dtype, slow):
    predicted = residual_growth.overflow_depth(16, 16, dtype)
    found = []
    for number in range(5):
        net = residual.ResidualMLP(1, 16, 16, 700 * slow, 1, dtype=dtype, device="cpu")
        residual.start_(net, "xavier", generator=inits.generator(number, device="cpu"))
        norms = net.norms(torch.ones(1, 1, dtype=dtype, device="cpu"))[:, 0, 0]
        found.append(int((~norms.isfinite()).nonzero()[0]))
    assert abs(np.mean(found) - predicted.value) < 4 * predicted.error / math.sqrt(5) + 10


def test_the_scale_of_a_step_is_outputs_over_the_squared_gradient():
    ratios = []
    for number in range(40):
        net = residual.ResidualMLP(30, 12, 6, 40, 5, **F64)
        residual.start_(net, "xavier", generator=inits.generator(number, device="cpu"))
        out = net(torch.ones(30, 1, **F64))[0]
        gradient = torch.autograd.grad(out[0, 0], list(net.parameters()))
        ratios.append(math.log10(float(out.detach().square().mean().sqrt() / sum(g.square().sum() for g in gradient))))
    predicted = residual_growth.step_scale(12, 6, 40, 30, 5, math.sqrt(30))
    assert np.mean(ratios) == pytest.approx(predicted.value, abs=0.4)  # typical sizes, not exact means
    deep = [residual_growth.step_scale(12, 6, depth, 30, 5).value for depth in (10_000, 20_000)]
    drift = residual_growth.log_growth(12, 6)[0]
    assert deep[1] - deep[0] == pytest.approx(-5_000 * drift / math.log(10) - math.log10(2), abs=1e-3)
