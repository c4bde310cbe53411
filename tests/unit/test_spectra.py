"""Ranks of matrices that are built to have given singular values."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from firststep import inits, spectra

DTYPES = [torch.float32, torch.float64]
dtypes = st.sampled_from(DTYPES)
seeds = st.integers(0, 10_000)
sizes = st.integers(1, 12)
few = settings(max_examples=40)


def seed(number):
    return torch.Generator().manual_seed(number)


def with_spectrum(values, rows, columns, *, number=0, dtype=torch.float64) -> Tensor:
    """A ``rows × columns`` matrix with these singular values, between random orthogonal matrices."""
    generator = seed(number)
    left = inits.matrix("orthogonal", rows, rows, generator=generator)
    right = inits.matrix("orthogonal", columns, columns, generator=generator)
    core = torch.zeros(rows, columns, dtype=torch.float64)
    core.diagonal()[: len(values)] = torch.as_tensor(values, dtype=torch.float64)
    return (left @ core @ right).to(dtype)


def libraries(a: Tensor) -> tuple[int, int]:
    return int(torch.linalg.matrix_rank(a)), int(np.linalg.matrix_rank(a.numpy()))


# Numerical rank


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(30, 30), (20, 60), (60, 20)])
@pytest.mark.parametrize("factor, counted", [(3.0, True), (1 / 3, False)])
def test_the_threshold_of_torch_and_numpy_is_the_larger_side_times_epsilon(dtype, shape, factor, counted):
    threshold = max(shape) * torch.finfo(dtype).eps
    a = with_spectrum([2.0] * 6 + [2.0 * factor * threshold] * 5, *shape, dtype=torch.float64)
    # Rounding moves singular values by about ε·σ₁, a twentieth of the threshold or less.
    rank = 11 if counted else 6
    assert libraries(a.to(dtype)) == (rank, rank)
    assert spectra.numerical_rank(a.to(dtype)) == rank
    for convention in ("torch", "numpy"):
        tolerance = spectra.rank_tolerance(a.to(dtype), convention)
        assert (torch.linalg.svdvals(a.to(dtype)) > tolerance).sum() == rank
        torch.testing.assert_close(tolerance, torch.tensor(2.0 * threshold, dtype=dtype), rtol=1e-5, atol=0)


@given(dtype=dtypes, size=st.integers(2, 40), above=st.booleans(), sigma=st.floats(1e-3, 1e3))
def test_a_diagonal_entry_a_thousandth_above_the_threshold_counts_and_one_below_does_not(dtype, size, above, sigma):
    threshold = size * torch.finfo(dtype).eps
    a = torch.eye(size, dtype=dtype) * sigma
    a[-1, -1] *= threshold * (1.001 if above else 0.999)
    assert libraries(a) == (size - 1 + above,) * 2
    assert spectra.numerical_rank(a) == size - 1 + above


@few
@given(rows=sizes, columns=sizes, inner=sizes, dtype=dtypes, number=seeds)
def test_products_have_the_rank_that_torch_and_numpy_find(rows, columns, inner, dtype, number):
    generator = seed(number)
    left = torch.randn(rows, inner, generator=generator, dtype=dtype)
    a = left @ torch.randn(inner, columns, generator=generator, dtype=dtype)
    assert libraries(a) == (spectra.numerical_rank(a),) * 2


@few
@given(rows=sizes, columns=sizes, rank=sizes, decay=st.floats(0, 1), dtype=dtypes, number=seeds)
def test_numerical_rank_counts_the_given_singular_values(rows, columns, rank, decay, dtype, number):
    rank = min(rank, rows, columns)
    a = with_spectrum(torch.logspace(0, -3 * decay, rank), rows, columns, number=number, dtype=dtype)
    assert spectra.numerical_rank(a) == rank


@few
@given(rows=sizes, columns=sizes, number=seeds, cut=st.integers(0, 11))
def test_a_relative_threshold_between_two_singular_values_separates_them(rows, columns, number, cut):
    values = 2.0 ** -torch.arange(min(rows, columns), dtype=torch.float64)
    assume(cut < len(values))
    a = with_spectrum(values, rows, columns, number=number)
    assert spectra.numerical_rank(a, rtol=float(values[cut]) * 0.75) == cut + 1


@given(power=st.integers(-200, 200), number=seeds)
def test_numerical_rank_does_not_depend_on_the_scale(power, number):
    a = with_spectrum([3.0, 2.0, 1.0], 5, 7, number=number)
    assert spectra.numerical_rank(a * 10.0**power) == 3


def test_the_zero_matrix_has_numerical_rank_zero_and_a_row_of_ones_has_one():
    assert spectra.numerical_rank(torch.zeros(4, 3)) == 0
    assert spectra.numerical_rank(torch.ones(1, 5)) == 1


def test_the_threshold_is_strict_so_that_rtol_zero_counts_non_zero_singular_values():
    assert spectra.numerical_rank(torch.diag(torch.tensor([1.0, 1e-30, 0.0])), rtol=0) == 2
    assert spectra.numerical_rank(torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64)), rtol=0.5) == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_threshold_of_the_paper_on_rank_collapse_is_1e_7_in_either_dtype(dtype):
    a = with_spectrum([4.0, 1.0], 8, 16, dtype=dtype)
    tolerance = spectra.rank_tolerance(a, "rank_collapse")
    torch.testing.assert_close(tolerance, torch.tensor(4.0 * 16 * 1e-7, dtype=dtype), rtol=1e-5, atol=0)
    assert spectra.rank_tolerance(a.double(), "rank_collapse") > 1e8 * spectra.rank_tolerance(a.double(), "torch")


# Soft rank


@few
@given(
    values=st.lists(st.integers(1, 20), min_size=1, max_size=8, unique=True),
    extra=st.integers(0, 5),
    at=st.floats(0, 1),
    number=seeds,
)
def test_soft_rank_counts_squared_singular_values_per_sample(values, extra, at, number):
    d, n = len(values), 500 + extra
    h = with_spectrum(sorted(values, reverse=True), d, n, number=number)
    assume(all(abs(value**2 / n - at) > 1e-9 for value in values))
    assert spectra.soft_rank(h, at) == sum(value**2 / n >= at for value in values)


@given(k=st.integers(1, 30), d=sizes, extra=st.integers(0, 900))
def test_soft_rank_counts_a_singular_value_that_equals_the_threshold(k, d, extra):
    n = max(d, k**2) + extra
    h = k * torch.eye(d, n, dtype=torch.float64)
    tau = k**2 / n
    assert spectra.soft_rank(h, tau) == d
    if tau < 1:
        assert spectra.soft_rank(h, math.nextafter(tau, 2)) == 0


@given(d=sizes, n=sizes, number=seeds)
def test_soft_rank_at_threshold_zero_is_the_smaller_side(d, n, number):
    h = torch.randn(d, n, generator=seed(number))
    assert spectra.soft_rank(h, 0) == min(d, n)
    assert spectra.soft_rank(torch.zeros(d, n), 0) == min(d, n)


@given(d=sizes, n=sizes, number=seeds, low=st.floats(0, 1), high=st.floats(0, 1))
def test_soft_rank_never_grows_with_the_threshold(d, n, number, low, high):
    h = torch.randn(d, n, generator=seed(number))
    low, high = sorted((low, high))
    assert spectra.soft_rank(h, low) >= spectra.soft_rank(h, high)


# Stable rank


@given(values=st.lists(st.floats(0.01, 100), min_size=1, max_size=10), number=seeds, columns=st.integers(0, 5))
def test_stable_rank_is_the_squared_trace_over_the_sum_of_fourth_powers(values, number, columns):
    squares = torch.tensor(sorted(values, reverse=True), dtype=torch.float64).square()
    closed_form = squares.sum() ** 2 / squares.square().sum()
    h = with_spectrum(squares.sqrt(), len(values), len(values) + columns, number=number)
    torch.testing.assert_close(spectra.stable_rank(h), closed_form, rtol=1e-10, atol=0)
    torch.testing.assert_close(spectra.stable_rank(h.mT), closed_form, rtol=1e-10, atol=0)


@given(d=sizes, n=sizes, number=seeds)
def test_stable_rank_lies_between_one_and_the_rank(d, n, number):
    h = torch.randn(d, n, generator=seed(number), dtype=torch.float64)
    r = float(spectra.stable_rank(h))
    assert 1 - 1e-12 <= r <= int(spectra.numerical_rank(h)) + 1e-12


@given(d=sizes, n=st.integers(12, 20))
def test_stable_rank_is_the_rank_exactly_if_all_singular_values_are_equal(d, n):
    torch.testing.assert_close(
        spectra.stable_rank(with_spectrum([0.3] * d, d, n)), torch.tensor(d, dtype=torch.float64), rtol=1e-12, atol=0
    )


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-20, 1.0, 1e20, 1e200, 1e300])
def test_stable_rank_does_not_depend_on_the_scale(scale):
    h = with_spectrum([3.0, 2.0, 1.0], 4, 9)
    torch.testing.assert_close(spectra.stable_rank(scale * h), torch.tensor(196 / 98, dtype=torch.float64))


def test_a_batch_with_one_zero_matrix_has_no_stable_rank():
    h = torch.ones(3, 2, 2)
    h[1] = 0
    with pytest.raises(ValueError, match="h must have a non-zero entry in every matrix, got a zero matrix"):
        spectra.stable_rank(h)


# Batches

MEASURES = {
    "numerical rank": spectra.numerical_rank,
    "numerical rank at 0.1": lambda a: spectra.numerical_rank(a, 0.1),
    "soft rank at 0.2": lambda a: spectra.soft_rank(a, 0.2),
    "stable rank": spectra.stable_rank,
    "tolerance": spectra.rank_tolerance,
}


@pytest.mark.parametrize("name", MEASURES)
@settings(max_examples=20)
@given(d=sizes, n=sizes, number=seeds, dtype=dtypes)
def test_a_matrix_in_a_batch_has_the_value_that_it_has_alone(name, d, n, number, dtype):
    batch = torch.randn(2, 3, d, n, generator=seed(number), dtype=dtype)
    batch *= torch.logspace(-20, 20, 6, dtype=dtype).reshape(2, 3, 1, 1)  # one matrix must not set another's scale
    values = MEASURES[name](batch)
    assert values.shape == (2, 3)
    assert values.dtype == (torch.int64 if "rank at" in name or name == "numerical rank" else dtype)
    for index in np.ndindex(2, 3):
        torch.testing.assert_close(values[index], MEASURES[name](batch[index]))


# The traces of batch normalization


def second_moment(d, n, *, number=0, dtype=torch.float64) -> Tensor:
    """M = H Hᵀ / N of representations whose rows batch normalization has brought to norm √N."""
    h = torch.randn(d, n, generator=seed(number), dtype=dtype)
    h = h / h.square().mean(1, keepdim=True).sqrt()
    return h @ h.T / n


@given(d=sizes, n=sizes, number=seeds, scale=st.floats(0.01, 100))
def test_regularity_terms_are_the_traces_of_definition_3(d, n, number, scale):
    m = scale * second_moment(d, n, number=number)
    rows, cube = spectra.regularity_terms(m)
    square = m @ m
    torch.testing.assert_close(rows, torch.trace(torch.diag(square.diagonal()) ** 2), rtol=1e-12, atol=0)
    torch.testing.assert_close(cube, torch.linalg.eigvalsh(m).pow(3).sum(), rtol=1e-10, atol=0)


@given(d=sizes, number=seeds)
def test_both_terms_are_d_cubed_for_rank_one_and_d_for_the_identity(d, number):
    signs = inits.matrix("sign", d, 1, generator=seed(number))
    assert [float(t) for t in spectra.regularity_terms(signs @ signs.T)] == [d**3, d**3]
    assert [float(t) for t in spectra.regularity_terms(torch.eye(d))] == [d, d]


def test_a_block_of_ones_next_to_an_identity_has_equal_terms_but_unequal_eigenvalues():
    m = torch.block_diag(torch.ones(3, 3), torch.eye(4))
    rows, cube = spectra.regularity_terms(m)
    assert rows == cube == 3**3 + 4
    assert torch.linalg.eigvalsh(m).max() > 2


@pytest.mark.parametrize("d", [1, 2, 3, 10])
def test_frobenius_change_of_the_identity_is_2_d_d_minus_1_and_of_rank_one_it_is_zero(d):
    assert spectra.frobenius_change(torch.eye(d)) == 2 * d * (d - 1)
    assert spectra.frobenius_change(torch.ones(d, d)) == 0


@pytest.mark.parametrize("c", [-0.9, -0.3, 0.0, 0.5, 0.99])
def test_frobenius_change_of_a_two_by_two_matrix_vanishes_at_correlation_one_half_and_one(c):
    # By hand: ‖M‖² = 2 + 2c², Tr M³ = 2 + 6c², Tr diag(M²)² = 2(1 + c²)².
    m = torch.tensor([[1, c], [c, 1]], dtype=torch.float64)
    by_hand = torch.tensor(4 * (1 - c**2) * (1 - 4 * c**2), dtype=torch.float64)
    torch.testing.assert_close(spectra.frobenius_change(m), by_hand, rtol=1e-12, atol=1e-13)


@few
@given(d=st.integers(1, 5), number=seeds)
def test_frobenius_change_is_half_the_sum_of_second_derivatives_along_single_weights(d, number):
    m = second_moment(d, 6, number=number)

    def norm_after(weights):
        step = torch.eye(d, dtype=m.dtype) + weights.reshape(d, d)
        moved = step @ m @ step.T
        return (moved.square() / torch.outer(moved.diagonal(), moved.diagonal())).sum()

    hessian = torch.autograd.functional.hessian(norm_after, torch.zeros(d * d, dtype=m.dtype))
    torch.testing.assert_close(spectra.frobenius_change(m), torch.trace(hessian) / 2, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("function", [spectra.regularity_terms, spectra.frobenius_change])
def test_traces_of_matrices_that_are_not_symmetric_are_refused(function):
    with pytest.raises(ValueError, match=r"m must be a batch of square matrices, got m of shape \(2, 3\)"):
        function(torch.ones(2, 3))
    with pytest.raises(ValueError, match="m must be symmetric, got m that differs from its transpose"):
        function(torch.tensor([[1.0, 0.5], [0.4, 1.0]]))


def test_frobenius_change_asks_for_a_diagonal_of_ones():
    with pytest.raises(ValueError, match=r"m must have a diagonal of ones, got m with a diagonal entry off by 0\.5"):
        spectra.frobenius_change(torch.diag(torch.tensor([1.0, 1.5])))


def test_traces_of_a_matrix_in_a_batch_are_those_that_it_has_alone():
    batch = torch.stack([second_moment(4, n, dtype=torch.float32) for n in (2, 3, 5)])
    for index, alone in enumerate(batch):
        torch.testing.assert_close(spectra.frobenius_change(batch)[index], spectra.frobenius_change(alone))
        for all_of_them, one in zip(spectra.regularity_terms(batch), spectra.regularity_terms(alone), strict=True):
            torch.testing.assert_close(all_of_them[index], one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(3, 5, 8), (3, 8, 5), (2, 30, 40), (2, 40, 30), (2, 30, 200), (25, 25), (24, 24)])
def test_every_way_to_the_singular_values_counts_the_same(shape, dtype):
    generator = torch.Generator("cpu").manual_seed(0)
    *lead, m, n = shape
    left, right = (torch.randn(*lead, *s, generator=generator, dtype=dtype) for s in ((m, 3), (3, n)))
    a = left @ right
    assert torch.equal(spectra.numerical_rank(a), torch.linalg.matrix_rank(a))
    assert torch.equal(spectra.numerical_rank(a.mT), spectra.numerical_rank(a))
    assert torch.equal(spectra.numerical_rank(a.requires_grad_()), spectra.numerical_rank(a.detach()))


# The nearest matrix of a given rank


@few
@given(rows=sizes, columns=sizes, rank=st.integers(0, 14), number=seeds)
def test_the_nearest_matrix_of_a_rank_keeps_the_leading_singular_values_and_is_off_by_the_others(
    rows, columns, rank, number
):
    values = torch.linspace(2.0, 1.0, min(rows, columns), dtype=torch.float64)
    a = with_spectrum(values, rows, columns, number=number)
    near = spectra.nearest_of_rank(a, rank)
    kept = torch.linalg.svdvals(near)
    assert torch.allclose(kept[:rank], values[:rank]) and (kept[rank:] < 1e-12).all()
    assert torch.allclose(torch.linalg.matrix_norm(a - near) ** 2, values[rank:].square().sum(), atol=1e-12)
