"""Gradient flow: closed forms, conserved quantities, and the limit of gradient descent."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import flow, inits, linear

DOUBLE = {"dtype": torch.float64}


def network(widths, seeds=1, name="xavier_normal"):
    return inits.network(widths, name, generator=inits.generators(seeds))


def whitened(rows, columns, seed=0):
    return linear.Moments.whitened(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed), **DOUBLE))


def test_one_layer_decays_exponentially_to_its_target():
    weights, moments = network((4, 3)), whitened(3, 4)
    run = flow.gradient_flow(weights, moments, [0.0, 0.5, 2.0], rtol=1e-10)
    for time, reached in zip(run.times, run.weights[0], strict=True):
        expected = moments.yx + math.exp(-time) * (weights[0] - moments.yx)
        torch.testing.assert_close(reached, expected, rtol=0, atol=1e-9)


def test_balanced_scalar_pair_follows_the_logistic_solution():
    """With w_1 = w_2 the product p obeys dp/dt = 2p(1 − p), whose solution is logistic (Saxe et al., 2014)."""
    start, times = 0.01, torch.linspace(0, 8, 9, **DOUBLE)
    weights = [torch.full((1, 1), start**0.5, **DOUBLE)] * 2
    run = flow.gradient_flow(weights, linear.Moments.whitened(torch.ones(1, 1, **DOUBLE)), times, rtol=1e-11)
    expected = 1 / (1 + (1 / start - 1) * (-2 * times).exp())
    torch.testing.assert_close(linear.product(run.weights).flatten(), expected, rtol=0, atol=1e-9)


@settings(deadline=None, max_examples=10)
@given(st.lists(st.integers(1, 6), min_size=3, max_size=6), st.integers(0, 99))
def test_gradient_flow_conserves_imbalance(widths, seed):
    weights = inits.network(widths, "xavier_normal", generator=torch.Generator().manual_seed(seed))
    run = flow.gradient_flow(weights, whitened(widths[-1], widths[0], seed), [0.0, 1.0, 4.0])
    for below, above in zip(run.weights, run.weights[1:], strict=False):
        invariant = above.mT @ above - below @ below.mT
        assert (invariant - invariant[0]).abs().max() < 1e-7


def test_gradient_descent_tends_to_the_flow_at_first_order():
    weights, moments = network((4, 5, 3), name="lecun_normal"), whitened(3, 4)
    limit = linear.product([w[-1] for w in flow.gradient_flow(weights, moments, [2.0]).weights])
    steps = [40, 80, 160, 320]
    gaps = []
    for count in steps:
        run = linear.gradient_descent(weights, moments, step_size=2.0 / count, steps=count)
        gaps.append(float((linear.product(run.weights) - limit).abs().max()))
    orders = [math.log2(a / b) for a, b in itertools.pairwise(gaps)]
    assert all(abs(order - 1) < 0.1 for order in orders), orders


def test_a_tighter_tolerance_gives_a_smaller_error():
    weights = [torch.full((1, 1), 0.1, **DOUBLE)] * 2
    moments = linear.Moments.whitened(torch.ones(1, 1, **DOUBLE))
    exact = 1 / (1 + 99 * math.exp(-8))
    errors = []
    for rtol in (1e-4, 1e-7, 1e-10):
        run = flow.gradient_flow(weights, moments, [4.0], rtol=rtol, atol=rtol)
        errors.append(abs(float(linear.product(run.weights)) - exact))
    assert errors[0] > 30 * errors[1] > 900 * errors[2]


def test_a_run_of_a_batch_equals_the_run_alone():
    weights, moments = network((4, 5, 3), seeds=3), whitened(3, 4)
    together = flow.gradient_flow(weights, moments, [0.0, 1.0])
    alone = flow.gradient_flow([w[2] for w in weights], moments, [0.0, 1.0])
    for a, b in zip(together.weights, alone.weights, strict=True):
        assert torch.equal(a[:, 2], b)
    assert together.failed.shape == (3,) and not together.failed.any()


def test_moments_of_each_run_are_its_own():
    weights = network((4, 3), seeds=2)
    targets = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5), **DOUBLE)
    run = flow.gradient_flow(weights, linear.Moments.whitened(targets), [30.0])
    torch.testing.assert_close(run.weights[0][-1], targets, rtol=0, atol=1e-8)


def test_time_zero_alone_returns_the_start():
    weights, moments = network((4, 5, 3)), whitened(3, 4)
    run = flow.gradient_flow(weights, moments, [0.0])
    assert torch.equal(run.weights[0][0], weights[0]) and run.evaluations.tolist() == [0]


def test_a_solver_that_gives_up_is_flagged(monkeypatch):
    real = flow.solve_ivp

    def gives_up(function, span, start, **kwargs):
        solution = real(function, (span[0], 1.0), start, **{**kwargs, "t_eval": [0.5, 1.0]})
        solution.success = False
        return solution

    monkeypatch.setattr(flow, "solve_ivp", gives_up)
    run = flow.gradient_flow(network((4, 5, 3)), whitened(3, 4), [0.5, 1.0, 9.0])
    assert run.failed.all()
    assert run.weights[0][:2].isfinite().all() and run.weights[0][2].isnan().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": []}, "times must be finite, increasing and non-negative"),
        ({"times": [0.0, 2.0, 1.0]}, "times must be finite, increasing and non-negative"),
        ({"times": [-1.0, 1.0]}, "times must be finite, increasing and non-negative"),
        ({"times": [0.0, math.inf]}, "times must be finite, increasing and non-negative"),
        ({"rtol": 0.0}, "rtol must be a number above 2.3e-14, got rtol=0.0"),
        ({"atol": -1e-9}, "atol must be a positive number, got atol=-1e-09"),
        (
            {"weights": [torch.ones(2, 2)], "moments": linear.Moments.whitened(torch.eye(2))},
            "weights must be of dtype float64",
        ),
        ({"weights": [torch.full((2, 2), math.nan, **DOUBLE)]}, "must have finite entries only"),
        ({"weights": [torch.ones(3, 2, **DOUBLE), torch.ones(2, 2, **DOUBLE)]}, "must chain"),
        ({"moments": linear.Moments.whitened(torch.ones(3, 2, **DOUBLE))}, "moments must fit the network"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {
        "weights": [torch.eye(2, **DOUBLE)],
        "moments": linear.Moments.whitened(torch.eye(2, **DOUBLE)),
        "times": [0.0, 1.0],
    }
    with pytest.raises(ValueError, match=message):
        flow.gradient_flow(**{**good, **arguments})
