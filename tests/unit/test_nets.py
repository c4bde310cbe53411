"""Nonlinear networks against the compositions of matrices that define them."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from firststep import inits, nets

few = settings(max_examples=25)
activations = st.sampled_from(sorted(nets.MODULES))
FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda x: x}
schemes = st.sampled_from([*inits.INITIALIZERS, *nets.TORCH_SCHEMES])


def seed(number=0):
    return torch.Generator().manual_seed(number)


def inputs(n, d, number=0):
    return torch.randn(n, d, generator=seed(number), dtype=torch.float64)


def mlp(*sizes, scheme="lecun_normal", number=0, **options):
    return nets.initialize_(nets.MLP(*sizes, **options).double(), scheme, generator=seed(number))


@few
@given(
    d_in=st.integers(1, 5), width=st.integers(1, 6), depth=st.integers(0, 4), d_out=st.integers(1, 3),
    n=st.integers(2, 7), activation=activations,
)  # fmt: skip
def test_an_mlp_is_an_alternation_of_affine_maps_and_activations(d_in, width, depth, d_out, n, activation):
    net = mlp(d_in, width, depth, d_out, activation=activation, scheme="torch_default")
    x = columns = inputs(n, d_in)
    columns = columns.mT
    for layer, representation in zip(net.hidden, net.representations(x), strict=True):
        linear = layer[0]
        columns = FUNCTIONS[activation](linear.weight @ columns + linear.bias[:, None])
        assert representation.shape == (width, n)  # one column a sample
        torch.testing.assert_close(representation, columns)
    torch.testing.assert_close(net(x), (net.readout.weight @ columns + net.readout.bias[:, None]).mT)


def test_depth_zero_is_linear_regression():
    net = mlp(3, 50, 0, 2)
    assert [tuple(p.shape) for p in net.parameters()] == [(2, 3), (2,)]
    assert net.representations(inputs(4, 3)) == []


@few
@given(width=st.integers(1, 6), depth=st.integers(1, 3), n=st.integers(3, 30), activation=activations)
def test_batch_normalization_gives_every_row_mean_zero_and_variance_one_before_the_activation(
    width, depth, n, activation
):
    net = mlp(4, width, depth, 2, batch_norm=True, activation=activation)
    x = inputs(n, 4)
    for layer in net.hidden:
        before = layer[0](x)
        variance = before.var(0, correction=0)
        rows = FUNCTIONS[activation]((before - before.mean(0)) / (variance + 1e-5).sqrt())
        x = layer(x)
        torch.testing.assert_close(x, rows)
    torch.testing.assert_close(net.representations(inputs(n, 4))[-1], x.mT)


def test_rows_of_a_normalized_linear_layer_have_mean_zero_and_unit_norm_up_to_epsilon():
    (h,) = mlp(10, 8, 1, 2, batch_norm=True, activation="linear").representations(inputs(50, 10))
    torch.testing.assert_close(h.mean(-1), torch.zeros(8, dtype=h.dtype))
    torch.testing.assert_close(h.square().mean(-1), torch.ones(8, dtype=h.dtype), rtol=1e-4, atol=0)


def test_without_centring_rows_keep_their_mean_and_get_unit_norm():
    net, x = mlp(4, 6, 1, 2, batch_norm=True, centred=False, activation="linear"), inputs(30, 4) + 1
    before = net.hidden[0][0](x).mT
    (h,) = net.representations(x)
    torch.testing.assert_close(h, before / (before.square().mean(-1, keepdim=True) + 1e-5).sqrt())
    running = net.hidden[0][1].running_var.clone()
    torch.testing.assert_close(running, 0.9 + 0.1 * before.square().mean(-1))  # from one, with momentum 0.1
    torch.testing.assert_close(net.eval().representations(x)[0], before / (running[:, None] + 1e-5).sqrt())
    assert torch.equal(net.hidden[0][1].running_var, running)


def test_the_one_sided_start_is_torch_s_moved_to_positive_weights_of_the_same_variance():
    one_sided, usual = (
        nets.initialize_(nn.Linear(64, 300), s, generator=seed(3)) for s in ("torch_one_sided", "torch_default")
    )
    torch.testing.assert_close(one_sided.weight, usual.weight + 1 / 8)
    assert one_sided.weight.min() >= 0 and one_sided.weight.max() <= 2 / 8
    assert torch.equal(one_sided.bias, usual.bias)


@few
@given(scheme=schemes, depth=st.integers(0, 3), number=st.integers(0, 1_000))
def test_the_generator_alone_decides_the_network(scheme, depth, number):
    torch.manual_seed(1)
    first = mlp(5, 4, depth, 3, scheme=scheme, number=number, batch_norm=True)
    torch.manual_seed(2)
    second = mlp(5, 4, depth, 3, scheme=scheme, number=number, batch_norm=True)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("scheme", inits.INITIALIZERS)
def test_linear_layers_get_the_matrices_of_the_scheme_in_order_and_zero_biases(scheme):
    net = mlp(5, 4, 2, 3, scheme=scheme, number=7)
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    expected = inits.network((5, 4, 4, 3), scheme, generator=seed(7))
    for layer, weight in zip(layers, expected, strict=True):
        assert torch.equal(layer.weight, weight)
        assert (layer.bias == 0).all()


def test_torch_default_has_the_law_of_a_new_linear_layer():
    torch.manual_seed(0)
    fresh, ours = nn.Linear(100, 300), nets.initialize_(nn.Linear(100, 300), "torch_default", generator=seed())
    for theirs, mine in zip(fresh.parameters(), ours.parameters(), strict=True):
        n = theirs.numel()
        assert theirs.abs().max() <= 0.1 >= mine.abs().max()  # 1/√fan_in
        # Two samples of one law: the 99.9 % point of Kolmogorov and Smirnov's distance is 1.95 √(2/n).
        both = torch.cat([theirs.flatten(), mine.flatten()])
        order = torch.cat([torch.ones(n), -torch.ones(n)])[both.argsort()]
        assert float(order.cumsum(0).abs().max() / n) < 1.95 * math.sqrt(2 / n)


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm(4)])
def test_initialization_makes_normalization_layers_the_identity_again(layer):
    worn = copy.deepcopy(layer)
    with torch.no_grad():
        for parameter in worn.parameters():
            parameter.fill_(3.0)
        for buffer in worn.buffers():
            buffer.fill_(5)
    nets.initialize_(nn.Sequential(worn), "xavier_normal", generator=seed())
    for name, value in layer.state_dict().items():
        assert torch.equal(worn.state_dict()[name], value)


def test_initialization_reaches_linear_layers_without_bias_inside_any_module():
    net = nn.Sequential(nn.Flatten(), nn.ModuleDict({"inner": nn.Linear(3, 2, bias=False)})["inner"])
    for scheme in ("identity", "torch_default"):
        assert nets.initialize_(net, scheme, generator=seed()) is net
    assert net[1].weight.abs().max() <= 3**-0.5


def test_gradients_still_flow_after_initialization():
    net = mlp(3, 4, 2, 2)
    net(inputs(5, 3)).square().sum().backward()
    assert all(p.requires_grad and p.grad is not None and p.is_leaf for p in net.parameters())
