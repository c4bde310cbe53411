"""Lyapunov exponents of chains: closed forms, exact zeros, and what must not matter."""

import math

import pytest
import torch

from firststep import inits
from firststep.chain import Chain, follow
from firststep.lyapunov import gaussian_exponents, lyapunov_exponents

EYE = torch.eye(8, dtype=torch.float64)


def gaussian_inputs(d, n, seeds):
    return torch.stack([torch.randn(d, n, generator=g, dtype=torch.float64) for g in inits.generators(seeds)])


def mean_and_error(chain, x, seeds, depth=800, burn_in=200, **kwargs):
    """Exponents averaged over blocks and seeds, and their standard errors."""
    g = inits.generators(range(100, 100 + seeds))
    found = lyapunov_exponents(chain, x, depth=depth, generator=g, burn_in=burn_in, **kwargs).flatten(0, 1)
    return found.mean(0), found.std(0) / len(found) ** 0.5


# Closed forms


@pytest.mark.parametrize("d", [1, 2, 8])
def test_products_of_gaussian_matrices_have_newmans_exponents(d):
    x = torch.eye(d, dtype=torch.float64)
    mean, error = mean_and_error(Chain(normalization="none"), x, seeds=4)
    assert ((mean - gaussian_exponents(d)).abs() < 4.5 * error).all()


def test_the_closed_form_at_one_and_two_is_that_of_chi_variables():
    euler = -float(torch.digamma(torch.tensor(1.0, dtype=torch.float64)))
    # E log|N(0, 1)| = −(γ + log 2)/2; E log χ_2 = (log 2 − γ)/2.
    assert gaussian_exponents(1).tolist() == pytest.approx([-(euler + math.log(2)) / 2])
    assert gaussian_exponents(2).tolist() == pytest.approx([(math.log(2) - euler) / 2, -(euler + math.log(2)) / 2])


def test_two_by_two_gaussian_factors_halve_the_ratio_of_singular_values():
    first, second = gaussian_exponents(2).tolist()
    assert first - second == pytest.approx(math.log(2))


def drawn(chain_law, d, depth, seed):
    """The weights that a chain of this depth draws, for depths below the first chunk."""
    from firststep.chain import draw_weights

    return torch.stack(list(draw_weights(chain_law, d, inits.generators([seed]), torch.float64, depth)))[:, 0]


def test_exponents_add_up_to_the_logarithm_of_the_determinants():
    depth = 80
    weights = drawn("gaussian", 8, depth, seed=0)
    for gamma, factors in ((math.inf, weights), (0.5, torch.eye(8) + 0.5 * weights)):
        chain = Chain(gamma, normalization="none")
        found = lyapunov_exponents(chain, EYE, depth=depth, generator=inits.generators([0]), blocks=1)
        expected = torch.linalg.slogdet(factors).logabsdet.mean()
        torch.testing.assert_close(found.sum(), expected, rtol=1e-11, atol=1e-11)


def test_commuting_diagonal_layers_have_their_mean_logarithms_as_exponents(monkeypatch):
    # Without skips and normalization a diagonal layer scales axis i by its own factor.
    from firststep import chain

    def diagonal(weight, generator):
        factors = torch.linspace(2, 0.25, weight.shape[-1], dtype=weight.dtype)
        signs = torch.empty_like(weight[..., 0]).uniform_(-1, 1, generator=generator).sign()
        return weight.copy_(torch.diag_embed(signs * factors))

    monkeypatch.setitem(chain.LAWS, "gaussian", diagonal)
    generator = inits.generators([0])
    found = lyapunov_exponents(Chain(normalization="none"), EYE, depth=40, generator=generator, blocks=2)
    expected = torch.linspace(2, 0.25, 8, dtype=torch.float64).log()
    torch.testing.assert_close(found, expected.expand(2, 1, 8))


def test_triangular_layers_have_the_logarithms_of_their_diagonal_as_exponents(monkeypatch):
    from firststep import chain

    factors = torch.linspace(2, 0.25, 8, dtype=torch.float64)

    def triangular(weight, generator):
        weight.normal_(generator=generator).mul_(0.3)
        return weight.copy_(weight.triu(1) + torch.diag(factors))

    monkeypatch.setitem(chain.LAWS, "gaussian", triangular)
    generator = inits.generators([0])
    found = lyapunov_exponents(Chain(normalization="none"), EYE, depth=40, generator=generator, blocks=2)
    torch.testing.assert_close(found, factors.log().expand(2, 1, 8))  # upper triangular: the frame stays put


# Batch normalization


def test_the_normalized_chain_of_width_eight_has_four_zero_exponents():
    mean, error = mean_and_error(Chain(), gaussian_inputs(8, 8, 4), seeds=4)
    assert (mean[:4].abs() < 4 * error[:4]).all()
    assert (mean[:4].abs() < 5e-3).all()
    assert (mean[4:] < -0.1).all() and (mean[:-1] > mean[1:] - 5e-3).all()


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("gamma", [math.inf, 1.0])
def test_as_many_exponents_vanish_as_there_are_samples_below_the_plateau(k, gamma):
    mean, _ = mean_and_error(Chain(gamma), gaussian_inputs(8, k, 2), seeds=2, depth=1_600)
    assert (mean[:k].abs() < 5e-3).all()


@pytest.mark.parametrize("k, grows", [(2, True), (3, True), (4, False), (5, False)])
def test_a_further_direction_grows_below_rank_four_and_decays_from_it_on(k, grows):
    mean, error = mean_and_error(Chain(), gaussian_inputs(8, k, 4), seeds=4)
    assert (mean[k] > 0) == grows
    assert mean[k].abs() > 4 * error[k]


@pytest.mark.parametrize("d", [2, 3, 8])
def test_the_exponents_of_one_sample_add_up_to_the_closed_form(d):
    # D = diag(1/|w_i·s|) with w_i·s of law N(0, d): E log|det W| minus d times E log|N(0, d)|.
    psi = torch.digamma(torch.arange(1, d + 1, dtype=torch.float64) / 2)
    expected = float((psi - psi[0] - math.log(d)).sum()) / 2
    g = inits.generators(4)
    sums = lyapunov_exponents(Chain(), gaussian_inputs(d, 1, 4), depth=4_000, generator=g, burn_in=40).sum(-1)
    assert abs(float(sums.mean()) - expected) < 4 * float(sums.std()) / sums.numel() ** 0.5


def test_two_neurons_and_one_sample_are_exactly_neutral():
    psi = torch.digamma(torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert float(psi[1] - psi[0]) == pytest.approx(2 * math.log(2))
    mean, error = mean_and_error(Chain(), gaussian_inputs(2, 1, 4), seeds=4, depth=4_000)
    assert mean.abs()[1] < 4 * error[1]


def test_the_exponents_of_the_samples_add_up_to_the_growth_of_their_volume():
    x = gaussian_inputs(8, 3, 1)[0]
    found = lyapunov_exponents(Chain(), x, depth=40, generator=inits.generators([0]), blocks=1, count=3)
    after = follow(Chain(), x, generator=inits.generators([0]), measure={"h": lambda s: s.h}, at=[40])["h"][0, 0]
    growth = torch.logdet(after.mT @ after) / 2 - torch.logdet(x.mT @ x) / 2
    torch.testing.assert_close(found.sum() * 40, growth, rtol=1e-8, atol=1e-8)


def test_transversal_exponents_are_the_growth_of_a_small_further_sample():
    seeds, tiny = 200, 1e-10
    x = gaussian_inputs(8, 2, seeds)
    x[..., 0].sign_()
    x[..., 1].mul_(tiny)
    second = {"log": lambda state: torch.linalg.svdvals(state.h)[..., 1].log()}
    start, end = follow(Chain(), x, generator=inits.generators(seeds), measure=second, at=[4, 12])["log"]
    rate = (end - start) / 8
    mean, error = mean_and_error(Chain(), gaussian_inputs(8, 1, 4), seeds=4)
    spread = math.hypot(float(rate.std()) / seeds**0.5, float(error[1]))
    assert abs(float(rate.mean() - mean[1])) < 4 * spread < 0.2


def test_tangential_exponents_do_not_see_how_many_transversal_ones_are_asked_for():
    x = gaussian_inputs(8, 3, 1)[0]
    few, all_of_them = (
        lyapunov_exponents(Chain(), x, depth=80, generator=inits.generators([0]), count=count) for count in (4, 8)
    )
    torch.testing.assert_close(few, all_of_them[..., :4])


# What must not matter


@pytest.mark.parametrize("chain", [Chain(), Chain(0.5), Chain(normalization="none"), Chain(normalization="frobenius")])
def test_the_cadence_of_the_factorization_does_not_matter(chain):
    x = gaussian_inputs(8, 8, 2)
    found = [
        lyapunov_exponents(chain, x, depth=160, generator=inits.generators(2), blocks=4, qr_every=every)
        for every in (1, 2, 4, 8)
    ]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("chain", [Chain(), Chain(0.5, normalization="none")])
def test_seed_three_of_a_batch_equals_seed_three_alone(chain):
    x = gaussian_inputs(8, 5, 5)
    kwargs = {"depth": 80, "blocks": 2, "burn_in": 8}
    batch = lyapunov_exponents(chain, x, generator=inits.generators(5), **kwargs)
    alone = lyapunov_exponents(chain, x[3], generator=inits.generators([3]), **kwargs)
    torch.testing.assert_close(batch[:, 3:4], alone, rtol=1e-9, atol=1e-9)


def test_the_scale_of_the_inputs_is_gone_after_the_first_layer():
    x = gaussian_inputs(8, 8, 1)[0]
    found = [lyapunov_exponents(Chain(), s * x, depth=80, generator=inits.generators([0])) for s in (1.0, 1e-6, 1e6)]
    for other in found[1:]:
        torch.testing.assert_close(other[1:], found[0][1:], rtol=1e-9, atol=1e-9)


def test_the_frobenius_norm_shifts_all_exponents_alike():
    x = gaussian_inputs(8, 8, 1)[0]
    raw, scaled = (
        lyapunov_exponents(Chain(normalization=n), x, depth=160, generator=inits.generators([0]), blocks=1)
        for n in ("none", "frobenius")
    )
    shift = (raw - scaled)[0, 0]
    torch.testing.assert_close(shift, shift.mean().expand(8))
    assert abs(float(scaled[0, 0, 0])) < 0.05  # the size of H is held, so the first exponent vanishes


def test_blocks_are_parts_of_one_average():
    x = gaussian_inputs(8, 8, 1)[0]
    one, many = (
        lyapunov_exponents(Chain(), x, depth=160, generator=inits.generators([0]), blocks=blocks) for blocks in (1, 10)
    )
    torch.testing.assert_close(many.mean(0, keepdim=True), one)


# Bad arguments


@pytest.mark.parametrize(
    "chain, kwargs, message",
    [
        (Chain(activation="relu"), {}, "chain.activation must be 'linear', got chain.activation='relu'"),
        (Chain(), {"depth": 81}, "depth must be a multiple of 80, got depth=81"),
        (Chain(), {"burn_in": 3}, "burn_in must be a non-negative multiple of qr_every=4, got burn_in=3"),
        (Chain(), {"count": 2}, r"count must be an integer from min\(d, N\)=3 to d=8, got count=2"),
        (Chain(), {"count": 9}, "count must be an integer"),
        (Chain(), {"blocks": 0}, "blocks must be a positive integer, got blocks=0"),
    ],
)
def test_bad_arguments_are_named(chain, kwargs, message):
    x = gaussian_inputs(8, 3, 1)[0]
    with pytest.raises(ValueError, match=message):
        lyapunov_exponents(chain, x, **{"depth": 80, "generator": inits.generators([0])} | kwargs)


@pytest.mark.parametrize("d", [0, -1, 2.0])
def test_the_closed_form_needs_a_width(d):
    with pytest.raises(ValueError, match="d must be a positive integer"):
        gaussian_exponents(d)
