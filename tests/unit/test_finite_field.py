"""Exact algebra against Python's own integers and fractions, which have no round-off either."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import finite_field, inits, linear
from firststep.finite_field import PRIME

seeds = st.integers(0, 10_000)
sizes = st.integers(1, 7)
widths = st.lists(sizes, min_size=2, max_size=5)
few = settings(max_examples=40)


def numbers(number):
    return np.random.default_rng(number)


def drawn(shape, number):
    return numbers(number).integers(0, PRIME, shape)


def network(widths, number):
    shapes = zip(widths[1:], widths, strict=False)
    return [drawn(shape, [number, layer]) for layer, shape in enumerate(shapes)]


def task(widths, number):
    """Moments XXᵀ and YXᵀ of general data over the field."""
    x, y = drawn((widths[0], widths[0]), [number, 97]), drawn((widths[-1], widths[0]), [number, 98])
    return finite_field.multiply(x, x.T), finite_field.multiply(y, x.T)


def exact(a):
    """The same matrix with Python's integers as entries."""
    return a.astype(object)


def spans(space, vectors):
    """Whether the columns of ``vectors`` lie in the column space of ``space``."""
    return finite_field.rank(np.concatenate([space, vectors], axis=1)) == finite_field.rank(space)


def rank_over_the_rationals(a):
    rows, rank = [[Fraction(int(entry)) for entry in row] for row in a], 0
    for column in range(a.shape[1]):
        pivot = next((r for r in range(rank, len(rows)) if rows[r][column]), None)
        if pivot is None:
            continue
        rows[rank], rows[pivot] = rows[pivot], rows[rank]
        for r in range(rank + 1, len(rows)):
            ratio = rows[r][column] / rows[rank][column]
            rows[r] = [entry - ratio * above for entry, above in zip(rows[r], rows[rank], strict=True)]
        rank += 1
    return rank


# The field


def test_the_modulus_is_the_largest_prime_below_two_to_the_26():
    def is_prime(n):
        return all(n % k for k in range(2, math.isqrt(n) + 1))

    assert is_prime(PRIME)
    assert PRIME < 2**26
    assert not any(is_prime(n) for n in range(PRIME + 1, 2**26))


def test_the_longest_allowed_sum_of_products_fits_into_int64():
    assert finite_field._LARGEST_SUM * (PRIME - 1) ** 2 < 2**63


# Products


@few
@given(rows=sizes, inner=st.integers(1, 60), columns=sizes, number=seeds)
def test_products_equal_those_of_python_integers(rows, inner, columns, number):
    a, b = drawn((rows, inner), number), drawn((inner, columns), number + 1)
    product = finite_field.multiply(a, b)
    assert product.dtype == np.int64
    assert (product == exact(a) @ exact(b) % PRIME).all()


def test_the_largest_product_of_all_is_exact():
    a = np.full((2, finite_field._LARGEST_SUM), PRIME - 1)
    assert (finite_field.multiply(a, a.T) == finite_field._LARGEST_SUM * (PRIME - 1) ** 2 % PRIME).all()


def test_a_longer_sum_is_refused_because_it_might_overflow():
    a = np.zeros((1, finite_field._LARGEST_SUM + 1), dtype=np.int64)
    with pytest.raises(ValueError, match=r"inner size at most 2048, got shapes=\(\(1, 2049\), \(2049, 1\)\)"):
        finite_field.multiply(a, a.T)


@few
@given(sides=st.lists(sizes, min_size=4, max_size=4), number=seeds)
def test_multiplication_is_associative(sides, number):
    a, b, c = (drawn(pair, number) for pair in itertools.pairwise(sides))
    expected = finite_field.multiply(a, finite_field.multiply(b, c))
    assert (finite_field.multiply(a, b, c) == expected).all()


def test_one_factor_is_its_own_product():
    a = drawn((3, 4), 0)
    assert (finite_field.multiply(a) == a).all()


# Rank


@few
@given(rows=sizes, columns=sizes, bound=st.integers(1, 3), number=seeds)
def test_rank_of_a_small_integer_matrix_is_its_rank_over_the_rationals(rows, columns, bound, number):
    # A minor of such a matrix is at most (3 · √7)^7 < p by Hadamard, so p divides none that is not zero.
    assert (bound * 7**0.5) ** 7 < PRIME
    a = numbers(number).integers(-bound, bound + 1, (rows, columns))
    a[-1] = a[0]  # so that rank is often deficient
    assert finite_field.rank(a % PRIME) == rank_over_the_rationals(a) == np.linalg.matrix_rank(a.astype(float))


@few
@given(rows=sizes, columns=sizes, number=seeds, data=st.data())
def test_a_product_through_inner_size_r_has_rank_r(rows, columns, number, data):
    r = data.draw(st.integers(0, min(rows, columns)), label="r")
    a = finite_field.random_matrix(rows, columns, numbers(number), rank=r)
    assert a.shape == (rows, columns)
    assert finite_field.rank(a) == r


@few
@given(rows=sizes, columns=sizes, number=seeds)
def test_uniform_random_matrices_have_full_rank(rows, columns, number):
    assert finite_field.rank(finite_field.random_matrix(rows, columns, numbers(number))) == min(rows, columns)


@few
@given(rows=sizes, columns=sizes, inner=sizes, number=seeds)
def test_rank_of_a_matrix_is_that_of_its_transpose(rows, columns, inner, number):
    a = finite_field.multiply(drawn((rows, inner), number), drawn((inner, columns), number + 1))
    assert finite_field.rank(a) == finite_field.rank(a.T) == min(rows, columns, inner)


@pytest.mark.parametrize("shape", [(0, 0), (3, 0), (0, 3), (3, 2)])
def test_the_zero_matrix_has_rank_zero_whatever_its_shape(shape):
    assert finite_field.rank(np.zeros(shape, dtype=np.int64)) == 0


def test_exact_rank_sees_what_floating_point_cannot():
    # 1 and 1 + 2^-60 differ, though not in float64; cleared of denominators the 2 × 2 matrix has determinant −1.
    a = [[2**60, 2**60 + 1], [2**60 - 1, 2**60]]
    assert finite_field.rank(np.array(a) % PRIME) == 2
    assert np.linalg.matrix_rank(np.array(a, dtype=float)) == 1


def test_rank_leaves_its_argument_as_it_was():
    a = drawn((4, 5), 0)
    before = a.copy()
    finite_field.rank(a)
    assert (a == before).all()


@few
@given(rows=sizes, columns=sizes, inner=sizes, number=seeds)
def test_column_basis_consists_of_columns_and_spans_the_others(rows, columns, inner, number):
    a = finite_field.multiply(drawn((rows, inner), number), drawn((inner, columns), number + 1))
    a[:, columns // 2] = 0
    basis = finite_field.column_basis(a)
    assert basis.shape == (rows, finite_field.rank(a))
    assert {tuple(c) for c in basis.T} <= {tuple(c) for c in a.T}
    assert spans(basis, a)
    assert (finite_field.column_basis(basis) == basis).all()


# Gradient descent


@few
@given(widths=widths, number=seeds, step_size=st.integers(-(10**12), 10**12))
def test_a_step_equals_the_chain_rule_in_python_integers(widths, number, step_size):
    weights, (xx, yx) = network(widths, number), task(widths, number)
    stepped = finite_field.gradient_step(weights, xx, yx, step_size)
    big = [exact(w) for w in weights]

    def product(factors, size):
        result = np.array([[int(i == j) for j in range(size)] for i in range(size)], dtype=object)
        for factor in factors:
            result = factor @ result
        return result

    residual = product(big, widths[0]) @ exact(xx) - exact(yx)
    for layer, (new, old) in enumerate(zip(stepped, big, strict=True)):
        before, after = product(big[:layer], widths[0]), product(big[layer + 1 :], widths[layer + 1])
        assert (new == (old - step_size * (after.T @ residual @ before.T)) % PRIME).all()


@few
@given(widths=st.lists(st.integers(1, 4), min_size=2, max_size=4), number=seeds)
def test_a_step_equals_that_of_the_real_network_on_integers(widths, number):
    rng = numbers(number)
    weights = [rng.integers(-2, 3, (after, before)) for before, after in itertools.pairwise(widths)]
    x, y = rng.integers(-2, 3, (widths[0], 5)), rng.integers(-2, 3, (widths[-1], 5))
    moments = linear.Moments.of(torch.tensor(x).double(), torch.tensor(y).double())
    run = linear.gradient_descent([torch.tensor(w).double() for w in weights], moments, step_size=1, steps=1)
    exact_step = finite_field.gradient_step([w % PRIME for w in weights], x @ x.T % PRIME, y @ x.T % PRIME, 1)
    for real, modular in zip(run.weights, exact_step, strict=True):
        assert (real.long().numpy() % PRIME == modular).all()


def test_a_network_whose_product_solves_the_task_stays_where_it_is():
    weights, (xx, _) = network((3, 4, 2), 0), task((3, 4, 2), 0)
    yx = finite_field.multiply(*reversed(weights), xx)
    for before, after in zip(weights, finite_field.gradient_step(weights, xx, yx, 12_345), strict=True):
        assert (before == after).all()


# Prescribed ranks


@few
@given(widths=widths, number=seeds, aligned=st.booleans(), data=st.data())
def test_factors_have_the_prescribed_ranks_and_meet_as_prescribed(widths, number, aligned, data):
    ranks = [data.draw(st.integers(0, min(pair))) for pair in itertools.pairwise(widths)]
    weights = finite_field.prescribed_rank(widths, ranks, aligned=aligned, generator=numbers(number))
    assert [w.shape for w in weights] == list(zip(widths[1:], widths, strict=False))
    assert [finite_field.rank(w) for w in weights] == ranks
    meeting = zip(widths[1:], ranks, ranks[1:], strict=False)
    spaces = [max(r, s) if aligned else min(d, r + s) for d, r, s in meeting]
    found = [finite_field.rank(np.concatenate([w, v.T], axis=1)) for w, v in itertools.pairwise(weights)]
    assert found == spaces
    assert finite_field.reachable_rank(weights) == min(widths[0], widths[-1], *spaces)


@few
@given(widths=widths, number=seeds, aligned=st.booleans(), data=st.data())
def test_reachable_rank_is_that_of_the_real_twin(widths, number, aligned, data):
    ranks = [data.draw(st.integers(0, min(pair))) for pair in itertools.pairwise(widths)]
    modular = finite_field.prescribed_rank(widths, ranks, aligned=aligned, generator=numbers(number))
    generator = torch.Generator().manual_seed(number)
    real = inits.prescribed_rank(widths, ranks, aligned=aligned, generator=generator)
    assert finite_field.reachable_rank(modular) == linear.reachable_rank(real, rtol=1e-9)


# What descent can reach

architectures = st.lists(st.integers(1, 6), min_size=2, max_size=5)


def deficient_start(widths, number, least=0):
    rng = numbers([number, 5])
    ranks = [int(rng.integers(least, min(pair) + 1)) for pair in itertools.pairwise(widths)]
    aligned = bool(rng.random() < 0.5)
    return finite_field.prescribed_rank(widths, ranks, aligned=aligned, generator=rng)


def deficient_task(widths, number):
    """Moments of few samples and of low-rank targets, as well as of general ones."""
    rng = numbers([number, 6])
    x = drawn((widths[0], int(rng.integers(1, widths[0] + 2))), [number, 7])
    rank = int(rng.integers(0, min(widths[-1], x.shape[1]) + 1))
    y = finite_field.random_matrix(widths[-1], x.shape[1], rng, rank=rank)
    return finite_field.multiply(x, x.T), finite_field.multiply(y, x.T)


def descend(weights, xx, yx, steps, number):
    rng = numbers([number, 8])
    for _ in range(steps):
        weights = finite_field.gradient_step(weights, xx, yx, int(rng.integers(1, PRIME)))
    return weights


@few
@given(widths=architectures, number=seeds, steps=st.integers(1, 6))
def test_descent_changes_each_factor_only_inside_the_active_spaces(widths, number, steps):
    start, (xx, yx) = deficient_start(widths, number), deficient_task(widths, number)
    spaces = finite_field.active_spaces(start, xx, yx)
    assert [s.shape[0] for s in spaces] == list(widths)
    end = descend(start, xx, yx, steps, number)
    for before, after, reads, writes in zip(start, end, spaces, spaces[1:], strict=False):
        change = (after - before) % PRIME
        assert spans(writes, change)
        assert spans(reads, change.T)


@few
@given(widths=architectures, number=seeds)
def test_active_spaces_are_closed_under_the_factors_and_lie_inside_the_reachable_ones(widths, number):
    start, (xx, yx) = deficient_start(widths, number), deficient_task(widths, number)
    spaces = finite_field.active_spaces(start, xx, yx)
    assert spans(spaces[0], xx)
    assert spans(spaces[-1], yx)
    for weight, before, after in zip(start, spaces, spaces[1:], strict=False):
        assert spans(after, finite_field.multiply(weight, before))
    for below, above, space, after in zip(start, start[1:], spaces[1:], spaces[2:], strict=False):
        assert spans(space, finite_field.multiply(above.T, after))
        assert spans(np.concatenate([below, above.T], axis=1), space)


@few
@given(widths=architectures, number=seeds)
def test_no_step_exceeds_the_ceiling_of_the_data_which_never_exceeds_that_of_the_start(widths, number):
    start, (xx, yx) = deficient_start(widths, number), deficient_task(widths, number)
    ceiling = finite_field.data_ceiling(start, xx, yx, numbers(number))
    assert ceiling <= finite_field.reachable_rank(start)
    for steps in range(5):
        weights = descend(start, xx, yx, steps, number)
        assert finite_field.rank(finite_field.multiply(*reversed(weights))) <= ceiling


@few
@given(widths=architectures, number=seeds)
def test_with_data_of_full_rank_both_ceilings_agree_if_no_factor_is_zero(widths, number):
    start, (xx, yx) = deficient_start(widths, number, least=1), task(widths, number)
    assert finite_field.rank(xx) == widths[0]
    assert finite_field.rank(yx) == min(widths[0], widths[-1])
    assert finite_field.data_ceiling(start, xx, yx, numbers(number)) == finite_field.reachable_rank(start)


def test_two_zero_factors_pin_the_product_to_zero_whatever_the_other_factor_allows():
    start = [np.zeros((4, 4), dtype=np.int64), drawn((4, 4), 0), np.zeros((4, 4), dtype=np.int64)]
    xx, yx = task((4, 4), 0)
    assert finite_field.reachable_rank(start) == 4
    assert finite_field.data_ceiling(start, xx, yx, numbers(0)) == 0
    for before, after in zip(start, descend(start, xx, yx, 3, 0), strict=True):
        assert (before == after).all()


def test_one_sample_lifts_a_zero_product_to_rank_one_at_most():
    start = [np.zeros((4, 5), dtype=np.int64), drawn((4, 4), 1)]
    x, y = drawn((5, 1), 2), drawn((4, 1), 3)
    xx, yx = finite_field.multiply(x, x.T), finite_field.multiply(y, x.T)
    assert finite_field.reachable_rank(start) == 4
    assert finite_field.data_ceiling(start, xx, yx, numbers(4)) == 1
    end = descend(start, xx, yx, 5, 0)
    assert finite_field.rank(finite_field.multiply(*reversed(end))) == 1
