"""Deep residual networks against autograd and limiting cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint_sequential

from firststep import inits, residual

few = settings(max_examples=20, deadline=None)
F64 = {"dtype": torch.float64, "device": "cpu"}


def network(*sizes, start="xavier", seeds=1, **options):
    net = residual.ResidualMLP(*sizes, runs=seeds, **({"dtype": torch.float64, "device": "cpu"} | options))
    return residual.start_(net, start, generator=inits.generators(seeds, device="cpu"))


def inputs(n, d):
    return torch.randn(d, n, generator=inits.generator(9, device="cpu"), **F64)


def composed(net, x):
    z = net.first @ x
    for v, u in zip(net.inner, net.outer, strict=True):
        z = z + u @ (v @ z).relu()
    return net.readout @ z


@few
@given(
    d=st.integers(1, 4), width=st.integers(1, 5), block=st.integers(1, 4), depth=st.integers(1, 12),
    d_out=st.integers(1, 3), seeds=st.integers(1, 3), start=st.sampled_from(sorted(residual.STARTS)),
)  # fmt: skip
def test_function_and_gradients_are_those_of_the_composition(d, width, block, depth, d_out, seeds, start):
    net, x = network(d, width, block, depth, d_out, seeds=seeds, start=start), inputs(6, d)
    with torch.no_grad():
        for weights in net.parameters():  # away from the zeros of a start
            weights += 0.1
    torch.testing.assert_close(net(x), composed(net, x))
    pull = torch.randn(seeds, d_out, 6, generator=inits.generator(1, device="cpu"), **F64)
    ours, theirs = (torch.autograd.grad((f(x) * pull).sum(), list(net.parameters())) for f in (net, composed_of(net)))
    torch.testing.assert_close(ours, theirs)


def composed_of(net):
    return lambda x: composed(net, x)


def test_gradients_are_those_of_torch_s_checkpointing():
    net, x = network(3, 4, 2, 50, 2), inputs(7, 3)
    layers = [lambda z, v=v, u=u: z + u @ (v @ z).relu() for v, u in zip(net.inner, net.outer, strict=True)]
    theirs = net.readout @ checkpoint_sequential(layers, 7, net.first @ x, use_reentrant=False)
    parameters = list(net.parameters())
    grads = [torch.autograd.grad(f.square().sum(), parameters) for f in (net(x), theirs)]
    torch.testing.assert_close(*grads)


def test_mzas_starts_with_zero_branches_and_a_zero_readout_and_passes_the_input_on():
    net, x = network(784, 50, 20, 30, 10, start="mzas"), inputs(4, 784)
    assert not net.outer.any() and not net.readout.any() and not net(x).any()
    torch.testing.assert_close(net.norms(x)[-1], (net.first @ x).norm(dim=1))
    for weights in (net.first, net.inner):  # V_0 too has variance 1/D, whatever its fan-in
        assert float(weights.detach().var()) * 50 == pytest.approx(1, abs=0.05)


def test_from_mzas_the_first_step_moves_the_readout_alone_and_the_second_the_branches():
    net, x = network(5, 6, 3, 4, 3, start="mzas"), inputs(20, 5)
    labels = torch.arange(20, device="cpu") % 3
    moved = []
    for _ in range(3):
        before = [w.detach().clone() for w in net.parameters()]
        residual.descend(net, x, labels, step_size=[0.1], steps=1)
        moved.append([bool((w != b).any()) for w, b in zip(net.parameters(), before, strict=True)])
    # in the order first, inner, outer, readout
    assert moved == [[False, False, False, True], [True, False, True, True], [True, True, True, True]]


def test_xavier_has_the_variance_of_both_fans_and_the_other_starts_differ_from_it_by_factors():
    xavier, scaled, branches, readout = (
        network(60, 40, 20, 25, 10, start=name)
        for name in ("xavier", "branches / depth", "zero branches", "zero readout")
    )
    for weights in xavier.parameters():
        assert float(weights.detach().var()) * sum(weights.shape[-2:]) == pytest.approx(2, rel=0.1)
    torch.testing.assert_close(scaled.outer * 25, xavier.outer)
    assert not branches.outer.any() and not readout.readout.any()
    for other in (scaled, branches, readout):
        assert torch.equal(other.first, xavier.first) and torch.equal(other.inner, xavier.inner)


def test_depth_ten_thousand_builds_and_takes_a_step_that_lowers_the_loss():
    net = network(12, 8, 2, 10_000, 3, start="mzas", dtype=torch.float32)
    x, labels = inputs(30, 12).float(), torch.arange(30, device="cpu") % 3
    run = residual.descend(net, x, labels, step_size=[1e-3], steps=2)
    assert run.loss[0, 0].item() == pytest.approx(math.log(3)) and run.loss[2, 0] < run.loss[1, 0] < run.loss[0, 0]
    assert net.outer.count_nonzero() == net.outer.numel()  # every block has moved


def test_a_run_alone_is_the_run_among_others():
    x, labels = inputs(20, 5), torch.arange(20, device="cpu") % 2
    together = residual.descend(network(5, 4, 2, 6, 2, seeds=3), x, labels, step_size=[0.01, 0.02, 0.03], steps=5)
    net = residual.ResidualMLP(5, 4, 2, 6, 2, **F64)
    residual.start_(net, "xavier", generator=inits.generator(2, device="cpu"))
    alone = residual.descend(net, x, labels, step_size=[0.03], steps=5)
    torch.testing.assert_close(together.loss[:, 2], alone.loss[:, 0])


def test_divergence_is_data_and_harms_no_neighbour():
    x, labels = inputs(20, 5), torch.arange(20, device="cpu") % 2
    run = residual.descend(network(5, 4, 2, 6, 2, seeds=2), x, labels, step_size=[1e200, 0.01], steps=4)
    assert 0 < run.diverged[0] <= 2 and run.diverged[1] is None
    assert run.loss[run.diverged[0] :, 0].isnan().all() and run.loss[:, 1].isfinite().all()


def test_a_start_that_overflows_has_diverged_at_step_zero_in_float32_and_not_in_float64():
    labels, x = torch.arange(20, device="cpu") % 2, inputs(20, 5)
    for dtype, expected in ((torch.float32, 0), (torch.float64, None)):
        net = network(5, 8, 8, 700, 2, dtype=dtype)
        assert residual.descend(net, x.to(dtype), labels, step_size=[1e-300], steps=0).diverged == [expected]


def test_a_step_is_plain_gradient_descent_and_the_first_of_a_warm_up_is_short():
    x, labels = inputs(20, 5), torch.arange(20, device="cpu") % 2
    moved = {}
    for warm_up in (0, 3):
        net = network(5, 4, 2, 3, 2)
        before = net.readout.detach().clone()
        loss = torch.nn.functional.cross_entropy(composed(net, x)[0].T, labels)
        (gradient,) = torch.autograd.grad(loss, [net.readout])
        residual.descend(net, x, labels, step_size=[0.1], steps=1, warm_up=warm_up)
        moved[warm_up] = net.readout.detach() - before
        torch.testing.assert_close(moved[warm_up], -0.1 / (warm_up + 1) * gradient)
