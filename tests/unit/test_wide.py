"""The wide limit: its law against quadrature and semicircles, and the reduced chain against full matrices."""

import math

import pytest
import torch

from firststep import chain, inits, wide
from firststep.lyapunov import lyapunov_exponents

pytestmark = pytest.mark.usefixtures("clean_environment")
F64 = {"dtype": torch.float64, "device": "cpu"}


def integral(function, a, low=None):
    """∫ function(x) ρ(x) dx over the support, or from ``low``, with x = a + cos θ, where the integrand is smooth."""
    theta = torch.linspace(0, math.pi if low is None else math.acos(low - a), 200_001, **F64)
    x = (a + theta.cos()).clamp_min(1e-300)
    return float(torch.trapezoid(function(x) * wide.density(x, a) * theta.sin(), theta))


@pytest.mark.parametrize("a", [1.0, 1.25, 3.0])
@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_moments_are_integrals_of_the_density(a, order):
    assert integral(lambda x: x**order, a) == pytest.approx(wide.moment(order, a), rel=1e-6)


def test_the_first_moments_at_the_edge_are_one_one_five_and_seven_quarters():
    assert [wide.moment(n) for n in (1, 2, 3, 4)] == [1, 1, 1.25, 1.75]


@pytest.mark.parametrize("level", [0.1, 0.5, 1.0, 1.9])
def test_counts_are_integrals_of_the_density(level):
    assert integral(torch.ones_like, 1.0, level) == pytest.approx(wide.count_above(level), rel=1e-5)


def test_the_law_holds_two_root_d_eigenvalues_and_no_mass_outside():
    assert wide.count_above(0) == pytest.approx(2) and wide.count_above(2) == 0
    assert wide.density(torch.tensor([-0.1, 0.0, 2.1], **F64)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
def test_the_centre_belongs_to_the_number_of_samples(c):
    a = wide.centre(c)
    assert 2 * (a - math.sqrt(a * a - 1)) == pytest.approx(c)
    assert wide.centre(5.0) == 1.0


def test_the_limit_spectrum_has_the_moments_of_the_law():
    for d, close in ((100, 0.1), (10_000, 0.01)):
        p = wide.limit_spectrum(d, device="cpu")
        assert len(p) == 2 * math.sqrt(d) and float(p.sum()) == pytest.approx(1)
        assert float(p.square().sum()) * math.sqrt(d) == pytest.approx(1, abs=close)


def test_the_rate_is_two_gamma_squared_d_for_a_weak_branch_and_one_without_skips():
    assert wide.rate(1e-4, 100) == pytest.approx(2e-6, rel=1e-4)
    assert wide.rate(math.inf, 7) == 1.0 and wide.rate(0.0, 7) == 0.0


@pytest.mark.parametrize("gamma", [math.inf, 1.0, 0.2])
def test_one_reduced_layer_has_the_law_of_a_full_one(gamma):
    d, n, seeds = 6, 4, 20_000
    g = inits.generator(0, device="cpu")
    x = torch.nn.functional.normalize(torch.randn(d, n, generator=g, **F64), dim=-1).expand(seeds, d, n)
    noise = torch.randn(seeds, d, d, generator=g, **F64)
    full = chain.Chain(gamma).layer(noise, x * math.sqrt(n)) / math.sqrt(n)
    axes = torch.linalg.eigh(x[0].T @ x[0])
    reduced = torch.randn(seeds, d, n, generator=g, **F64) * axes.eigenvalues.clamp_min(0).sqrt()
    rows = reduced if gamma == math.inf else x @ axes.eigenvectors + gamma * reduced
    reduced = torch.nn.functional.normalize(rows, dim=-1)
    for power in (2, 3):  # Tr M², Tr M³
        a, b = (torch.linalg.matrix_power(h @ h.mT, power).diagonal(dim1=1, dim2=2).sum(-1) for h in (full, reduced))
        assert abs(a.mean() - b.mean()) < 4.5 * math.hypot(a.std(), b.std()) / seeds**0.5


@pytest.mark.parametrize("gamma", [math.inf, 0.3])
def test_the_reduced_chain_has_the_stationary_averages_of_the_full_one(gamma):
    d, seeds = 12, 8
    g = inits.generators(range(seeds), device="cpu")
    options = {"depth": 2_000, "every": 2, "blocks": 5, "burn_in": 200}
    ours = wide.averages(wide.unit_rows(d, d, g), gamma=gamma, generator=g, **options)
    x = wide.unit_rows(d, d, g) * math.sqrt(d)
    measure = {"r": chain.State.stable_rank, "terms": chain.State.regularity_terms}
    theirs = chain.depth_average(chain.Chain(gamma), x, generator=g, measure=measure, **options)
    for a, b in (
        (ours["stable_rank"] * math.sqrt(d), theirs.blocks["r"]),
        (ours["terms"][..., 0] * d**2, theirs.blocks["terms"][..., 0]),
        (ours["terms"][..., 1] * d**2, theirs.blocks["terms"][..., 1]),
    ):
        a, b = a.flatten(), b.flatten()
        assert abs(a.mean() - b.mean()) < 4.5 * math.hypot(a.std(), b.std()) / len(a) ** 0.5


def test_the_summaries_of_orthonormal_columns_are_those_of_equal_eigenvalues():
    h = torch.eye(4, **F64).repeat(4, 1)[None]  # 16 rows, four equal eigenvalues of M/√d: 4/4
    found = wide.summaries(h)
    assert found["top"].item() == pytest.approx(1) and found["moments"][0].tolist() == pytest.approx([1, 1, 1])
    assert found["stable_rank"].item() == pytest.approx(1) and found["above"][0, :2].tolist() == [1, 1]
    assert found["terms"][0].tolist() == pytest.approx([1, 1])
    assert found["histogram"].sum().item() * wide.EDGES[1] == pytest.approx(1)


def test_equal_gains_change_nothing():
    def g():
        return inits.generators(2, device="cpu")

    options = {"gamma": 0.5, "depth": 40, "every": 2, "blocks": 2, "burn_in": 4}
    plain = wide.averages(wide.unit_rows(6, 5, g()), generator=g(), **options)
    gained = wide.averages(wide.unit_rows(6, 5, g()), generator=g(), gains=torch.ones(6, **F64), **options)
    assert torch.allclose(plain["moments"], gained["moments"])


def test_exponents_agree_with_those_of_full_matrices():
    d, n = 8, 3
    g = inits.generators(4, device="cpu")
    ours = wide.exponents(d, n, d, depth=4_000, burn_in=200, blocks=20, generator=g).flatten(0, 1)
    x = wide.unit_rows(d, n, g)
    theirs = lyapunov_exponents(chain.Chain(), x, depth=4_000, burn_in=200, generator=g).flatten(0, 1)
    error = (ours.var(0) + theirs.var(0)).sqrt() / len(ours) ** 0.5
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 4.5 * error).all()
    assert (ours.mean(0)[:n].abs() < 4.5 * error[:n]).all()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: wide.centre(0), "samples"),
        (lambda: wide.density(torch.ones(2, **F64), 0.5), "a"),
        (lambda: wide.moment(0), "order"),
        (lambda: wide.count_above(3), "level"),
        (lambda: wide.rate(-1.0, 3), "gamma"),
        (
            lambda: next(wide.states(torch.ones(1, 3, 2, **F64), gamma=0.0, depth=1, generator=inits.generators(1))),
            "gamma",
        ),
        (lambda: wide.exponents(4, 3, 2, depth=4, burn_in=0, blocks=2, generator=inits.generators(1)), "count"),
        (lambda: wide.exponents(4, 3, 3, depth=5, burn_in=0, blocks=2, generator=inits.generators(1)), "depth"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=rf"^{name} must be"):
        call()
