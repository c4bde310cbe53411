"""The curvature of wide networks on many samples, before a weight is drawn."""

import math

import numpy as np
import pytest
import torch

from firststep import curvature, feedforward, hessian_products, inits, predicted_norms, wide_kernel
from firststep.wide_kernel import largest_eigenvalue, limit, spread


def inputs(n, d, seed=0):
    return torch.randn(n, d, generator=inits.generator(seed, "cpu"), dtype=torch.float64, device="cpu")


def drawn(x, widths, scheme, activation, count):
    weights = inits.network(widths, scheme, generator=inits.generators(count, "cpu"))
    names = (activation,) * (len(widths) - 2) + ("linear",)
    return feedforward.forward(weights, x.expand(count, *x.shape), activation=names, samples=True)


def test_one_layer_has_the_second_moment_of_the_inputs():
    x = inputs(5, 7)
    found = limit(x, (7, 3), "he_normal", "tanh")
    torch.testing.assert_close(found.theta, x @ x.mT / 5)
    assert spread(found, (7, 3), "he_normal", "tanh") == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("scheme", ["curvature_normal", "lecun_normal", "orthogonal"])
def test_in_linear_networks_the_limit_is_the_mean_at_any_width(scheme):
    x, widths = inputs(3, 6), (6, 5, 5, 4)
    kernels = curvature.tangent_kernel(drawn(x, widths, scheme, "linear", 4_000)).unflatten(-1, (3, 4))
    mean = kernels.unflatten(-3, (3, 4)).diagonal(dim1=-3, dim2=-1).mean(-1)
    error = mean.std(0) / math.sqrt(len(mean))
    assert ((mean.mean(0) - limit(x, widths, scheme, "linear").theta).abs() < 4 * error + 1e-12).all()


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_wide_networks_approach_the_limit(activation):
    x, widths = inputs(4, 10), (10, 1_000, 1_000, 3)
    kernel = curvature.tangent_kernel(drawn(x, widths, "he_normal", activation, 2)).unflatten(-1, (4, 3))
    mean = kernel.unflatten(-3, (4, 3)).diagonal(dim1=-3, dim2=-1).mean((0, -1))
    theta = limit(x, widths, "he_normal", activation).theta
    assert (mean - theta).abs().max() < 0.06 * theta.abs().max()


def test_the_series_equals_quadrature_in_two_dimensions():
    x = inputs(2, 3)
    covariance = 0.3 * x @ x.mT
    nodes, weights = (torch.as_tensor(a) for a in np.polynomial.hermite_e.hermegauss(120))
    weights = weights / weights.sum()
    a = covariance[0, 0].sqrt() * nodes[:, None]
    rho = covariance[0, 1] / (covariance[0, 0] * covariance[1, 1]).sqrt()
    b = covariance[1, 1].sqrt() * (rho * nodes[:, None] + (1 - rho**2).sqrt() * nodes)
    value, slope = wide_kernel._pair_means(covariance, "tanh")

    def mean(f):
        return (weights[:, None] * weights * f(a) * f(b)).sum()

    torch.testing.assert_close(value[0, 1], mean(torch.tanh), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(slope[0, 1], mean(lambda u: 1 - u.tanh() ** 2), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(value[1, 1], (weights * (covariance[1, 1].sqrt() * nodes).tanh() ** 2).sum())


def test_tanh_on_small_signals_is_linear():
    x = 1e-4 * inputs(3, 5)
    a, b = (limit(x, (5, 20, 20, 2), "xavier_normal", f).theta for f in ("tanh", "linear"))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("scheme", ["xavier_normal", "curvature_normal", "orthogonal"])
@pytest.mark.parametrize("depth", [2, 3, 7])
def test_one_sample_and_square_layers_give_the_closed_form(activation, scheme, depth):
    d = 12
    x = inputs(1, d)
    found = largest_eigenvalue(x / x.norm(), (d,) * (depth + 1), scheme, activation)
    assert found == pytest.approx(predicted_norms.gauss_newton_norm(scheme, depth, d, activation), rel=2e-3)


@pytest.mark.parametrize(
    "scheme, activation", [("lecun_normal", "linear"), ("orthogonal", "relu"), ("he_normal", "relu")]
)
def test_a_narrow_read_out_of_wide_layers(scheme, activation):
    x, widths = inputs(1, 50), (50, 600, 600, 60)
    run = drawn(x, widths, scheme, activation, 4)
    tops = torch.linalg.eigvalsh(curvature.tangent_kernel(run))[:, -1]
    assert float(tops.mean()) == pytest.approx(largest_eigenvalue(x, widths, scheme, activation), rel=0.1)


def test_small_outputs_have_a_tenth_of_the_curvature_under_cross_entropy():
    x = 1e-3 * inputs(3, 5)
    a, b = (largest_eigenvalue(x, (5, 8, 10), "he_normal", "tanh", loss=f) for f in feedforward.LOSSES)
    assert b / a == pytest.approx(0.1, rel=0.01)


@pytest.mark.parametrize("loss", feedforward.LOSSES)
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_lanczos_iteration_finds_the_edge_of_the_tangent_kernel(loss, activation):
    run = drawn(inputs(6, 5), (5, 7, 7, 4), "he_normal", activation, 1).draw(0)
    dense = torch.linalg.eigvalsh(curvature.tangent_kernel(run, loss=loss))[-1]
    assert hessian_products.gauss_newton_norm(run, loss=loss, tol=1e-10) == pytest.approx(float(dense), rel=1e-8)
