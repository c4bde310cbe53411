"""One batch-normalized layer: against the chain, automatic differentiation, and closed forms."""

import pytest
import torch

from firststep import chain, inits, one_layer, spectra

F64 = {"dtype": torch.float64, "device": "cpu"}


def generator(seed=0):
    return inits.generator(seed, device="cpu")


def unit_moment(d, n, seed=0):
    h = chain.batch_norm(torch.randn(d, n, generator=generator(seed), **F64))
    return h, h @ h.mT / n


@pytest.mark.parametrize("gamma", [0.0, 0.3, -0.3, 2.0])
def test_the_moment_after_a_layer_is_that_of_the_chain(gamma):
    h, m = unit_moment(5, 7)
    w = torch.randn(3, 5, 5, generator=generator(1), **F64)
    after = chain.batch_norm(h + gamma * w @ h)
    torch.testing.assert_close(one_layer.moved(m, gamma, w), after @ after.mT / 7)


@pytest.mark.parametrize(("d", "n"), [(2, 2), (4, 2), (6, 9)])
def test_second_order_is_half_the_second_derivative(d, n):
    _, m = unit_moment(d, n)
    w, zero = torch.randn(d, d, generator=generator(1), **F64), torch.zeros((), **F64)
    along = torch.autograd.functional.hessian(lambda t: one_layer._norm_after(m, t, w), zero)
    torch.testing.assert_close(one_layer.second_order(m, w), along / 2)


@pytest.mark.parametrize(("d", "n"), [(2, 2), (4, 2), (6, 9)])
def test_the_coefficients_of_squares_sum_to_the_expected_change(d, n):
    _, m = unit_moment(d, n)
    torch.testing.assert_close(one_layer.squares(m).sum(), spectra.frobenius_change(m))


def test_without_a_branch_nothing_changes_and_rank_one_never_does():
    _, m = unit_moment(4, 4)
    assert float(one_layer.changes(m, [0.0], "sign", 20, generator())[0].abs().max()) < 1e-12
    line = one_layer.nearly_collinear(4, 0.0, device="cpu")
    assert float(one_layer.changes(line, [0.05], "uniform", 20, generator())[0].abs().max()) < 1e-12


@pytest.mark.parametrize("law", chain.LAWS)
def test_the_control_has_mean_zero_and_the_second_order_the_mean_that_is_claimed(law):
    _, m = unit_moment(4, 6)
    _, second, control = one_layer.changes(m, [0.01], law, 40_000, generator())
    error = control.std() / 200
    assert abs(float(control.mean())) < 4 * float(error)
    assert abs(float(second.mean() - spectra.frobenius_change(m))) < 4 * float(second.std() / 200)


def test_every_gamma_sees_the_same_weights():
    _, m = unit_moment(4, 6)
    alone = one_layer.changes(m, [0.02], "uniform", 50, generator())
    both = one_layer.changes(m, [0.01, 0.02], "uniform", 50, generator())
    torch.testing.assert_close(alone[0], both[1])


def test_a_nearly_collinear_moment_has_the_eigenvalues_of_example_9():
    found = torch.linalg.eigvalsh(one_layer.nearly_collinear(6, 0.1, device="cpu"))
    torch.testing.assert_close(found, torch.tensor([0.1] * 5 + [6 - 0.5], **F64))


def test_a_matrix_without_a_unit_diagonal_is_refused():
    with pytest.raises(ValueError, match="m must have a diagonal of ones"):
        one_layer.squares(2 * torch.eye(3, **F64))
