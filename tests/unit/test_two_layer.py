"""Two-layer networks in the SVD coordinates of the data, against the problem as it was posed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import linear, two_layer
from firststep.two_layer import Problem

DOUBLE = {"dtype": torch.float64}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def data(inputs, outputs, samples, rank=None, seed=0):
    g = generator(seed)
    rank = rank or min(inputs, samples)
    x = torch.randn(inputs, rank, generator=g, **DOUBLE) @ torch.randn(rank, samples, generator=g, **DOUBLE)
    return x / x.norm(), torch.randn(outputs, samples, generator=g, **DOUBLE)


def start(inputs, hidden, outputs, seed=0):
    return two_layer.gaussian_start((inputs, hidden, outputs), 0.5, 0.5, generator=generator(seed))


sizes = st.tuples(st.integers(1, 8), st.integers(1, 12), st.integers(1, 4), st.integers(1, 8))
problems = settings(deadline=None, max_examples=30)


@problems
@given(sizes, st.integers(0, 10**6))
def test_reduced_loss_equals_the_loss(shape, seed):
    inputs, hidden, outputs, samples = shape
    x, y = data(inputs, outputs, samples, seed=seed)
    weights, problem = start(inputs, hidden, outputs, seed), Problem.of(x, y)
    split = problem.split(weights)
    direct = 0.5 * (weights[1] @ weights[0] @ x - y).square().sum()
    torch.testing.assert_close(linear.loss(split.weights, problem.moments), direct, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(problem.best_loss + problem.excess_loss(split.weights), direct, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rank", [1, 4, 6])
def test_reduced_descent_equals_the_descent_step_for_step(rank):
    x, y = data(9, 3, 6, rank)
    weights, problem, plain = start(9, 20, 3), Problem.of(x, y), linear.Moments.of(x, y)
    split = problem.split(weights)
    for steps in (1, 10, 200):
        full = linear.gradient_descent(weights, plain, step_size=0.1, steps=steps)
        reduced = linear.gradient_descent(split.weights, problem.moments, step_size=0.1, steps=steps)
        joined = problem.join(two_layer.Split(*reduced.weights, split.unseen))
        for a, b in zip(full.weights, joined, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def test_splitting_and_joining_are_inverse():
    x, y = data(9, 3, 6)
    weights, problem = start(9, 5, 3), Problem.of(x, y)
    for a, b in zip(problem.join(problem.split(weights)), weights, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("inputs", "samples", "rank"), [(9, 6, 6), (6, 9, 6), (9, 6, 3)])
def test_min_norm_solution_is_that_of_the_pseudoinverse(inputs, samples, rank):
    x, y = data(inputs, 3, samples, rank)
    problem = Problem.of(x, y)
    torch.testing.assert_close(problem.min_norm(), y @ torch.linalg.pinv(x, rtol=1e-10))
    residual = y - problem.min_norm() @ x
    torch.testing.assert_close(problem.best_loss, 0.5 * residual.square().sum())


def test_distance_is_the_spectral_norm_of_the_difference():
    x, y = data(9, 3, 6)
    weights, problem = start(9, 5, 3), Problem.of(x, y)
    split = problem.split(weights)
    expected = torch.linalg.matrix_norm(weights[1] @ weights[0] - y @ torch.linalg.pinv(x), ord=2)
    torch.testing.assert_close(problem.distance(split.weights, split.unseen), expected)


def test_a_batch_of_problems_equals_the_problems_one_by_one():
    pairs = [data(9, 3, 6, seed=k) for k in range(3)]
    batch = Problem.of(torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs]))
    for k, (x, y) in enumerate(pairs):
        torch.testing.assert_close(batch.min_norm()[k], Problem.of(x, y).min_norm())


def test_compressed_network_trains_like_the_wide_one():
    x, y = data(9, 2, 6)
    problem = Problem.of(x, y)
    wide = problem.split(start(9, 500, 2))
    narrow = two_layer.compress(wide)
    assert narrow.inner.shape == (8, 6)
    runs = []
    for split in (wide, narrow):
        runs.append(linear.gradient_descent(split.weights, problem.moments, step_size=0.02, steps=100).weights)
    torch.testing.assert_close(linear.product(runs[0]), linear.product(runs[1]), rtol=0, atol=1e-12)
    distances = [problem.distance(run, s.unseen) for run, s in zip(runs, (wide, narrow), strict=True)]
    torch.testing.assert_close(*distances, rtol=0, atol=1e-12)
    torch.testing.assert_close(two_layer.level(wide.weights), two_layer.level(narrow.weights))


@problems
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 12), st.integers(0, 10**6))
def test_level_is_that_of_the_dense_eigenvalues(r, m, extra, seed):
    h = max(r, m) + extra
    inner, outer = start(r, h, m, seed)
    eigenvalues = torch.linalg.eigvalsh(two_layer.imbalance([inner, outer])).flip(0)  # decreasing
    expected = eigenvalues[r - 1].clamp(min=0) + (-eigenvalues[h - m]).clamp(min=0)
    torch.testing.assert_close(two_layer.level([inner, outer]), expected, rtol=1e-9, atol=1e-12)


@problems
@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 9), st.sampled_from(two_layer.SIDES), st.integers(0, 10**6))
def test_start_of_level_has_its_product_and_its_level(m, r, c, heavy, seed):
    product = torch.randn(m, r, generator=generator(seed), **DOUBLE)
    weights = two_layer.start_of_level(product, c, m + r, heavy=heavy, generator=generator(seed))
    torch.testing.assert_close(linear.product(weights), product, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(two_layer.level(weights), torch.tensor(c, **DOUBLE), rtol=1e-9, atol=1e-9)
    if c == 0:
        torch.testing.assert_close(two_layer.imbalance(weights), torch.zeros(m + r, m + r, **DOUBLE), rtol=0, atol=1e-9)


def test_scalar_start_of_level_zero_and_product_zero_is_the_origin():
    weights = two_layer.start_of_level(torch.zeros(1, 1, **DOUBLE), 0.0, 1, generator=generator())
    assert [w.item() for w in weights] == [0.0, 0.0]


def test_orthogonal_start_stays_orthogonal_and_ends_at_the_min_norm_solution():
    x, y = data(12, 2, 6)
    problem = Problem.of(x, y)
    split = two_layer.orthogonalize(problem.split(start(12, 30, 2)))
    assert (split.outer @ split.unseen).abs().max() < 1e-14
    assert (split.inner.mT @ split.unseen).abs().max() < 1e-14
    assert split.unseen.norm() > 1
    end = linear.gradient_descent(split.weights, problem.moments, step_size=0.2, steps=20_000).weights
    assert problem.excess_loss(end) < 1e-20
    assert problem.distance(end, split.unseen) < 1e-10


@pytest.mark.parametrize("kept", two_layer.SIDES)
def test_either_condition_alone_does_not_give_the_min_norm_solution(kept):
    x, y = data(12, 2, 6)
    problem = Problem.of(x, y)
    split = two_layer.orthogonalize(problem.split(start(12, 30, 2)), [kept])
    end = linear.gradient_descent(split.weights, problem.moments, step_size=0.2, steps=20_000).weights
    assert problem.excess_loss(end) < 1e-20
    assert problem.distance(end, split.unseen) > 0.05


def test_the_recap_variant_makes_the_layers_orthogonal_to_each_other():
    split = two_layer.outer_off_inner(Problem.of(*data(12, 2, 6)).split(start(12, 30, 2)))
    assert (split.outer @ split.inner).abs().max() < 1e-14 and split.outer.norm() > 1


def test_seed_three_of_a_batch_equals_seed_three_alone():
    generators = [generator(k) for k in range(4)]
    batch = two_layer.gaussian_start((5, 4, 3), 1.0, 2.0, generator=generators)
    alone = two_layer.gaussian_start((5, 4, 3), 1.0, 2.0, generator=generator(3))
    for a, b in zip(batch, alone, strict=True):
        assert torch.equal(a[3], b)


def test_a_descent_that_diverges_is_flagged():
    x, y = data(9, 3, 6)
    problem = Problem.of(x, y)
    split = problem.split(start(9, 20, 3))
    run = linear.gradient_descent(
        split.weights, problem.moments, step_size=50.0, steps=60, measure={"excess": problem.excess_loss}
    )
    assert run.diverged and 0 < run.diverged_at <= 60 and run["excess"][-1].isnan()


X, Y = data(9, 3, 6)
PROBLEM = Problem.of(X, Y)
RANDOM = generator()
RANK_ONE = X[:, :1].expand(9, 6)
BAD = [
    (lambda: Problem.of(X, Y[:, :5]), "one column a sample"),
    (lambda: Problem.of(X * math.nan, Y), "x must have finite entries only"),
    (lambda: Problem.of(0 * X, Y), "x must be of positive rank"),
    (lambda: Problem.of(torch.stack([X, RANK_ONE]), torch.stack([Y, Y])), "of one rank throughout"),
    (lambda: PROBLEM.split(start(8, 5, 3)), "weights must be .* with 9 inputs and 3 outputs"),
    (lambda: PROBLEM.split([torch.ones(3, 9, **DOUBLE)]), "weights must be"),
    (lambda: two_layer.level(start(5, 4, 2)), r"hidden width of at least max\(r, m\) = max\(5, 2\)"),
    (lambda: two_layer.level(start(2, 3, 4)), r"hidden width of at least max\(r, m\) = max\(2, 4\)"),
    (lambda: two_layer.imbalance([torch.ones(2, 2, **DOUBLE)]), "weights must be 2 layers"),
    (lambda: two_layer.gaussian_start((5, 4), 1.0, 1.0, generator=RANDOM), "widths must be three positive"),
    (lambda: two_layer.gaussian_start((5, 0, 4), 1.0, 1.0, generator=RANDOM), "widths must be"),
    (lambda: two_layer.gaussian_start((5, 4, 3), 0.0, 1.0, generator=RANDOM), "std_inner must be a positive"),
    (lambda: two_layer.gaussian_start((5, 4, 3), 1.0, math.inf, generator=RANDOM), "std_outer must be a positive"),
    (lambda: two_layer.start_of_level(Y, -1.0, 9, generator=RANDOM), "c must be .* at least 0, got c=-1.0"),
    (lambda: two_layer.start_of_level(Y, 1.0, 2, generator=RANDOM), "hidden must be at least 3, .* got hidden=2"),
    (lambda: two_layer.start_of_level(Y, 1.0, 5, heavy="inner", generator=RANDOM), "hidden must be at least 6"),
    (lambda: two_layer.start_of_level(Y, 1.0, 9, heavy="both", generator=RANDOM), "heavy must be one of inner"),
    (lambda: two_layer.orthogonalize(PROBLEM.split(start(9, 9, 3))), "hidden width above 9"),
    (lambda: two_layer.orthogonalize(PROBLEM.split(start(9, 20, 3)), []), "against must be a non-empty"),
    (lambda: two_layer.outer_off_inner(PROBLEM.split(start(9, 6, 3))), "hidden width above 6"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
