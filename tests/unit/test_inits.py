"""Initializers against their laws: closed-form moments, distribution functions, and torch's own draws."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from firststep import inits, spectra

DTYPES = [torch.float32, torch.float64]
seeds = st.integers(0, 10_000)
widths = st.lists(st.integers(1, 8), min_size=2, max_size=5)
few = settings(max_examples=40)


def seed(number):
    return torch.Generator().manual_seed(number)


def draw(name, rows, columns, number=0, dtype=torch.float64):
    return inits.matrix(name, rows, columns, generator=seed(number), dtype=dtype)


def normal(x):
    return torch.special.ndtr(x)


def truncated(x):
    """Distribution function of a standard normal that is redrawn outside ±2."""
    low, high = normal(torch.tensor([-2.0, 2.0], dtype=torch.float64))
    return ((normal(x) - low) / (high - low)).clamp(0, 1)


def uniform(x):
    """Distribution function of a uniform variable of variance one."""
    return ((x / math.sqrt(3) + 1) / 2).clamp(0, 1)


def kolmogorov_distance(sample, distribution):
    """Largest gap between the empirical and the given distribution function."""
    values = distribution(sample.flatten().sort().values.double())
    n = len(values)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return float(torch.maximum((values - steps[:-1]).abs(), (values - steps[1:]).abs()).max())


# Laws of independent entries: variance by fan-in and fan-out, the distribution function at variance one, and the bound.
# A standard normal cut at ±2 keeps the variance 1 − 4φ(2)/(2Φ(2) − 1).
CUT = 1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2))
LAWS = {
    "xavier_normal": (lambda i, o: 2 / (i + o), normal, math.inf),
    "xavier_uniform": (lambda i, o: 2 / (i + o), uniform, math.sqrt(3)),
    "he_normal": (lambda i, o: 2 / i, normal, math.inf),
    "he_uniform": (lambda i, o: 2 / i, uniform, math.sqrt(3)),
    "lecun_normal": (lambda i, o: 1 / i, normal, math.inf),
    "lecun_uniform": (lambda i, o: 1 / i, uniform, math.sqrt(3)),
    "curvature_normal": (lambda i, o: (i**0.5 + o**0.5) ** -2, normal, math.inf),
    "curvature_uniform": (lambda i, o: (i**0.5 + o**0.5) ** -2, uniform, math.sqrt(3)),
    "truncated_normal": (lambda i, o: 1 / i, truncated, 2.0),
    "sign": (lambda i, o: 1.0, None, 1.0),
}


def gain(a, b):
    """Gain that turns Xavier's standard deviation √(2/(a + b)) into Skorski's 1/(√a + √b)."""
    return math.sqrt((a + b) / 2) / (math.sqrt(a) + math.sqrt(b))


def test_every_scheme_has_a_law_here():
    assert set(LAWS) | {"orthogonal", "identity"} == set(inits.INITIALIZERS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, columns", [(100, 300), (300, 100), (173, 173)])
@pytest.mark.parametrize("name", LAWS)
def test_entries_follow_the_law_of_the_scheme(name, rows, columns, dtype):
    variance, distribution, bound = LAWS[name]
    w = draw(name, rows, columns, dtype=dtype)
    assert w.dtype == dtype
    standard = w.double() / math.sqrt(variance(columns, rows))
    assert standard.abs().max() <= bound * (1 + 1e-6)
    n, spread = w.numel(), CUT if name == "truncated_normal" else 1.0
    assert abs(float(standard.mean())) < 5 / math.sqrt(n)
    # The variance of a sample variance is at most 2/n times its square for laws with no heavier tails than the normal.
    assert abs(float(standard.var()) / spread - 1) < 5 * math.sqrt(2 / n)
    if distribution is not None:
        # The 99.9 % point of Kolmogorov's distribution is 1.95; a law that is 2 % too wide would fail the line above.
        assert kolmogorov_distance(standard, distribution) < 1.95 / math.sqrt(n)


@pytest.mark.parametrize(
    "name, draw_",
    [
        ("xavier_normal", lambda w, g: nn.init.xavier_normal_(w, generator=g)),
        ("xavier_uniform", lambda w, g: nn.init.xavier_uniform_(w, generator=g)),
        ("he_normal", lambda w, g: nn.init.kaiming_normal_(w, mode="fan_in", nonlinearity="relu", generator=g)),
        ("he_uniform", lambda w, g: nn.init.kaiming_uniform_(w, mode="fan_in", nonlinearity="relu", generator=g)),
        ("lecun_normal", lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="linear", generator=g)),
        ("lecun_uniform", lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="linear", generator=g)),
        ("curvature_normal", lambda w, g: nn.init.xavier_normal_(w, gain=gain(*w.shape), generator=g)),
        ("curvature_uniform", lambda w, g: nn.init.xavier_uniform_(w, gain=gain(*w.shape), generator=g)),
        ("orthogonal", lambda w, g: nn.init.orthogonal_(w, generator=g)),
        ("identity", lambda w, g: nn.init.eye_(w)),
    ],
)
def test_draws_equal_those_of_torch_from_the_same_seed(name, draw_):
    for rows, columns in ((4, 7), (7, 4), (1, 1), (100, 3)):
        expected = draw_(torch.empty(rows, columns, dtype=torch.float64), seed(5))
        # The two standard deviations may differ in their last bits.
        torch.testing.assert_close(draw(name, rows, columns, 5), expected, rtol=2e-15, atol=0)


def test_the_curvature_draw_is_not_xaviers():
    # The comparison above would not notice a gain of one.
    assert not torch.allclose(draw("curvature_normal", 4, 7), draw("xavier_normal", 4, 7), rtol=0.1)


@given(rows=st.integers(1, 5_000), columns=st.integers(1, 5_000))
def test_sigma_is_the_standard_deviation_of_the_law(rows, columns):
    for name, (variance, _, _) in LAWS.items():
        kept = CUT if name == "truncated_normal" else 1.0
        assert math.isclose(inits.sigma(name, rows, columns), math.sqrt(kept * variance(columns, rows)), rel_tol=1e-14)


@given(rows=st.integers(1, 5_000), columns=st.integers(1, 5_000))
def test_the_curvature_scale_is_between_half_and_0_71_of_xaviers_and_symmetric_in_the_widths(rows, columns):
    ratio = inits.sigma("curvature_normal", rows, columns) / inits.sigma("xavier_normal", rows, columns)
    assert 0.5 - 1e-12 <= ratio < math.sqrt(0.5)
    assert math.isclose(ratio, gain(rows, columns), rel_tol=1e-14)
    # Transposition changes nothing; He's and LeCun's scales see the fan-in only.
    for law in ("normal", "uniform"):
        here, there = (inits.sigma(f"curvature_{law}", *shape) for shape in ((rows, columns), (columns, rows)))
        assert here == there
    assert inits.sigma("he_normal", rows, columns) == inits.sigma("he_normal", 1, columns)


def test_the_curvature_scale_by_hand():
    assert inits.sigma("curvature_normal", 9, 16) == 1 / 7
    assert inits.sigma("curvature_uniform", 4, 4) == 1 / 4
    assert inits.sigma("xavier_normal", 4, 4) == 1 / 2


@pytest.mark.parametrize("rows, columns", [(200, 200), (400, 100), (30, 784)])
def test_a_curvature_draw_has_spectral_norm_about_one(rows, columns):
    # Gordon's inequality: the mean is at most one. Below it by Tracy and Widom's 0.6 σ/μ, 3 % at these sizes.
    for name in ("curvature_normal", "curvature_uniform"):
        norms = [float(torch.linalg.matrix_norm(draw(name, rows, columns, k), 2)) for k in range(20)]
        assert 0.96 < sum(norms) / 20 < 1


@pytest.mark.parametrize("name", ["orthogonal", "identity", "curvature", "Xavier", None, 3])
def test_dependent_entries_have_no_sigma(name):
    with pytest.raises(ValueError, match=r"name must be one of curvature_normal, .*, got name=") as caught:
        inits.sigma(name, 3, 4)
    assert repr(name) in str(caught.value)
    assert "orthogonal" not in str(caught.value).split(", got ")[0]


@pytest.mark.parametrize("argument, value", [("rows", 0), ("columns", -1), ("rows", 2.0), ("columns", True)])
def test_sigma_wants_a_shape(argument, value):
    with pytest.raises(ValueError, match=rf"^{argument} must be a positive integer, got {argument}={value!r}$"):
        inits.sigma("he_normal", **{"rows": 2, "columns": 3, argument: value})


@few
@given(rows=st.integers(1, 20), columns=st.integers(1, 20), number=seeds, dtype=st.sampled_from(DTYPES))
def test_the_shorter_side_of_an_orthogonal_matrix_is_orthonormal(rows, columns, number, dtype):
    w = draw("orthogonal", rows, columns, number, dtype)
    gram = w @ w.mT if rows <= columns else w.mT @ w
    identity = torch.eye(min(rows, columns), dtype=dtype)
    torch.testing.assert_close(gram, identity, rtol=0, atol=50 * torch.finfo(dtype).eps)


def test_orthogonal_matrices_are_uniform_over_the_orthogonal_group():
    # Under Haar measure on O(n): E tr = 0, E tr² = 1, and reflections are as likely as rotations. A QR factorization
    # whose signs are not put right fails the first.
    n = 4_000
    generator = seed(0)
    w = torch.stack([inits.matrix("orthogonal", 3, 3, generator=generator) for _ in range(n)])
    trace = w.diagonal(dim1=-2, dim2=-1).sum(-1)
    assert abs(float(trace.mean())) < 5 / math.sqrt(n)
    assert abs(float(trace.square().mean()) - 1) < 5 * float(trace.square().std()) / math.sqrt(n)
    assert abs(float((torch.linalg.det(w) > 0).double().mean()) - 0.5) < 2.5 / math.sqrt(n)


@given(rows=st.integers(1, 9), columns=st.integers(1, 9))
def test_the_identity_scheme_has_ones_on_the_main_diagonal(rows, columns):
    assert torch.equal(draw("identity", rows, columns), torch.eye(rows, columns, dtype=torch.float64))


@pytest.mark.parametrize("size", [2, 3])
def test_sign_matrices_are_singular_as_often_as_counting_them_says(size):
    every = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=size**2))).reshape(-1, size, size)
    share = float((torch.linalg.det(every).round() == 0).double().mean())
    generator, n = seed(0), 4_000
    w = torch.stack([inits.matrix("sign", size, size, generator=generator) for _ in range(n)])
    assert set(w.unique().tolist()) == {-1.0, 1.0}
    found = float((torch.linalg.det(w).round() == 0).double().mean())
    assert abs(found - share) < 5 * math.sqrt(share * (1 - share) / n)


# Networks


@few
@given(widths=widths, name=st.sampled_from(sorted(inits.INITIALIZERS)), number=seeds)
def test_a_network_is_its_layers_drawn_one_after_the_other(widths, name, number):
    generator = seed(number)
    weights = inits.network(widths, name, generator=seed(number))
    for (before, after), weight in zip(itertools.pairwise(widths), weights, strict=True):
        assert torch.equal(weight, inits.matrix(name, after, before, generator=generator))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*inits.INITIALIZERS, "prescribed rank, aligned", "prescribed rank, unaligned"])
def test_seed_k_of_a_batch_equals_seed_k_alone_bit_for_bit(name, dtype):
    def net(generator):
        if name in inits.INITIALIZERS:
            return inits.network((7, 5, 6), name, generator=generator, dtype=dtype)
        aligned = name.endswith(", aligned")
        return inits.prescribed_rank((7, 5, 6), (3, 2), aligned=aligned, generator=generator, dtype=dtype)

    batch = net(inits.generators(9))
    assert [tuple(w.shape) for w in batch] == [(9, 5, 7), (9, 6, 5)]
    for k in (0, 3, 8):
        for many, one in zip(batch, net(seed(k)), strict=True):
            assert one.dtype == dtype
            assert torch.equal(many[k], one)


def test_generators_count_from_zero_or_take_the_seeds_given():
    assert [g.initial_seed() for g in inits.generators(3)] == [0, 1, 2]
    assert [g.initial_seed() for g in inits.generators([7, 2**40])] == [7, 2**40]


# Prescribed ranks


def draw_ranks(data, widths, least=0):
    return [data.draw(st.integers(least, min(pair)), label="rank") for pair in itertools.pairwise(widths)]


@few
@given(widths=widths, aligned=st.booleans(), number=seeds, dtype=st.sampled_from(DTYPES), data=st.data())
def test_factors_have_the_prescribed_ranks_and_the_size_of_xavier(widths, aligned, number, dtype, data):
    ranks = draw_ranks(data, widths)
    weights = inits.prescribed_rank(widths, ranks, aligned=aligned, generator=seed(number), dtype=dtype)
    for weight, r, (before, after) in zip(weights, ranks, itertools.pairwise(widths), strict=True):
        assert weight.shape == (after, before)
        sigma = torch.linalg.svdvals(weight)
        assert (sigma[r:] <= 1e-5 * sigma[:1]).all()
        assert (sigma[:r] > 0).all()
        mean_square = torch.tensor(2 / (before + after) if r else 0.0, dtype=dtype)
        torch.testing.assert_close(weight.square().mean(), mean_square, rtol=1e-5, atol=0)


@few
@given(widths=widths, aligned=st.booleans(), number=seeds, data=st.data())
def test_neighbouring_subspaces_are_nested_if_aligned_and_in_general_position_if_not(widths, aligned, number, data):
    ranks = draw_ranks(data, widths, least=1)
    weights = inits.prescribed_rank(widths, ranks, aligned=aligned, generator=seed(number))
    for d, r, s, below, above in zip(widths[1:], ranks, ranks[1:], weights, weights[1:], strict=False):
        both = torch.cat([below, above.mT], -1)
        assert spectra.numerical_rank(both, 1e-9) == (max(r, s) if aligned else min(d, r + s))


def test_one_integer_is_the_rank_of_every_factor():
    weights = inits.prescribed_rank((6, 5, 4), 2, aligned=True, generator=seed(0))
    assert [int(spectra.numerical_rank(w, 1e-9)) for w in weights] == [2, 2]


def test_the_row_space_of_a_factor_of_prescribed_rank_is_uniform():
    # For a uniform line in R³ with unit vector u: E uuᵀ = I/3.
    weights = inits.prescribed_rank((3, 3), 1, aligned=False, generator=inits.generators(1_000))[0]
    u = torch.linalg.svd(weights).Vh[:, 0]
    mean = (u[:, :, None] * u[:, None]).mean(0)
    torch.testing.assert_close(mean, torch.eye(3, dtype=mean.dtype) / 3, rtol=0, atol=5 * 0.3 / math.sqrt(1_000))
