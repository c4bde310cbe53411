"""Ascent on the stable rank against closed forms, finite differences and the invariances of r."""

import copy
import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from firststep import nets, spectra, training

few = settings(max_examples=20, deadline=None)
DOUBLE = {"dtype": torch.float64}


def seed(number=0):
    return torch.Generator().manual_seed(number)


def mlp(*sizes, scheme="he_normal", number=0, **options):
    return nets.initialize_(nets.MLP(*sizes, **options).double(), scheme, generator=seed(number))


def inputs(n, d, number=0):
    return torch.randn(n, d, generator=seed(number), **DOUBLE)


def ascend(net, x, number=0, **options):
    arguments = {"step_size": 1e-3, "steps": 1, "batches": 1, "batch_size": 16, "generator": seed(number)} | options
    return training.raise_rank(net, x, **arguments)


def weights(net):
    return [p.detach().clone() for p in net.hidden.parameters()]


def moved(net, before):
    return [b - a for a, b in zip(before, weights(net), strict=True)]


def diagonal(a, b):
    """A linear network whose representation of the two unit vectors is diag(a, b)."""
    net = nets.MLP(2, 2, 1, 1, activation="linear").double()
    with torch.no_grad():
        net.hidden[0][0].weight.copy_(torch.diag(torch.tensor([a, b], **DOUBLE)))
        net.hidden[0][0].bias.zero_()
    return net


class EachOnce:
    """Minibatches are drawn with replacement; these inputs make every draw the same set of columns."""

    x = torch.eye(2, **DOUBLE)

    @staticmethod
    def generator():
        for number in range(100):
            if sorted(torch.randint(2, (1, 2), generator=seed(number))[0].tolist()) == [0, 1]:
                return seed(number)
        raise AssertionError("no seed draws both")


@pytest.mark.parametrize(("a", "b"), [(1.0, 0.5), (3.0, 0.1), (-2.0, 0.7)])
def test_the_gradient_of_r_at_a_diagonal_matrix_is_the_closed_form(a, b):
    net = diagonal(a, b)
    before = weights(net)
    record = ascend(net, EachOnce.x, step_size=1e-6, batch_size=2, generator=EachOnce.generator())
    s, q = a**2 + b**2, a**4 + b**4  # r = s²/q
    slope = torch.diag(torch.tensor([a * b**2 * (b**2 - a**2), b * a**2 * (a**2 - b**2)], **DOUBLE)) * 4 * s / q**2
    torch.testing.assert_close(moved(net, before)[0] / 1e-6, slope, rtol=1e-6, atol=1e-7)
    assert math.isclose(float(record.before[0]), s**2 / q, rel_tol=1e-12)


def test_the_gradient_of_r_vanishes_where_all_singular_values_are_equal():
    net = diagonal(2.0, 2.0)
    before = weights(net)
    record = ascend(net, EachOnce.x, batch_size=2, generator=EachOnce.generator())
    assert math.isclose(float(record.before[0]), 2)
    assert moved(net, before)[0].abs().max() < 1e-15


@few
@given(number=st.integers(0, 10**6), depth=st.integers(1, 3), activation=st.sampled_from(["tanh", "linear", "relu"]))
def test_a_small_step_is_the_gradient_of_r_by_finite_differences(number, depth, activation):
    net, x = mlp(3, 4, depth, 2, activation=activation, scheme="torch_default", number=number), inputs(12, 3, number)
    rows = torch.randint(12, (1, 16), generator=seed(number))[0]
    start, direction = copy.deepcopy(net), None

    def r_along(t):
        shifted = copy.deepcopy(start)
        with torch.no_grad():
            for p, d in zip(shifted.hidden.parameters(), direction, strict=True):
                p.add_(t * d)
            return spectra.stable_rank(shifted.representations(x[rows])[-1])

    before, eta = weights(net), 1e-5
    assume(not ascend(net, x, number, step_size=eta).diverged)  # a dead layer has no r
    direction = [torch.randn(p.shape, generator=seed(number + 1), **DOUBLE) for p in before]
    slope = sum((d * change).sum() for d, change in zip(direction, moved(net, before), strict=True)) / eta
    h = 1e-6
    difference = (r_along(h) - r_along(-h)) / (2 * h)
    # A relu may have a kink between the two points.
    assume(activation != "relu" or abs(r_along(h) - 2 * r_along(0.0) + r_along(-h)) < 1e-9)
    torch.testing.assert_close(slope, difference, rtol=1e-3, atol=1e-4)


@few
@given(number=st.integers(0, 10**6), rule=st.sampled_from(sorted(training.RULES)))
def test_a_small_step_up_raises_r_and_a_small_step_down_lowers_it(number, rule):
    for direction, sign in (("ascent", 1), ("descent", -1)):
        net = mlp(5, 6, 3, 2, activation="tanh", number=number)
        record = ascend(net, inputs(30, 5, number), number, step_size=1e-5, rule=rule, direction=direction)
        assert sign * float(record.after[0] - record.before[0]) > 0


@pytest.mark.parametrize("layerwise", [False, True])
def test_ascent_raises_r_of_inputs_that_it_never_saw(layerwise):
    net, held_out = mlp(10, 20, 6, 2), inputs(200, 10, 1)
    with torch.no_grad():
        before = spectra.stable_rank(net.representations(held_out)[-1])
        ascend(
            net, inputs(500, 10), steps=5, batches=8, batch_size=64, step_size=3e-3, rule="adam", layerwise=layerwise
        )
        assert spectra.stable_rank(net.representations(held_out)[-1]) > 1.2 * before


@few
@given(number=st.integers(0, 10**6), factor=st.floats(0.01, 100))
def test_twice_the_weights_have_half_the_gradient(number, factor):
    # r(cW) = r(W), so W → cW with η → c²η gives c times the same path.
    small = mlp(4, 5, 1, 2, activation="linear", number=number)
    large = copy.deepcopy(small)
    with torch.no_grad():
        large.hidden[0][0].weight.mul_(factor)
    x = inputs(20, 4, number)
    options = {"steps": 3, "batches": 2, "batch_size": 8}
    first = ascend(small, x, number, step_size=0.01, **options)
    second = ascend(large, x, number, step_size=0.01 * factor**2, **options)
    torch.testing.assert_close(first.after, second.after, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(factor * small.hidden[0][0].weight, large.hidden[0][0].weight, rtol=1e-7, atol=1e-9)


def test_the_gradient_is_orthogonal_to_the_weights_of_every_homogeneous_layer():
    net = mlp(4, 8, 4, 2)  # relu, biases zero
    before = weights(net)
    ascend(net, inputs(30, 4), step_size=1e-3)
    for weight, change in zip(before[::2], moved(net, before)[::2], strict=True):
        assert abs(float((weight * change).sum())) < 1e-12 * float(weight.norm() * change.norm()) + 1e-16


def test_a_normalized_step_has_length_step_size():
    net = mlp(5, 6, 3, 2)
    record = ascend(net, inputs(30, 5), steps=4, step_size=0.01, rule="normalized")
    torch.testing.assert_close(record.sizes.norm(dim=1), torch.full((4,), 0.01, **DOUBLE))


def test_a_normalized_step_from_a_zero_gradient_stays():
    # All samples are one: M has rank one whatever the weights, so r is constant.
    net, x = mlp(3, 4, 2, 1), torch.ones(5, 3, **DOUBLE)
    before = weights(net)
    record = ascend(net, x, rule="gradient")
    assert math.isclose(float(record.before[0]), 1) and float(record.after[0] - 1) < 1e-12
    assert max(change.abs().max() for change in moved(net, before)) < 1e-14
    flat = mlp(3, 4, 2, 1)
    before = weights(flat)
    ascend(flat, x, rule="normalized", objective=lambda h: 0 * h.sum())
    assert all((change == 0).all() for change in moved(flat, before))


def test_near_rank_one_the_gradient_is_of_the_order_of_the_root_of_the_excess():
    excess, norms = [], []
    for b in (1e-2, 1e-3, 1e-4):
        record = ascend(diagonal(1.0, b), EachOnce.x, step_size=1e-3, batch_size=2, generator=EachOnce.generator())
        excess.append(float(record.before[0]) - 1)
        norms.append(float(record.sizes[0, 0]) / 1e-3)
    for value, norm in zip(excess, norms, strict=True):
        assert math.isclose(norm / math.sqrt(value), 4 / math.sqrt(2), rel_tol=1e-3)


def test_layerwise_ascent_moves_each_layer_by_its_own_objective_alone():
    net, x = mlp(5, 6, 3, 2), inputs(40, 5)
    record = ascend(net, x, steps=2, batches=3, layerwise=True)
    assert record.sizes.shape == (3 * 3 * 2, 6)
    for layer in range(3):
        mine = record.sizes[6 * layer : 6 * (layer + 1)]
        assert (mine[:, 2 * layer] > 0).all()
        assert (mine[:, [k for k in range(6) if k // 2 != layer]] == 0).all()


def test_one_hidden_layer_is_the_same_layerwise_or_not():
    first, second, x = mlp(5, 6, 1, 2), mlp(5, 6, 1, 2), inputs(40, 5)
    options = {"steps": 3, "batches": 2, "rule": "adam"}
    a, b = ascend(first, x, **options), ascend(second, x, layerwise=True, **options)
    assert torch.equal(a.after, b.after) and (a.forward, a.backward) == (b.forward, b.backward)
    for p, q in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(p, q)


def test_passes_are_counted_in_units_of_the_whole_hidden_stack():
    net, x = mlp(5, 6, 3, 2), inputs(40, 5)
    record = ascend(net, x, steps=4, batches=3)
    assert math.isclose(record.forward, 12) and math.isclose(record.backward, 12)
    record = ascend(net, x, steps=4, batches=3, layerwise=True)
    # The images of three minibatches are carried through all layers but the last, of 30, 36 and 36 weights.
    assert math.isclose(record.forward, 12 + 3 * (30 + 36) / (30 + 36 + 36)) and math.isclose(record.backward, 12)


def test_the_read_out_is_left_alone_and_the_generator_decides_the_rest():
    nets_, records = [mlp(5, 6, 3, 2) for _ in range(3)], []
    readout = nets_[0].readout.weight.detach().clone()
    for net, number in zip(nets_, (1, 1, 2), strict=True):
        torch.manual_seed(number + len(records))
        records.append(ascend(net, inputs(40, 5), number, steps=2, batches=2))
        assert torch.equal(net.readout.weight, readout)
    assert torch.equal(records[0].after, records[1].after) and not torch.equal(records[0].after, records[2].after)


def test_steps_on_one_minibatch_follow_each_other_without_a_gap():
    record = ascend(mlp(5, 6, 3, 2), inputs(40, 5), steps=4, batches=2)
    assert torch.equal(record.after[:3], record.before[1:4]) and torch.equal(record.after[4:7], record.before[5:])


@pytest.mark.parametrize("layerwise", [False, True])
def test_divergence_is_recorded_and_ends_the_run(layerwise):
    net = mlp(5, 6, 6, 2)
    record = ascend(net, inputs(40, 5), steps=5, batches=4, step_size=1e300, layerwise=layerwise)
    assert record.diverged and record.step is not None
    assert record.after[: record.step].isfinite().all() and record.after[record.step :].isnan().all()
    taken = record.before.isfinite().nonzero().flatten().tolist()
    sizes = [5 * 6] + [6 * 6] * 5
    shares = [sizes[k // 20] / sum(sizes) if layerwise else 1 for k in taken]  # 20 steps a layer
    assert math.isclose(record.backward, sum(shares))


def test_a_network_that_maps_everything_to_zero_has_no_r_and_takes_no_step():
    net = mlp(5, 6, 2, 2)
    with torch.no_grad():
        net.hidden[1][0].bias.fill_(-1e6)
    before = weights(net)
    record = ascend(net, inputs(40, 5))
    assert record.diverged and record.step == 0 and record.backward == 0
    assert all((change == 0).all() for change in moved(net, before))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"step_size": 0.0}, "step_size must be a finite number > 0, got step_size=0.0"),
        ({"step_size": math.inf}, "step_size must be a finite number > 0"),
        ({"steps": 0}, "steps must be a positive integer, got steps=0"),
        ({"batches": 2.5}, "batches must be a positive integer, got batches=2.5"),
        ({"batch_size": -1}, "batch_size must be a positive integer, got batch_size=-1"),
        ({"generator": 3}, "generator must be a torch.Generator, got generator=3"),
        ({"layerwise": 1}, "layerwise must be True or False, got layerwise=1"),
        ({"rule": "newton"}, "rule must be one of adam, gradient, normalized, got rule='newton'"),
        ({"direction": "up"}, "direction must be one of ascent, descent, got direction='up'"),
    ],
)
def test_a_bad_argument_is_named_with_its_value_and_what_is_allowed(bad, message):
    with pytest.raises(ValueError, match=message):
        ascend(mlp(5, 6, 2, 2), inputs(40, 5), **bad)


@pytest.mark.parametrize(
    ("net", "x", "message"),
    [
        (torch.nn.Linear(5, 2), inputs(9, 5), "net must be"),
        (mlp(5, 6, 0, 2), inputs(9, 5), "at least one hidden layer"),
        (mlp(5, 6, 1, 2), inputs(9, 4), r"x must have shape \(n, 5\)"),
        (mlp(5, 6, 1, 2), inputs(9, 5).float(), "got x of shape .* and dtype torch.float32"),
        (mlp(5, 6, 1, 2), inputs(9, 5) * torch.nan, "x must have finite entries"),
    ],
)
def test_networks_and_inputs_that_do_not_fit_are_refused(net, x, message):
    with pytest.raises(ValueError, match=message):
        ascend(net, x)
