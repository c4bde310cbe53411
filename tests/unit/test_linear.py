"""Deep linear networks against automatic differentiation on the samples, dense algebra, and limits."""

import itertools
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firststep import inits, linear, linear_tasks, spectra
from firststep.linear import Moments

F64 = torch.float64
seeds = st.integers(0, 10_000)
widths = st.lists(st.integers(1, 6), min_size=2, max_size=5)
batches = st.sampled_from([(), (1,), (3,), (2, 3)])
few = settings(max_examples=40)


def seed(number):
    return torch.Generator().manual_seed(number)


def randn(*shape, number=0):
    return torch.randn(*shape, generator=seed(number), dtype=F64)


def network(widths, number, runs=()):
    """Gaussian weights of spectral norm about one."""
    generator = seed(number)
    shapes = itertools.pairwise(widths)
    return [torch.randn(*runs, o, i, generator=generator, dtype=F64) / (i + o) ** 0.5 for i, o in shapes]


def samples(widths, number, runs=(), n=5):
    return randn(*runs, widths[0], n, number=number + 1), randn(*runs, widths[-1], n, number=number + 2)


def dense_product(weights):
    result = weights[0]
    for weight in weights[1:]:
        result = weight @ result
    return result


def squared_error(weights, x, y):
    """The loss by its definition, on the samples."""
    return 0.5 * (dense_product(weights) @ x - y).square().sum((-2, -1))


def close(actual, expected, **tolerance):
    tolerance = tolerance or {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=F64), **tolerance)


# Product, loss, gradient


@few
@given(widths=widths, runs=batches, number=seeds)
def test_the_product_is_the_same_from_either_end(widths, runs, number):
    weights = network(widths, number, runs)
    product = linear.product(weights)
    assert product.shape == (*runs, widths[-1], widths[0])
    close(product, dense_product(weights))
    close(linear.product([w.mT for w in reversed(weights)]).mT, product)


@few
@given(widths=widths, runs=batches, number=seeds)
def test_the_loss_from_the_moments_is_that_on_the_samples(widths, runs, number):
    weights, (x, y) = network(widths, number, runs), samples(widths, number, runs)
    close(linear.loss(weights, Moments.of(x, y)), squared_error(weights, x, y))


@few
@given(widths=widths, runs=batches, number=seeds, n=st.integers(1, 8))
def test_the_gradient_is_that_of_automatic_differentiation(widths, runs, number, n):
    weights, (x, y) = network(widths, number, runs), samples(widths, number, n=n)
    leaves = [w.clone().requires_grad_() for w in weights]
    expected = torch.autograd.grad(squared_error(leaves, x, y).sum(), leaves)
    for found, wanted in zip(linear.gradient(weights, Moments.of(x, y)), expected, strict=True):
        close(found, wanted)


@few
@given(widths=widths, runs=batches, number=seeds)
def test_whitened_moments_equal_those_with_an_explicit_identity(widths, runs, number):
    weights, target = network(widths, number, runs), randn(widths[-1], widths[0], number=number + 3)
    implicit = Moments.whitened(target)
    explicit = Moments(torch.eye(widths[0], dtype=F64), target, target.square().sum())
    assert implicit.xx is None
    for function in (linear.loss, linear.excess_loss):
        close(function(weights, implicit), function(weights, explicit))
    for a, b in zip(linear.gradient(weights, implicit), linear.gradient(weights, explicit), strict=True):
        close(a, b)
    close(linear.loss(weights, implicit), 0.5 * (dense_product(weights) - target).square().sum((-2, -1)))


@few
@given(widths=widths, number=seeds, n=st.integers(1, 12))
def test_the_solution_minimizes_the_loss_with_least_norm(widths, number, n):
    x, y = samples(widths, number, n=n)
    close(Moments.of(x, y).solution(), y @ torch.linalg.pinv(x), rtol=1e-5, atol=1e-6)


@few
@given(widths=widths, runs=batches, number=seeds, n=st.integers(1, 12))
def test_excess_loss_is_the_loss_above_its_minimum(widths, runs, number, n):
    weights, (x, y) = network(widths, number, runs), samples(widths, number, n=n)
    minimum = 0.5 * (y @ torch.linalg.pinv(x) @ x - y).square().sum()
    moments = Moments.of(x, y)
    assume(torch.linalg.cond(x) < 100)  # else the pseudo-inverses differ by more than the tolerance
    close(linear.excess_loss(weights, moments), squared_error(weights, x, y) - minimum, rtol=1e-7, atol=1e-7)


@given(widths=widths, number=seeds, n=st.integers(1, 6), away=st.floats(0, 10))
def test_excess_loss_is_never_negative_even_where_the_data_leave_directions_free(widths, number, n, away):
    x, y = samples(widths, number, n=n)
    moments = Moments.of(x, y)
    unseen = torch.eye(widths[0], dtype=F64) - x @ torch.linalg.pinv(x)
    p = moments.solution() + away * randn(widths[-1], widths[0], number=number) @ unseen
    assert 0 <= linear.excess_loss([p], moments) < 1e-8


def test_excess_loss_keeps_its_digits_where_the_difference_of_losses_has_none():
    moments = Moments.whitened(torch.eye(3, dtype=F64))
    weights = [torch.eye(3, dtype=F64) * (1 + 1e-12)]
    close(linear.excess_loss(weights, moments), 1.5e-24, rtol=1e-3, atol=0)
    assert abs(float(linear.loss(weights, moments)) - 1.5e-24) > 1e-24


@few
@given(width=st.integers(1, 6), depth=st.integers(1, 4), d_out=st.integers(1, 6), number=seeds)
def test_the_gradient_vanishes_where_the_product_is_the_least_squares_solution(width, depth, d_out, number):
    x, y = samples((width, d_out), number, n=20)
    moments = Moments.of(x, y)
    square = network((width,) * depth, number) if depth > 1 else []
    product = dense_product(square) if square else torch.eye(width, dtype=F64)
    assume(torch.linalg.cond(product) < 1e4)
    weights = [*square, torch.linalg.solve(product, moments.solution(), left=False)]
    close(dense_product(weights), moments.solution(), rtol=1e-8, atol=1e-8)
    assert max(float(g.abs().max()) for g in linear.gradient(weights, moments)) < 1e-7
    assert linear.excess_loss(weights, moments) < 1e-12


# Gradient descent


@few
@given(widths=widths, runs=batches, number=seeds, step_size=st.floats(1e-3, 0.1))
def test_one_step_subtracts_the_gradient_times_the_step_size(widths, runs, number, step_size):
    weights, moments = network(widths, number, runs), Moments.of(*samples(widths, number))
    before = [w.clone() for w in weights]
    run = linear.gradient_descent(weights, moments, step_size=step_size, steps=1)
    for start, end, gradient in zip(before, run.weights, linear.gradient(before, moments), strict=True):
        close(end, start - step_size * gradient)
    assert all(torch.equal(a, b) for a, b in zip(weights, before, strict=True))  # the start is not changed


@few
@given(d_in=st.integers(1, 5), d_out=st.integers(1, 5), number=seeds, steps=st.integers(0, 60))
def test_one_layer_follows_the_closed_form_of_a_quadratic(d_in, d_out, number, steps):
    (start,), (x, y) = network((d_in, d_out), number), samples((d_in, d_out), number, n=12)
    moments = Moments.of(x, y)
    step_size = float(1 / torch.linalg.matrix_norm(moments.xx, ord=2))
    end = linear.gradient_descent([start], moments, step_size=step_size, steps=steps).weights[0]
    contraction = torch.linalg.matrix_power(torch.eye(d_in, dtype=F64) - step_size * moments.xx, steps)
    close(end, moments.solution() + (start - moments.solution()) @ contraction, rtol=1e-7, atol=1e-8)


@few
@given(widths=widths, number=seeds, step_sizes=st.lists(st.floats(1e-3, 0.05), min_size=1, max_size=4))
def test_a_batch_of_step_sizes_equals_one_run_for_each(widths, number, step_sizes):
    weights, moments = network(widths, number), Moments.of(*samples(widths, number))
    measure = {"loss": lambda w: linear.loss(w, moments)}
    sweep = linear.gradient_descent(
        weights, moments, step_size=torch.tensor(step_sizes, dtype=F64), steps=7, measure=measure
    )
    assert sweep["loss"].shape == (8, len(step_sizes))
    for k, step_size in enumerate(step_sizes):
        alone = linear.gradient_descent(weights, moments, step_size=step_size, steps=7, measure=measure)
        close(sweep["loss"][:, k], alone["loss"])
        for many, one in zip(sweep.weights, alone.weights, strict=True):
            close(many[k], one)


def test_seeds_times_step_sizes_is_a_grid_of_runs():
    starts = inits.network((4, 3, 2), "xavier_normal", generator=inits.generators(5))
    moments = Moments.whitened(randn(2, 4))
    eta = torch.tensor([0.01, 0.1], dtype=F64)
    run = linear.gradient_descent(starts, moments, step_size=eta[:, None], steps=3, measure={"p": linear.product})
    assert run["p"].shape == (4, 2, 5, 2, 4)
    one = linear.gradient_descent([w[3] for w in starts], moments, step_size=0.1, steps=3)
    close(run["p"][-1, 1, 3], linear.product(one.weights))


@few
@given(widths=widths, number=seeds)
def test_every_run_may_have_its_own_data(widths, number):
    weights, (x, y) = network(widths, number), samples(widths, number, (3,))
    run = linear.gradient_descent(weights, Moments.of(x, y), step_size=0.01, steps=4)
    for k in range(3):
        alone = linear.gradient_descent(weights, Moments.of(x[k], y[k]), step_size=0.01, steps=4)
        for many, one in zip(run.weights, alone.weights, strict=True):
            close(many[k], one)


def test_runs_may_share_targets_and_differ_in_inputs_alone():
    xx = torch.stack([torch.eye(3, dtype=F64), 2 * torch.eye(3, dtype=F64)])
    moments = Moments(xx, randn(2, 3), torch.tensor(1.0, dtype=F64))
    run = linear.gradient_descent(network((3, 2), 0), moments, step_size=0.1, steps=2)
    assert run.weights[0].shape == (2, 2, 3)
    assert run.diverged.shape == (2,)


@few
@given(widths=widths, number=seeds)
def test_halving_the_step_and_doubling_the_steps_halves_the_distance_to_the_flow(widths, number):
    weights, moments = network(widths, number), Moments.whitened(randn(widths[-1], widths[0], number=number + 1))
    ends = []
    for halvings in (0, 1, 2):
        run = linear.gradient_descent(weights, moments, step_size=0.01 / 2**halvings, steps=32 * 2**halvings)
        ends.append(torch.cat([w.flatten() for w in run.weights]))
    first, second = (ends[0] - ends[1]).norm(), (ends[1] - ends[2]).norm()
    assume(first > 1e-8)
    assert 1.8 < first / second < 2.25


@few
@given(widths=st.lists(st.integers(1, 5), min_size=3, max_size=4), number=seeds)
def test_small_steps_conserve_the_imbalance_to_second_order(widths, number):
    # Gradient flow conserves W_l W_lᵀ − W_{l+1}ᵀ W_{l+1}; each step of descent moves it by η² times squared gradients.
    weights, moments = network(widths, number), Moments.whitened(randn(widths[-1], widths[0], number=number + 1))
    run = linear.gradient_descent(weights, moments, step_size=0.01, steps=1)
    gradients = linear.gradient(weights, moments)
    for (below, above), (b, a), (g, h) in zip(
        *(itertools.pairwise(layers) for layers in (weights, run.weights, gradients)), strict=True
    ):
        moved = (b @ b.mT - a.mT @ a) - (below @ below.mT - above.mT @ above)
        close(moved, 0.01**2 * (g @ g.mT - h.mT @ h), rtol=1e-6, atol=1e-12)


def test_descent_from_a_full_rank_start_reaches_the_least_squares_solution():
    x, y = samples((5, 3), 0, n=30)
    task = Moments.of(x / 30**0.5, y / 30**0.5)
    start = inits.network((5, 6, 4, 3), "xavier_normal", generator=seed(1))
    run = linear.gradient_descent(start, task, step_size=0.2, steps=3_000, every=3_000)
    close(linear.product(run.weights), task.solution(), rtol=1e-7, atol=1e-8)


# Divergence


def scalar(*values):
    return torch.tensor(values, dtype=F64).reshape(-1, 1, 1)


def test_a_run_that_diverges_is_flagged_and_the_others_go_on():
    moments = Moments.whitened(torch.ones(1, 1, dtype=F64))
    weights = [scalar(1.0, 1.0, 50.0), scalar(0.5, 0.5, 50.0)]
    eta = torch.tensor([0.1, 0.2, 1.0], dtype=F64)
    measure = {"loss": lambda w: linear.loss(w, moments), "rank": lambda w: spectra.numerical_rank(linear.product(w))}
    run = linear.gradient_descent(weights, moments, step_size=eta, steps=12, measure=measure)
    assert run.diverged.tolist() == [False, False, True]
    at = int(run.diverged_at[2])
    assert 0 < at < 12
    assert not run["loss"][:at, 2].isnan().any() and run["loss"][at:, 2].isnan().all()
    assert (run["rank"][:at, 2] == 1).all() and (run["rank"][at:, 2] == -1).all()
    for k in (0, 1):
        alone = linear.gradient_descent(
            [w[k] for w in weights], moments, step_size=float(eta[k]), steps=12, measure=measure
        )
        assert torch.equal(run["loss"][:, k], alone["loss"])
        assert torch.equal(run["rank"][:, k], alone["rank"])


def test_finite_factors_whose_product_overflows_count_as_diverged():
    moments = Moments.whitened(torch.eye(2, dtype=F64))
    weights = [50 * torch.eye(2, dtype=F64)] * 3
    rank = {"rank": lambda w: spectra.numerical_rank(linear.product(w))}
    run = linear.gradient_descent(weights, moments, step_size=1.0, steps=9, measure=rank)
    assert run.diverged
    assert run["rank"][-1] == -1


def test_a_sweep_in_which_all_diverge_ends_at_the_step_where_the_last_one_did():
    moments = Moments.whitened(torch.ones(1, 1, dtype=F64))
    run = linear.gradient_descent(
        [scalar(9.0, 99.0), scalar(9.0, 99.0)], moments, step_size=1.0, steps=1_000, measure={"p": linear.product}
    )
    assert run.diverged.all()
    assert len(run.steps) == len(run["p"]) == int(run.diverged_at.max()) + 1


def test_divergence_after_the_last_measurement_is_flagged_at_the_last_step():
    moments = Moments.whitened(torch.ones(1, 1, dtype=F64))
    run = linear.gradient_descent([scalar(9.0)[0]] * 2, moments, step_size=1.0, steps=30, every=[0, 1])
    assert run.diverged_at == 30


def test_a_run_that_converges_is_not_flagged():
    run = linear.gradient_descent(network((3, 3), 0), Moments.whitened(randn(3, 3)), step_size=0.5, steps=50)
    assert run.diverged_at == -1
    assert not run.diverged


# Measuring


@given(steps=st.integers(0, 30), every=st.integers(1, 40))
def test_measuring_every_k_steps_includes_the_start_and_the_end(steps, every):
    moments = Moments.whitened(torch.zeros(1, 1, dtype=F64))
    run = linear.gradient_descent(
        [scalar(1.0)[0]], moments, step_size=0.5, steps=steps, every=every, measure={"w": lambda w: w[0]}
    )
    expected = sorted({*range(0, steps, every), steps})
    assert run.steps.tolist() == expected
    close(run["w"].flatten(), [0.5**t for t in expected])  # W ← W − W/2, exactly


@given(data=st.data(), steps=st.integers(0, 20))
def test_measuring_at_given_iterations_measures_there_and_nowhere_else(data, steps):
    due = data.draw(st.lists(st.integers(0, steps), min_size=1, max_size=8))
    moments = Moments.whitened(torch.zeros(1, 1, dtype=F64))
    run = linear.gradient_descent(
        [scalar(1.0)[0]], moments, step_size=0.5, steps=steps, every=due, measure={"w": lambda w: w[0]}
    )
    assert run.steps.tolist() == sorted(set(due))
    close(run["w"].flatten(), [0.5**t for t in sorted(set(due))])


def test_no_steps_measure_the_start():
    weights, moments = network((3, 2), 0), Moments.whitened(randn(2, 3))
    run = linear.gradient_descent(weights, moments, step_size=0.1, steps=0, measure={"p": linear.product})
    assert torch.equal(run["p"][0], weights[0])
    assert torch.equal(run.weights[0], weights[0])


def test_a_history_does_not_change_when_descent_goes_on():
    run = linear.gradient_descent(
        [scalar(1.0)[0]], Moments.whitened(torch.zeros(1, 1, dtype=F64)), step_size=0.5, steps=3,
        measure={"alias": lambda w: w[0]},
    )  # fmt: skip
    assert run["alias"].flatten().tolist() == [1.0, 0.5, 0.25, 0.125]


def test_the_loss_falls_at_every_step_that_is_small_enough():
    moments = Moments.whitened(randn(3, 5))
    starts = inits.network((5, 4, 4, 3), "xavier_normal", generator=inits.generators(8))
    run = linear.gradient_descent(
        starts, moments, step_size=0.01, steps=200, measure={"loss": lambda w: linear.loss(w, moments)}
    )
    assert (run["loss"].diff(dim=0) < 0).all()


def test_the_constraint_is_applied_after_every_step():
    seen = []

    def halve(weights):
        seen.append(1)
        return [w / 2 for w in weights]

    moments = Moments.whitened(torch.zeros(1, 1, dtype=F64))
    run = linear.gradient_descent([scalar(1.0)[0]], moments, step_size=0.5, steps=3, constrain=halve)
    assert len(seen) == 3
    assert run.weights[0] == 0.25**3


# What descent can reach


@few
@given(widths=widths, rank=st.integers(1, 6), number=seeds, aligned=st.booleans())
def test_factors_of_rank_r_reach_twice_r_in_general_position_and_r_if_aligned(widths, rank, number, aligned):
    r = min(rank, *widths)
    weights = inits.prescribed_rank(widths, r, aligned=aligned, generator=seed(number))
    hidden = len(widths) > 2
    reach = min(*widths, r if aligned else 2 * r) if hidden else min(widths)
    assert linear.reachable_rank(weights, rtol=1e-9) == reach


@few
@given(widths=widths, number=seeds)
def test_without_a_deficient_factor_the_narrowest_layer_alone_limits_the_rank(widths, number):
    weights = inits.network(widths, "orthogonal", generator=seed(number))
    assert linear.reachable_rank(weights, rtol=1e-9) == min(widths)


def test_reachable_rank_treats_every_run_by_itself_and_lets_factors_be_shared():
    deficient = inits.prescribed_rank((6, 5, 4), 1, aligned=False, generator=seed(0))
    full = inits.network((6, 5, 4), "orthogonal", generator=seed(0))
    both = [torch.stack(pair) for pair in zip(deficient, full, strict=True)]
    assert linear.reachable_rank(both, rtol=1e-9).tolist() == [2, 4]
    assert linear.reachable_rank([both[0], full[1]], rtol=1e-9).tolist() == [4, 4]


@few
@given(widths=st.lists(st.integers(1, 6), min_size=3, max_size=4), number=seeds, aligned=st.booleans(), data=st.data())
def test_descent_never_exceeds_the_reachable_rank(widths, number, aligned, data):
    ranks = [data.draw(st.integers(1, min(pair))) for pair in itertools.pairwise(widths)]
    start = inits.prescribed_rank(widths, ranks, aligned=aligned, generator=seed(number))
    bound = linear.reachable_rank(start, rtol=1e-9)
    measure = {"rank": lambda w: spectra.numerical_rank(linear.product(w), 1e-10)}
    run = linear.gradient_descent(
        [w / 2 for w in start], Moments.whitened(randn(widths[-1], widths[0], number=number)), step_size=0.02, steps=20,
        measure=measure,
    )  # fmt: skip
    assert (run["rank"] <= bound).all()


@few
@given(widths=widths, number=seeds, aligned=st.booleans(), data=st.data())
def test_the_projection_is_idempotent_and_leaves_its_start_alone(widths, number, aligned, data):
    ranks = [data.draw(st.integers(0, min(pair))) for pair in itertools.pairwise(widths)]
    start = inits.prescribed_rank(widths, ranks, aligned=aligned, generator=seed(number))
    project = linear.project_onto_reachable(start, rtol=1e-9)
    for kept, weight in zip(project(start), start, strict=True):
        close(kept, weight)
    once = project(network(widths, number))
    for a, b in zip(once, project(once), strict=True):
        close(a, b)
    assert linear.reachable_rank(once, rtol=1e-9) <= linear.reachable_rank(start, rtol=1e-9)


def test_projected_steps_stay_on_the_plateau_that_round_off_leaves():
    data_ = linear_tasks.linear_task(20, 10, 40, generator=seed(0), whitened=True)
    start = [w / 2 for w in inits.prescribed_rank((20, 15, 10), 2, aligned=False, generator=seed(1))]
    moments = Moments.whitened(data_.moments.yx)
    run = {"step_size": 0.1, "steps": 1_500, "measure": {"p": linear.product}, "every": 1_500}
    free = linear.gradient_descent(start, moments, **run)
    held = linear.gradient_descent(start, moments, **run, constrain=linear.project_onto_reachable(start, rtol=1e-9))
    assert linear.reachable_rank(start, rtol=1e-9) == 4
    assert spectra.numerical_rank(held["p"][-1]) == 4 < spectra.numerical_rank(free["p"][-1])


def test_the_projection_takes_the_dtype_of_what_it_projects_and_batches_of_it():
    start = inits.prescribed_rank((5, 4, 3), 1, aligned=True, generator=seed(0))
    project = linear.project_onto_reachable(start, rtol=1e-9)
    single = project([w.float() for w in start])
    assert {w.dtype for w in single} == {torch.float32}
    batch = project([torch.stack([w, 2 * w]) for w in start])
    for many, one in zip(batch, start, strict=True):
        close(many[1], 2 * one)


def test_the_plateau_of_one_layer_is_its_smaller_side():
    assert linear.reachable_rank([torch.zeros(3, 5, dtype=F64)]) == 3
    assert not math.isnan(float(linear.excess_loss([torch.zeros(3, 5, dtype=F64)], Moments.whitened(randn(3, 5)))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_keeps_the_dtype_of_its_start(dtype):
    weights = [w.to(dtype) for w in network((4, 3, 2), 0)]
    moments = Moments.whitened(randn(2, 4).to(dtype))
    run = linear.gradient_descent(weights, moments, step_size=0.1, steps=2, measure={"p": linear.product})
    assert {w.dtype for w in run.weights} == {run["p"].dtype} == {dtype}


def test_a_cadence_never_lists_its_iterations():
    due = linear._cadence(3, 2**40)
    assert due(0) and due(2**40) and due(3 * 2**30) and not due(3 * 2**30 + 1)


# The scale of the curvature


@given(w1=st.floats(-2, 2), w2=st.floats(-2, 2), target=st.floats(-2, 2), xx=st.floats(0.1, 3))
def test_the_curvature_scale_of_two_scalars_is_the_trace_at_the_start_plus_that_at_a_balanced_minimum(
    w1, w2, target, xx
):
    one = torch.ones(1, 1, dtype=F64)
    moments = Moments(xx * one, xx * target * one, torch.tensor(9.0, dtype=F64))
    found = float(linear.curvature_scale([w1 * one, w2 * one], moments))
    assert math.isclose(found, xx * (w1**2 + w2**2 + 2 * abs(target)), rel_tol=1e-12)


@few
@given(widths=widths, number=seeds)
def test_at_a_minimum_the_curvature_scale_bounds_the_hessian(widths, number):
    weights = network(widths, number)
    moments = Moments.whitened(linear.product(weights))
    sizes = [w.numel() for w in weights]

    def loss(flat):
        parts = [part.reshape(w.shape) for part, w in zip(flat.split(sizes), weights, strict=True)]
        return linear.loss(parts, moments)

    flat = torch.cat([w.flatten() for w in weights])
    hessian = torch.autograd.functional.hessian(loss, flat)
    assert torch.linalg.matrix_norm(hessian, ord=2) <= linear.curvature_scale(weights, moments) * (1 + 1e-9)


def test_the_curvature_scale_of_a_batch_is_that_of_each_run():
    weights = network([4, 3, 2], 0, runs=(3,))
    moments = Moments.of(*samples([4, 3, 2], 0, runs=(3,)))
    found = linear.curvature_scale(weights, moments)
    for i in range(3):
        one = Moments(moments.xx[i], moments.yx[i], moments.yy[i])
        assert torch.allclose(found[i], linear.curvature_scale([w[i] for w in weights], one), rtol=1e-12)
