"""Chains of random layers against explicit loops, dense formulas, and the states that never move."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import chain, inits, spectra
from firststep.chain import Chain, State

DOUBLE = {"dtype": torch.float64}
MEASURES = {"m": lambda s: s.m, "r": chain.State.stable_rank, "soft": lambda state: state.soft_rank([0.25, 0.5])}

seeds = st.integers(0, 10**6)
sizes = st.integers(1, 9)
laws = st.sampled_from(sorted(chain.LAWS))
gammas = st.sampled_from([0.0, 0.01, 0.3, 1.0, 7.0, math.inf])
few = settings(deadline=None, max_examples=40)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def gaussian(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def close(found, expected, **tolerance):
    torch.testing.assert_close(found, expected, **({"rtol": 1e-10, "atol": 1e-12} | tolerance))


# Batch normalization


@few
@given(sizes, st.integers(1, 12), seeds)
def test_batch_norm_gives_every_row_norm_root_n(d, n, seed):
    h = chain.batch_norm(gaussian(3, d, n, seed=seed))
    close(h.norm(dim=-1), torch.full((3, d), math.sqrt(n), **DOUBLE))


@few
@given(sizes, st.integers(1, 12), st.lists(st.floats(-300, 300), min_size=9, max_size=9), seeds)
def test_batch_norm_does_not_see_the_scale_of_a_row_from_the_smallest_to_the_largest_number(d, n, powers, seed):
    h = gaussian(d, n, seed=seed)
    factors = 10.0 ** torch.tensor(powers[:d], **DOUBLE)
    close(chain.batch_norm(factors[:, None] * h), chain.batch_norm(h), rtol=1e-9)


@pytest.mark.parametrize(("dtype", "extreme"), [(torch.float32, 1e38), (torch.float64, 1e308)])
def test_batch_norm_neither_overflows_nor_vanishes(dtype, extreme):
    h = torch.tensor([[1.0, -2.0, 2.0], [3.0, 0.0, 4.0]], dtype=dtype)
    expected = chain.batch_norm(h)
    close(chain.batch_norm(h / 4 * extreme), expected, rtol=1e-6, atol=0)
    close(chain.batch_norm(h / extreme), expected, rtol=1e-6, atol=0)


def test_batch_norm_is_idempotent_and_keeps_the_mean():
    h = chain.batch_norm(gaussian(4, 7) + 3)
    close(chain.batch_norm(h), h)
    assert (h.mean(-1) > 0.5).all()


def test_batch_norm_of_a_zero_row_is_an_error():
    h = gaussian(3, 4)
    h[1] = 0
    with pytest.raises(ValueError, match="h must have no row of zeros"):
        chain.batch_norm(h)


# One layer


@few
@given(sizes, st.integers(1, 9), gammas, laws, seeds)
def test_layer_is_its_formula(d, n, gamma, law, seed):
    h, weight = gaussian(2, d, n, seed=seed), chain.LAWS[law](torch.empty(2, d, d, **DOUBLE), generator(seed + 1))
    branch = weight @ h if gamma == math.inf else h + gamma * weight @ h
    close(Chain(gamma, law, "none").layer(weight, h), branch)
    if (branch.norm(dim=-1) > 1e-6).all():
        rows = math.sqrt(n) * branch / branch.norm(dim=-1, keepdim=True)
        close(Chain(gamma, law).layer(weight, h), rows)
        close(Chain(gamma, law, activation="relu").layer(weight, h), rows.clamp_min(0))
        whole = math.sqrt(n * d) * branch / branch.norm(dim=(-2, -1), keepdim=True)
        close(Chain(gamma, law, "frobenius").layer(weight, h), whole)


@few
@given(sizes, st.integers(1, 9), gammas, seeds)
def test_layer_commutes_with_signs_of_rows_and_with_rotations_of_samples(d, n, gamma, seed):
    h, weight = gaussian(1, d, n, seed=seed), gaussian(1, d, d, seed=seed + 1)
    signs = torch.diag(gaussian(d, seed=seed + 2).sign())
    rotation = inits.matrix("orthogonal", n, n, generator=generator(seed))
    step = Chain(gamma)
    after = step.layer(weight, h)
    close(step.layer(signs @ weight @ signs, signs @ h), signs @ after, rtol=1e-7, atol=1e-9)
    close(step.layer(weight, h @ rotation), after @ rotation, rtol=1e-7, atol=1e-9)


def test_zero_strength_is_the_identity_on_normalized_states():
    x = chain.batch_norm(gaussian(5, 6))
    found = chain.follow(Chain(0.0), x, generator=generator(), measure={"h": lambda s: s.h}, at=[1, 50])["h"]
    close(found, x.expand(2, 1, 5, 6))


def test_large_strength_tends_to_the_chain_without_skip_connections():
    h, weight = gaussian(1, 5, 5), gaussian(1, 5, 5, seed=1)
    close(Chain(1e9).layer(weight, h), Chain().layer(weight, h), rtol=1e-6, atol=1e-6)


@few
@given(st.integers(1, 12), st.integers(1, 9), st.sampled_from([("uniform", math.sqrt(3)), ("sign", 1.0)]), seeds)
def test_rank_one_state_is_a_fixed_point_below_the_bound_on_gamma(d, n, law, seed):
    name, bound = law
    x = chain.collinear_inputs(d, n, 0.0, generator=generator(seed))
    options = {"generator": generator(seed + 1), "measure": {"h": lambda s: s.h}, "at": [1]}
    close(chain.follow(Chain(0.99 / (bound * d), name), x, **options)["h"][0, 0], x, rtol=1e-9, atol=1e-11)


def test_the_bound_of_the_fixed_points_is_sharp():
    d, bound = 6, math.sqrt(3)
    x = chain.collinear_inputs(d, 5, 0.0, generator=generator())[None]
    signs = (x[..., :1] * x[:, :1, :1]).sign()
    worst = -bound * signs @ signs.mT
    close(Chain(0.999 / (bound * d)).layer(worst, x), x, rtol=1e-9)
    close(Chain(1.001 / (bound * d)).layer(worst, x), -x, rtol=1e-9)


def test_angle_of_two_neurons_is_uniform_for_small_gamma():
    # For a uniform angle E M₁₂² = ½ and E r = √2; the start has M₁₂² = 0.76 and r = 1.13.
    generators = inits.generators(200)
    x = chain.batch_norm(torch.tensor([[1.0, 0.0], [0.9, 0.5]], **DOUBLE))
    measure = {"square": lambda s: s.m[:, 0, 1].square(), "r": chain.State.stable_rank}
    options = {"depth": 3_000, "burn_in": 1_000, "every": 10, "blocks": 1, "measure": measure}
    found = chain.depth_average(Chain(0.1, "uniform"), x, generator=generators, **options)
    for name, expected in (("square", 0.5), ("r", math.sqrt(2))):
        assert abs(found.mean(name) - expected) < 4 * found.standard_error(name) + 0.01
        assert found.standard_error(name) < 0.01


# Laws of the weights


@pytest.mark.parametrize("law", chain.LAWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_are_symmetric_with_mean_zero_and_variance_one(law, dtype):
    weight = chain.LAWS[law](torch.empty(400, 400, dtype=dtype), generator()).double()
    error = 1 / 400  # of the mean; the third moment has variance 15 at most
    assert abs(weight.mean()) < 4 * error
    assert abs(weight.square().mean() - 1) < 4 * math.sqrt(2) * error
    assert abs(weight.pow(3).mean()) < 4 * math.sqrt(15) * error
    assert abs((weight > 0).double().mean() - 0.5) < 4 * error / 2


def test_fourth_moments_and_bounds_tell_the_laws_apart():
    weights = {law: draw(torch.empty(400, 400, **DOUBLE), generator()) for law, draw in chain.LAWS.items()}
    for law, fourth in (("gaussian", 3.0), ("uniform", 9 / 5), ("sign", 1.0)):
        assert abs(weights[law].pow(4).mean() - fourth) < 4 * math.sqrt(96) / 400
    assert weights["uniform"].abs().max() <= math.sqrt(3)
    assert set(weights["sign"].unique().tolist()) == {-1.0, 1.0}


# Following a chain


class Spy(Chain):
    """A chain that keeps the weights of its layers."""

    def _layer(self, weight, h):
        self.__dict__.setdefault("seen", []).append(weight)
        return Chain._layer(self, weight, h)


@few
@given(st.integers(2, 9), st.integers(1, 9), gammas, st.sampled_from(["gaussian", "uniform"]), seeds)
def test_follow_is_an_explicit_loop_over_the_same_layers(d, n, gamma, law, seed):
    spy, x, at = Spy(gamma, law), gaussian(d, n, seed=seed), [0, 1, 3, 12]
    found = chain.follow(spy, x, generator=generator(seed), measure={"h": lambda s: s.h}, at=at)["h"]
    assert [weight.shape for weight in spy.seen] == [(1, d, d)] * 12
    h, history = x[None], [x[None]]
    for weight in spy.seen:
        h = Chain(gamma, law).layer(weight, h)
        history.append(h)
    close(found, torch.stack([history[depth] for depth in at]), rtol=0, atol=0)


STEPS = [Chain(), Chain(0.3, "uniform"), Chain(1.0, "sign", "frobenius"), Chain(0.2, activation="relu")]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("d", [3, 300])  # at 300 weights are drawn two layers at a time
def test_first_hundred_layers_are_the_same_in_a_longer_run(step, d):
    depth = 100 if d == 3 else 5
    x, options = gaussian(d, 4), {"measure": {"h": lambda s: s.h}}
    short = chain.follow(step, x, generator=generator(3), at=[0, 1, depth], **options)["h"]
    long = chain.follow(step, x, generator=generator(3), at=[0, 1, depth, 3 * depth], **options)["h"]
    close(long[:3], short, rtol=0, atol=0)


def test_every_layer_has_fresh_weights():
    spy, depth = Spy(), 45  # at d = 150 weights are drawn eleven layers at a time
    chain.follow(spy, gaussian(150, 1), generator=generator(), measure=MEASURES, at=[depth])
    assert len({float(weight.sum()) for weight in spy.seen}) == len(spy.seen) == depth
    entries = torch.stack([weight[0, 0, :50] for weight in spy.seen]).flatten()
    assert abs(entries.mean()) < 4 / math.sqrt(len(entries))


@pytest.mark.parametrize("step", [Chain(), Chain(0.3, "uniform"), Chain(0.1, "sign", "frobenius")])
def test_seed_three_of_a_batch_is_seed_three_alone(step):
    x, at = gaussian(5, 6), [0, 1, 20]
    batch = chain.follow(step, x, generator=inits.generators(5), measure=MEASURES, at=at)
    alone = chain.follow(step, x, generator=inits.generators([3]), measure=MEASURES, at=at)
    for name in MEASURES:
        close(batch[name][:, 3:4], alone[name])


def test_each_seed_may_have_inputs_of_its_own():
    x = gaussian(3, 5, 6)
    batch = chain.follow(Chain(), x, generator=inits.generators(3), measure={"m": lambda s: s.m}, at=[4])["m"]
    for seed in range(3):
        alone = chain.follow(Chain(), x[seed], generator=generator(seed), measure={"m": lambda s: s.m}, at=[4])["m"]
        close(batch[:, seed], alone[:, 0])


def test_depths_come_back_sorted_and_once():
    options = {"generator": generator(), "measure": {"depth": lambda s: s.h[:, 0, 0]}}
    x = gaussian(4, 4)
    mixed = chain.follow(Chain(), x, at=[7, 0, 3, 3], **options)["depth"]
    options["generator"] = generator()
    close(mixed, chain.follow(Chain(), x, at=[0, 3, 7], **options)["depth"], rtol=0, atol=0)


def test_rank_never_rises_beyond_the_number_of_samples():
    x = gaussian(8, 2)
    found = chain.follow(Chain(), x, generator=generator(), measure={"r": chain.State.stable_rank}, at=range(200))["r"]
    assert (found <= 2 + 1e-9).all() and (found >= 1 - 1e-9).all()


@few
@given(st.integers(2, 8), gammas, laws, seeds)
def test_normalizing_as_a_whole_changes_no_direction(d, gamma, law, seed):
    x, at = gaussian(d, d, seed=seed), [0, 1, 5]
    options = {"measure": {"h": lambda s: s.h / s.h.norm(dim=(-2, -1), keepdim=True)}, "at": at}
    try:
        whole = chain.follow(Chain(gamma, law, "frobenius"), x, generator=generator(seed), **options)["h"]
    except ValueError:  # small sign matrices may multiply to zero, which is no state of the chain
        assert law == "sign" and d == 2
        return
    plain = chain.follow(Chain(gamma, law, "none"), x, generator=generator(seed), **options)["h"]
    close(whole, plain, rtol=1e-8, atol=1e-9)


# Averages over depth


@pytest.mark.parametrize(
    ("depth", "burn_in", "every", "blocks"), [(24, 0, 1, 4), (24, 5, 2, 3), (12, 3, 12, 1), (8, 0, 1, 8)]
)
def test_depth_average_is_the_mean_of_the_history(depth, burn_in, every, blocks):
    x, step = gaussian(5, 5), Chain(0.4)
    options = {"depth": depth, "burn_in": burn_in, "every": every, "blocks": blocks, "measure": MEASURES}
    found = chain.depth_average(step, x, generator=inits.generators(3), **options)
    at = range(burn_in + every, burn_in + depth + 1, every)
    history = chain.follow(step, x, generator=inits.generators(3), measure=MEASURES | {"h": lambda s: s.h}, at=at)
    for name in MEASURES:
        parts = history[name].double().unflatten(0, (blocks, -1)).mean(1)
        close(found.blocks[name], parts)
        close(found.mean(name), history[name].double().mean((0, 1)))
        close(found.standard_error(name), parts.flatten(0, 1).std(0) / math.sqrt(3 * blocks))
    if (burn_in + depth) in at:
        close(found.h, history["h"][-1], rtol=0, atol=0)


def test_standard_error_of_a_known_case():
    blocks = torch.tensor([[1.0, 3.0], [5.0, 7.0]], **DOUBLE)  # two blocks, two seeds
    average = chain.DepthAverage({"a": blocks}, h=torch.zeros(2, 1, 1))
    assert average.mean("a") == 4
    close(average.standard_error("a"), torch.tensor(math.sqrt(20 / 3 / 4), **DOUBLE))


def test_standard_error_covers_the_scatter_between_seeds():
    # At γ = ∞ one layer forgets the signs, so blocks of 40 layers are independent, as the seeds are.
    generators = inits.generators(60)
    options = {"depth": 400, "blocks": 10, "measure": {"m": lambda s: s.m[:, 0, 1]}}
    found = chain.depth_average(Chain(), gaussian(4, 4), generator=generators, burn_in=20, **options)
    by_seed = found.blocks["m"].mean(0).std() / math.sqrt(60)
    assert 0.7 < by_seed / found.standard_error("m") < 1.4
    assert abs(found.mean("m")) < 4 * found.standard_error("m")


def test_measures_that_return_the_same_cached_tensor_are_summed_apart():
    measure = {"m": lambda s: s.m, "again": lambda s: s.m}
    x, options = gaussian(3, 3), {"depth": 6, "blocks": 2, "measure": measure}
    found = chain.depth_average(Chain(), x, generator=generator(), **options)
    history = chain.follow(Chain(), x, generator=generator(), measure=measure, at=range(1, 7))
    for name in measure:
        close(found.blocks[name], history[name].unflatten(0, (2, 3)).mean(1))


# Measures


@few
@given(sizes, st.integers(1, 12), st.floats(1e-6, 1), seeds)  # at 0 round-off decides what counts
def test_soft_rank_is_that_of_the_singular_values(d, n, tau, seed):
    h = chain.batch_norm(gaussian(3, d, n, seed=seed))
    close(State(h).soft_rank(tau), spectra.soft_rank(h, tau))
    close(State(h).soft_rank([tau, 0.5])[:, 0], spectra.soft_rank(h, tau))
    close(State(h).soft_rank([tau, 0.5])[:, 1], spectra.soft_rank(h, 0.5))


def test_soft_rank_counts_a_value_at_the_threshold():
    h = torch.zeros(3, 4, **DOUBLE)
    h.diagonal().copy_(torch.tensor([4.0, 2.0, 1.0]))  # σ²/N = 4, 1, ¼ without rounding
    assert State(h).soft_rank([0.2, 0.25, 0.26, 1.0]).tolist() == [3, 3, 2, 2]


@few
@given(sizes, st.integers(1, 12), seeds)
def test_stable_rank_is_that_of_the_spectra(d, n, seed):
    h = gaussian(3, d, n, seed=seed)
    close(chain.State.stable_rank(State(h)), spectra.stable_rank(h))


@few
@given(sizes, st.integers(1, 12), seeds)
def test_other_measures_are_their_dense_formulas(d, n, seed):
    h = gaussian(2, d, n, seed=seed)
    state, m = State(h), h @ h.mT / n
    close(state.m, m)
    close(state.eigenvalues, torch.linalg.eigvalsh(m))
    close(chain.State.frobenius(state), torch.linalg.matrix_norm(m).square())
    powers = [(torch.linalg.matrix_power(one, 2), torch.linalg.matrix_power(one, 3)) for one in m]
    rows = torch.stack([torch.diag(square).square().sum() for square, _ in powers])
    cubes = torch.stack([torch.trace(cube) for _, cube in powers])
    close(chain.State.regularity_terms(state), torch.stack([rows, cubes], -1), rtol=1e-9)
    close(chain.State.regularity_terms(state), torch.stack(spectra.regularity_terms(m), -1), rtol=1e-9)


@few
@given(sizes, st.integers(1, 9), gammas, seeds)
def test_soft_rank_of_a_state_of_the_chain_is_at_least_its_share_of_the_stable_rank(d, n, gamma, seed):
    taus = [0.1, 0.3, 0.5, 0.9]
    measure = {"soft": lambda state: state.soft_rank(taus), "r": chain.State.stable_rank}
    x = chain.batch_norm(gaussian(d, n, seed=seed))
    found = chain.follow(Chain(gamma), x, generator=generator(seed), measure=measure, at=[0, 1, 10])
    share = (1 - torch.tensor(taus, **DOUBLE)) ** 2 * found["r"][..., None]
    assert (found["soft"] >= share - 1e-9).all()


# Collinear inputs


@few
@given(sizes, st.integers(1, 9), seeds)
def test_collinear_inputs_without_noise_are_rank_one_states(d, n, seed):
    x = chain.collinear_inputs(d, n, 0.0, generator=generator(seed))
    m = x @ x.T / n
    close(m.abs(), torch.ones(d, d, **DOUBLE))
    assert x.shape == (d, n) and spectra.numerical_rank(x) == 1


def test_collinear_inputs_have_rows_of_both_signs_and_samples_of_different_sizes():
    x = chain.collinear_inputs(40, 30, 0.0, generator=generator())
    assert {-1.0, 1.0} == set((x[:, :1] * x[:1, :1]).sign().unique().tolist())
    assert x[0].abs().max() > 3 * x[0].abs().min()


def test_noise_lifts_the_other_singular_values_in_proportion():
    sigma = [
        torch.linalg.svdvals(chain.collinear_inputs(6, 8, spread, generator=generator()))[1] for spread in (1e-6, 1e-4)
    ]
    close(sigma[1] / sigma[0], torch.tensor(100.0, **DOUBLE), rtol=1e-2)


def test_collinear_inputs_for_several_seeds_are_those_of_each():
    batch = chain.collinear_inputs(4, 5, 0.1, generator=inits.generators(3))
    close(batch[2], chain.collinear_inputs(4, 5, 0.1, generator=generator(2)), rtol=0, atol=0)


# Bad input


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"gamma": -1.0}, "gamma must be a number of at least 0, got gamma=-1.0"),
        ({"gamma": math.nan}, "gamma must be"),
        ({"gamma": True}, "gamma must be"),
        ({"gamma": "1"}, "gamma must be"),
        ({"law": "cauchy"}, "law must be one of gaussian, sign, uniform, got law='cauchy'"),
        ({"normalization": "layers"}, "normalization must be one of"),
        ({"activation": "tanh"}, "activation must be one of linear, relu, got activation='tanh'"),
    ],
)
def test_chain_names_the_bad_setting(setting, message):
    with pytest.raises(ValueError, match=message):
        Chain(**setting)


GOOD = {"x": gaussian(3, 4), "generator": generator(), "measure": MEASURES}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(0, 4, **DOUBLE)}, "x must be a batch of non-empty matrices"),
        ({"x": torch.zeros(3, 0, **DOUBLE)}, "x must be a batch of non-empty matrices"),
        ({"x": gaussian(3)}, "x must be a batch"),
        ({"x": gaussian(2, 3, 4)}, "x must be of shape .d, N. or .seeds, d, N. with seeds=1"),
        ({"x": gaussian(3, 4).half()}, "x must have dtype"),
        ({"x": gaussian(3, 4) * math.nan}, "x must have finite entries"),
        ({"generator": []}, "generator must be"),
        ({"generator": 0}, "generator must be a torch.Generator or a non-empty list of different ones"),
        ({"generator": [GOOD["generator"]] * 2}, "or a non-empty list of different ones"),
        ({"at": []}, "at must be a non-empty list of depths of at least 0"),
        ({"at": 5}, "at must be a non-empty list"),
        ({"at": [-1]}, "at must be"),
        ({"at": [1.5]}, "at must be"),
    ],
)
def test_follow_names_the_bad_argument(change, message):
    with pytest.raises(ValueError, match=message):
        chain.follow(Chain(), **({"at": [1]} | GOOD | change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 0}, "depth must be a positive integer, got depth=0"),
        ({"every": 0}, "every must be a positive integer"),
        ({"blocks": 1.0}, "blocks must be a positive integer"),
        ({"burn_in": -1}, "burn_in must be a non-negative integer, got burn_in=-1"),
        ({"depth": 10}, "depth must be a multiple of blocks · every = 20, got depth=10"),
    ],
)
def test_depth_average_names_the_bad_argument(change, message):
    with pytest.raises(ValueError, match=message):
        chain.depth_average(Chain(), **({"depth": 20} | GOOD | change))


def test_a_row_of_zeros_is_an_error_and_not_a_nan():
    x = torch.cat([gaussian(2, 4), torch.zeros(1, 4, **DOUBLE)])
    options = {"generator": generator(), "measure": {"r": chain.State.stable_rank}, "at": [3]}
    with pytest.raises(ValueError, match="h must keep finite rows different from zero"):
        chain.follow(Chain(0.0), x, **options)
    assert chain.follow(Chain(0.5), x, **options)["r"].isfinite().all()  # the branch fills the row


def test_overflow_without_normalization_is_an_error_and_not_a_nan():
    options = {"generator": generator(), "measure": {"h": lambda s: s.h}, "at": [2_000]}
    with pytest.raises(ValueError, match="deep products leave the number range"):
        chain.follow(Chain(normalization="none"), gaussian(8, 8), **options)


@pytest.mark.parametrize("tau", [-0.1, 1.1, [], [0.5, 2.0], "half", math.nan])
def test_soft_rank_names_a_bad_threshold(tau):
    with pytest.raises(ValueError, match=r"tau must be a number in \[0, 1\], or several"):
        State(torch.eye(3)[None]).soft_rank(tau)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 3, 0.1), "d must be a positive integer"),
        ((3, 0, 0.1), "n must be a positive integer"),
        ((3, 3, -0.1), "spread must be a number of at least 0"),
        ((3, 3, math.inf), "spread must be"),
    ],
)
def test_collinear_inputs_names_the_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        chain.collinear_inputs(*arguments, generator=generator())


def test_the_soft_rank_at_threshold_zero_counts_every_direction_whatever_round_off_says():
    x = torch.ones(1, 6, 9, dtype=torch.float64) + 1e-17  # rank one: five eigenvalues of M are round-off of either sign
    x = x + 1e-9 * torch.randn(1, 6, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    state = chain.State(chain.batch_norm(x))
    assert (torch.linalg.eigvalsh(state.m) < 0).any(), "no negative round-off, so nothing is tested"
    assert int(state.soft_rank(0.0)) == 6
