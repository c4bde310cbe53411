"""A step of gradient descent on a deep linear network, against automatic differentiation.

The network is the largest of the chapter on full rank, 500·437·375·312·250, in float64, with four samples for each
input. All contestants start at the same weights and must agree on where they end.
"""

import functools

import pytest
import torch

from firststep import inits, linear, linear_tasks

WIDTHS = (500, 437, 375, 312, 250)
STEP_SIZE, STEPS, ROUNDS = 0.05, 20, 3
GROUP = f"{STEPS} steps of descent on {'·'.join(map(str, WIDTHS))}"


@functools.cache
def problem():
    generator = torch.Generator().manual_seed(0)
    task = linear_tasks.linear_task(WIDTHS[0], WIDTHS[-1], 4 * WIDTHS[0], generator=generator, noise=0.1)
    return inits.network(WIDTHS, "xavier_normal", generator=generator), task


def ours():
    weights, task = problem()
    moments = task.moments
    return linear.gradient_descent(weights, moments, step_size=STEP_SIZE, steps=STEPS, every=STEPS).weights


def ours_whitened():
    weights, task = problem()
    moments = linear.Moments.whitened(task.moments.yx)
    return linear.gradient_descent(weights, moments, step_size=STEP_SIZE, steps=STEPS, every=STEPS).weights


def autograd(loss):
    """SGD of torch with gradients from automatic differentiation of ``loss``, a function of the weights."""
    weights = [w.clone().requires_grad_() for w in problem()[0]]
    optimizer = torch.optim.SGD(weights, lr=STEP_SIZE)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss(weights).backward()
        optimizer.step()
    return [w.detach() for w in weights]


def on_the_samples(weights):
    task = problem()[1]
    h = task.x
    for weight in weights:
        h = weight @ h
    return 0.5 * (h - task.y).square().sum()


def on_the_moments(weights):
    task = problem()[1]
    p = torch.linalg.multi_dot(weights[::-1])
    return 0.5 * (p @ task.moments.xx * p).sum() - (p * task.moments.yx).sum()


def on_a_whitened_target(weights):
    return 0.5 * (torch.linalg.multi_dot(weights[::-1]) - problem()[1].moments.yx).square().sum()


CASES = {
    "general data": {
        "firststep": ours,
        "autograd on the samples": functools.partial(autograd, on_the_samples),
        "autograd on the moments": functools.partial(autograd, on_the_moments),
    },
    "whitened data": {
        "firststep": ours_whitened,
        "autograd on the target": functools.partial(autograd, on_a_whitened_target),
    },
}


@pytest.mark.parametrize("kind, label", [(kind, label) for kind, labels in CASES.items() for label in labels])
def test_steps_of_descent(timed, kind, label):
    weights = timed(CASES[kind][label], group=f"{GROUP}, {kind}", label=label, rounds=ROUNDS)
    for found, expected in zip(weights, CASES[kind]["firststep"](), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


RUNS, SMALL = 64, (20, 16, 12)


def batch():
    starts = inits.network(SMALL, "xavier_normal", generator=inits.generators(RUNS))
    target = torch.randn(SMALL[-1], SMALL[0], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return starts, linear.Moments.whitened(target)


def together():
    starts, moments = batch()
    return linear.gradient_descent(starts, moments, step_size=0.05, steps=50, every=50).weights


def one_by_one():
    starts, moments = batch()
    runs = [
        linear.gradient_descent([w[k] for w in starts], moments, step_size=0.05, steps=50, every=50).weights
        for k in range(RUNS)
    ]
    return [torch.stack(layer) for layer in zip(*runs, strict=True)]


@pytest.mark.parametrize("label, function", [("firststep", together), ("one seed after the other", one_by_one)])
def test_many_seeds_at_once(timed, label, function):
    group = f"50 steps of {RUNS} seeds of {'·'.join(map(str, SMALL))}"
    weights = timed(function, group=group, label=label, rounds=8)
    for found, expected in zip(weights, together(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)
