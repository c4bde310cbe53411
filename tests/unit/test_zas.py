"""ZAS starts and the exact recursion against full matrix runs, closed forms and gradient flow."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep import flow, inits, linear, step_counts, zas

no_deadline = settings(deadline=None, max_examples=25)
F64 = {"dtype": torch.float64}


def generator(seed):
    return torch.Generator().manual_seed(seed)


def gaussian(d, seed):
    return torch.randn(d, d, generator=generator(seed), **F64) / d**0.5


def stable_step(s, depth):
    return min(0.5, 1 / (1 + (depth - 1) * float(s.max()) ** 2))


# The recursion


@no_deadline
@given(d=st.integers(1, 6), depth=st.integers(1, 8), seed=st.integers(0, 10**6), kept=st.integers(0, 6))
def test_recursion_equals_the_full_matrix_run_step_for_step(d, depth, seed, kept):
    phi = gaussian(d, seed)
    left, s, right = torch.linalg.svd(phi)
    phi = (left * s.where(torch.arange(d) < kept, torch.zeros(1, **F64))) @ right  # also singular and zero targets
    target = zas.Target.of(phi)
    eta = stable_step(s, depth)
    pairs = zas.recursion(target.singular_values, depth=depth, step_size=eta, steps=20)
    for t in (1, 2, 7, 20):
        run = linear.gradient_descent(
            zas.start((d,) * (depth + 1)), linear.Moments.whitened(phi), step_size=eta, steps=t
        )
        for layer, ours in zip(run.weights, target.weights(pairs.u[t], pairs.v[t], depth), strict=True):
            torch.testing.assert_close(ours, layer, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("d", "depth"), [(20, 50), (1, 50), (20, 1)])
def test_recursion_equals_the_full_matrix_run_at_the_largest_sizes(d, depth):
    phi = gaussian(d, 0)
    target = zas.Target.of(phi)
    eta = stable_step(target.singular_values, depth)
    pairs = zas.recursion(target.singular_values, depth=depth, step_size=eta, steps=40)
    run = linear.gradient_descent(zas.start((d,) * (depth + 1)), linear.Moments.whitened(phi), step_size=eta, steps=40)
    for layer, ours in zip(run.weights, target.weights(pairs.u[-1], pairs.v[-1], depth), strict=True):
        torch.testing.assert_close(ours, layer, rtol=0, atol=1e-12)


def test_recursion_broadcasts_depths_step_sizes_and_targets_and_each_run_equals_itself_alone():
    s = torch.rand(3, 1, 1, 4, generator=generator(0), **F64)
    depth, eta = torch.tensor([1, 2, 5])[:, None], torch.tensor([0.05, 0.1], **F64)
    batch = zas.recursion(s, depth=depth, step_size=eta, steps=10)
    alone = zas.recursion(s[2, 0, 0], depth=5, step_size=0.1, steps=10)
    assert batch.u.shape == (11, 3, 3, 2, 4)
    torch.testing.assert_close(batch.u[:, 2, 2, 1], alone.u, rtol=0, atol=0)
    torch.testing.assert_close(batch.loss[:, 2, 2, 1], alone.loss, rtol=0, atol=0)


def test_one_layer_is_linear_regression():
    run = zas.recursion(torch.tensor([2.0]), depth=1, step_size=0.25, steps=5)
    torch.testing.assert_close(run.residual[:, 0], -2.0 * 0.75 ** torch.arange(6, **F64))
    assert (run.u == 1).all()


# One step


@pytest.mark.parametrize("depth", [1, 2, 3, 10, 100, 10_000])
def test_zas_with_unit_step_solves_any_target_at_once(depth):
    s = torch.tensor([0.0, 1e-3, 1.0, 50.0])
    run = zas.recursion(s, depth=depth, step_size=1.0, steps=1)
    assert (run.loss[1] == 0).all() and (run.u[1] == 1).all()
    assert int(step_counts.iterations(s, depth=depth, step_size=1.0).steps) == 1


def test_unit_step_puts_the_target_into_the_output_layer_and_moves_nothing_else():
    phi = gaussian(5, 1)
    start = zas.start((5,) * 8)
    end = linear.gradient_descent(start, linear.Moments.whitened(phi), step_size=1.0, steps=1).weights
    torch.testing.assert_close(end[-1], phi, rtol=0, atol=1e-15)
    assert all(torch.equal(a, b) for a, b in zip(start[:-1], end[:-1], strict=True))


# Counting


@no_deadline
@given(
    s=st.lists(st.floats(0, 3), min_size=1, max_size=4),
    depth=st.integers(1, 40),
    fraction=st.floats(0.05, 1.9),
    tolerance=st.sampled_from([1e-4, 1e-10]),
)
def test_iterations_are_the_first_step_of_the_recursion_below_the_tolerance(s, depth, fraction, tolerance):
    s = torch.tensor(s, **F64)
    eta = fraction / (1 + (depth - 1) * float(s.max()) ** 2)
    loss = zas.recursion(s, depth=depth, step_size=eta, steps=600).loss
    count = step_counts.iterations(s, depth=depth, step_size=eta, tolerance=tolerance, max_steps=600)
    below = (loss <= tolerance).nonzero()
    lost = (~loss.isfinite()).nonzero()
    if len(below) and not (len(lost) and lost[0] < below[0]):
        assert int(count.steps) == int(below[0]) and not count.diverged
    else:
        assert int(count.steps) == -1
        assert int(count.diverged_at) == (int(lost[0]) if len(lost) else -1)


def test_multiplicity_counts_a_singular_value_several_times():
    once = step_counts.iterations(torch.tensor([1.0]), depth=6, step_size=0.05, multiplicity=torch.tensor([100.0]))
    spelled_out = step_counts.iterations(torch.ones(100), depth=6, step_size=0.05)
    assert int(once.steps) == int(spelled_out.steps) > 0


def test_race_finds_the_smallest_count_of_its_axis():
    s, etas = torch.tensor([[0.5, 1.0], [0.2, 2.0]])[:, None], step_counts.step_sizes(1e-3, 0.9, 1.2)
    full = step_counts.iterations(s, depth=5, step_size=etas, max_steps=5_000).steps
    raced = step_counts.iterations(s, depth=5, step_size=etas, max_steps=5_000, race=True).steps
    smallest = full.where(full >= 0, torch.tensor(10**9)).amin(-1)
    assert torch.equal(raced.amax(-1), smallest)


def test_divergence_is_flagged_with_its_step_and_the_other_runs_go_on():
    count = step_counts.iterations(torch.ones(1), depth=20, step_size=torch.tensor([0.05, 1.9]))
    assert count.converged.tolist() == [True, False] and count.diverged.tolist() == [False, True]
    loss = zas.recursion(torch.ones(1), depth=20, step_size=1.9, steps=50).loss
    assert int(count.diverged_at[1]) == int((~loss.isfinite()).nonzero()[0])


def test_scalar_iterations_equal_a_one_by_one_matrix_run():
    weights = torch.tensor([[0.9, 1.1, 0.8], [1.0, 0.5, -0.2]], **F64)
    count = step_counts.scalar_iterations(weights, step_size=0.1, tolerance=1e-8, max_steps=5_000)
    moments = linear.Moments.whitened(-torch.ones(1, 1, **F64))
    for run, steps in enumerate(count.steps.tolist()):
        layers = [w.reshape(1, 1) for w in weights[run]]
        measure = {"loss": lambda w: linear.excess_loss(w, moments)}
        loss = linear.gradient_descent(layers, moments, step_size=0.1, steps=steps, measure=measure)["loss"]
        assert loss[-1] <= 1e-8 < loss[-2]


def test_scalar_iterations_from_zas_equal_the_recursion():
    start = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    ours = step_counts.scalar_iterations(start, target=1.0, step_size=0.05)
    assert int(ours.steps) == int(step_counts.iterations(torch.ones(1), depth=5, step_size=0.05).steps)


# Starts and invariants


def test_zas_start_is_identities_and_a_zero_output():
    start = zas.start((3,) * 5)
    assert all(torch.equal(w, torch.eye(3, **F64)) for w in start[:-1]) and (start[-1] == 0).all()


def test_surplus_units_of_a_wide_start_never_move():
    wide, phi = zas.start((3, 5, 4, 2)), torch.randn(2, 3, generator=generator(3), **F64)
    run = linear.gradient_descent(wide, linear.Moments.whitened(phi), step_size=0.1, steps=50)
    square = linear.gradient_descent(zas.start((3, 3, 3, 2)), linear.Moments.whitened(phi), step_size=0.1, steps=50)
    assert (run.weights[0][3:] == 0).all() and (run.weights[1][3:] == 0).all() and (run.weights[2][:, 3:] == 0).all()
    torch.testing.assert_close(linear.product(run.weights), linear.product(square.weights), rtol=0, atol=1e-13)


def test_residual_network_from_zero_blocks_is_zas():
    phi = gaussian(4, 5)
    blocks = [torch.zeros(4, 4, **F64, requires_grad=True) for _ in range(3)]
    output = torch.zeros(4, 4, **F64, requires_grad=True)
    optimizer = torch.optim.SGD([*blocks, output], lr=0.1)
    for _ in range(40):
        h = torch.eye(4, **F64)
        for block in blocks:
            h = h + block @ h
        optimizer.zero_grad()
        (0.5 * (output @ h - phi).square().sum()).backward()
        optimizer.step()
    run = linear.gradient_descent(zas.start((4,) * 5), linear.Moments.whitened(phi), step_size=0.1, steps=40)
    for block, weight in zip(blocks, run.weights[:-1], strict=True):
        torch.testing.assert_close(torch.eye(4, **F64) + block, weight, rtol=0, atol=1e-13)


def test_gradient_flow_conserves_the_invariants():
    start = inits.network((3, 5, 4, 2), "xavier_normal", generator=generator(0))
    moments = linear.Moments.whitened(torch.randn(2, 3, generator=generator(1), **F64))
    run = flow.gradient_flow(start, moments, [0.5, 2.0])
    for then, now in zip(zas.invariants(start), zas.invariants(run.weights), strict=True):
        torch.testing.assert_close(now, then.expand_as(now), rtol=0, atol=1e-8)


def test_invariants_of_zas_are_zero_except_the_last():
    *hidden, last = zas.invariants(zas.start((4,) * 6))
    assert all((d == 0).all() for d in hidden) and torch.equal(last, -torch.eye(4, **F64))


def test_near_starts_are_gaussian_around_their_centres_and_seeds_do_not_depend_on_the_batch():
    layers = zas.near_identity(40, 6, generator=inits.generators(20))
    noise = torch.stack(layers) - torch.eye(40, **F64)
    assert abs(float(noise.std()) * (40 * 6) ** 0.5 - 1) < 0.01
    alone = zas.near_identity(40, 6, generator=generator(3))
    assert all(torch.equal(batch[3], one) for batch, one in zip(layers, alone, strict=True))
    exact = zas.near_zas(3, 4, 0.0, generator=generator(0))
    assert all(torch.equal(a, b) for a, b in zip(exact, zas.start((3,) * 5), strict=True))


@no_deadline
@given(s=st.floats(1e-6, 100), depth=st.integers(1, 10**6))
def test_solution_lies_on_the_hyperbola_and_solves_the_target(s, depth):
    u, v = zas.solution(s, depth)
    torch.testing.assert_close(u.square() - v.square(), torch.ones((), **F64), rtol=0, atol=1e-9 * max(1, s * s))
    log_product = v.log() + (depth - 1) * 0.5 * torch.log1p(v.square())
    torch.testing.assert_close(log_product, torch.tensor(s, **F64).log(), rtol=0, atol=1e-8)


def test_solution_is_where_small_steps_end():
    run = zas.recursion(torch.tensor([0.7]), depth=8, step_size=1e-3, steps=20_000)
    u, v = zas.solution(0.7, 8)
    assert abs(float(run.u[-1] - u)) < 1e-3 and abs(float(run.v[-1] - v)) < 1e-3
    assert zas.solution(0.0, 5)[1] == 0


def test_theorem_step_size_is_that_of_the_paper():
    # −I, d = 100, L = 10: φ = 20, so 1/(4 · 10³ · 20⁶) is the smaller of the two.
    assert float(zas.theorem_step_size(10.0, 10)) == pytest.approx(1 / (4e3 * 20**6))
    assert float(zas.theorem_step_size(0.0, 1)) == pytest.approx(1 / (144 * 3**4))  # there the other one is


@pytest.mark.parametrize("s", [1e-3, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("depth", [1, 2, 3, 30, 1_000])
def test_the_sharp_step_size_is_the_inverse_of_x_plus_the_rest_where_x_solves_its_equation(s, depth):
    x = 1 / float(zas.sharp_step_size(s, depth)) - (depth - 1) * s**2
    assert x == pytest.approx((1 + s**2 / x) ** (depth - 1), rel=1e-8)


def test_the_sharp_step_size_of_two_layers_and_target_one_is_the_golden_one():
    assert float(zas.sharp_step_size(1.0, 2)) == pytest.approx(2 / (3 + 5**0.5))
    assert zas.sharp_step_size(torch.tensor([0.0, 5.0]), 1).tolist() == [1, 1]  # one layer is a regression


@pytest.mark.parametrize("s", [0.1, 1.0, 5.0])
@pytest.mark.parametrize("depth", [2, 5, 100])
def test_zas_does_not_overshoot_at_the_sharp_step_size_and_does_well_beyond_the_inverse_curvature(s, depth):
    eta, (u, _) = zas.sharp_step_size(s, depth), zas.solution(s, depth)
    inverse_curvature = 1 / (u ** (2 * (depth - 1)) + (depth - 1) * s**2 / u**2)
    at, beyond = (
        zas.recursion(torch.tensor([s]), depth=depth, step_size=step, steps=500).residual
        for step in (eta, 1.25 * inverse_curvature)
    )
    assert at.max() <= 1e-12 * s < beyond.max()
    assert (at[1:].abs() <= (1 - eta) * at[:-1].abs() + 1e-12 * s).all()


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zas.Target.of(torch.ones(2, 3)), "phi must be square"),
        (lambda: zas.Target.of(torch.full((2, 2), torch.nan)), "phi must have finite entries"),
        (lambda: zas.start((3, 2, 3)), "no hidden layer is narrower than the input"),
        (lambda: zas.start((3,)), "widths must be"),
        (lambda: zas.start((3, 3), dtype=torch.int64), "dtype must be"),
        (lambda: zas.near_identity(0, 3, generator=generator(0)), "dimension must be a positive integer"),
        (lambda: zas.near_identity(3, 0, generator=generator(0)), "depth must be a positive integer"),
        (lambda: zas.near_zas(3, 3, -0.1, generator=generator(0)), "sigma must be"),
        (lambda: zas.near_zas(3, 3, float("nan"), generator=generator(0)), "sigma must be"),
        (lambda: zas.recursion(torch.ones(2), depth=0, step_size=0.1, steps=1), "depth must be positive integers"),
        (lambda: zas.recursion(torch.ones(2), depth=1.5, step_size=0.1, steps=1), "depth must be positive integers"),
        (lambda: zas.recursion(torch.ones(2), depth=2, step_size=0.0, steps=1), "step_size must be positive"),
        (lambda: zas.recursion(torch.ones(2), depth=2, step_size=float("inf"), steps=1), "step_size must be positive"),
        (lambda: zas.recursion(-torch.ones(2), depth=2, step_size=0.1, steps=1), "singular_values must be"),
        (lambda: zas.recursion(torch.tensor([torch.nan]), depth=2, step_size=0.1, steps=1), "singular_values must be"),
        (lambda: zas.recursion(torch.ones(2), depth=2, step_size=0.1, steps=-1), "steps must be"),
        (lambda: step_counts.iterations(torch.ones(2), depth=2, step_size=0.1, tolerance=0.0), "tolerance must be"),
        (lambda: step_counts.iterations(torch.ones(2), depth=2, step_size=0.1, max_steps=0), "max_steps must be"),
        (lambda: step_counts.iterations(torch.ones(2), depth=2, step_size=0.1, race=True), "race must be"),
        (
            lambda: step_counts.iterations(torch.ones(2), depth=2, step_size=0.1, multiplicity=torch.tensor([-1.0])),
            "multiplicity must be",
        ),
        (lambda: step_counts.scalar_iterations(torch.tensor([torch.inf]), step_size=0.1), "weights must have finite"),
        (lambda: step_counts.scalar_iterations(torch.ones(2), step_size=-0.1), "step_size must be positive"),
        (lambda: zas.theorem_step_size(-1.0, 3), "target_norm must be"),
        (lambda: zas.theorem_step_size(1.0, 0), "depth must be positive integers"),
        (lambda: zas.solution(-1.0, 3), "singular_value must be"),
        (lambda: zas.sharp_step_size(torch.inf, 3), "spectral_norm must be"),
        (lambda: zas.sharp_step_size(1.0, 0), "depth must be positive integers"),
        (lambda: step_counts.step_sizes(0.5, 0.1, 1.1), "high must be"),
        (lambda: step_counts.step_sizes(0.1, 0.5, 1.0), "ratio must be"),
        (
            lambda: zas.Target.of(torch.eye(2)).weights(torch.ones(2), torch.ones(2), 0),
            "depth must be a positive integer",
        ),
    ],
)
def test_bad_input_is_a_value_error_that_names_the_argument(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
