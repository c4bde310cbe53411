"""VGG19 and ResNet-50: shapes, the known numbers of parameters, and normalizations in closed form."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from firststep import convnets, inits, nets

CPU = {"device": "cpu"}


def seed(number=0):
    return torch.Generator().manual_seed(number)


def images(n, dtype=torch.float32):
    return torch.rand(n, 3, 32, 32, generator=seed(), dtype=dtype)


def parameters(net):
    return sum(p.numel() for p in net.parameters())


def small(name, norm="batch", scheme="he_normal", **options):
    net = convnets.NETWORKS[name](1 / 16, 7, norm=norm, **options, **CPU)
    return nets.initialize_(net, scheme, generator=seed())


def vgg19_parameters(normalized):
    """Weights and biases of sixteen 3×3 convolutions, scale and shift of each channel, and the read-out."""
    channels = [3, 64, 64, 128, 128, *[256] * 4, *[512] * 8]
    convolutions = sum(9 * a * b + b for a, b in itertools.pairwise(channels))
    return convolutions + 2 * sum(channels[1:]) * normalized + 512 * 10 + 10


def resnet50_parameters():
    total, before = 9 * 3 * 64 + 2 * 64, 64
    for inside, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for k in range(count):
            after = 4 * inside
            total += before * inside + 9 * inside**2 + inside * after + 2 * (inside + inside + after)
            total += (before * after + 2 * after) if k == 0 else 0
            before = after
    return total + 2048 * 10 + 10


def test_at_width_one_the_networks_have_the_known_numbers_of_parameters():
    assert parameters(convnets.VGG19(device="meta")) == vgg19_parameters(True) == 20_040_522
    assert parameters(convnets.VGG19(norm="none", device="meta")) == vgg19_parameters(False)
    assert parameters(convnets.ResNet50(device="meta")) == resnet50_parameters() == 23_520_842


@pytest.mark.parametrize("name", convnets.NETWORKS)
@pytest.mark.parametrize("norm", convnets.NORMS)
def test_a_network_maps_pictures_to_scores_through_its_last_representation(name, norm):
    net = small(name, norm).double().eval()
    x = images(3, torch.float64)
    h, scores = net.last_hidden(x), net(x)
    assert h.shape == ({"vgg19": 32, "resnet50": 128}[name], 3) and scores.shape == (3, 7)
    torch.testing.assert_close(scores, (net.readout.weight @ h + net.readout.bias[:, None]).mT)


@pytest.mark.parametrize(("name", "depth"), [("vgg19", 16 + 1), ("resnet50", 50)])
def test_the_longest_way_goes_through_the_published_number_of_weight_layers(name, depth):
    """Of VGG19's nineteen, the three large ones at the end are one here."""
    net = convnets.NETWORKS[name](1 / 16, **CPU)
    skips = {id(m) for block in net.features for m in getattr(block, "skip", nn.Identity()).modules()}
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear) and id(m) not in skips]
    assert len(layers) == depth


def test_a_shallow_vgg_keeps_every_blocks_first_convolutions():
    net = convnets.VGG19(1 / 8, at_most=1, **CPU)
    assert [m.out_channels for m in net.modules() if isinstance(m, nn.Conv2d)] == [8, 16, 32, 64, 64]


@pytest.mark.parametrize("name", convnets.NETWORKS)
def test_width_multiplies_every_number_of_channels(name):
    half, whole = (convnets.NETWORKS[name](w, device="meta") for w in (0.5, 1))
    for a, b in zip(half.modules(), whole.modules(), strict=True):
        if isinstance(a, nn.Conv2d):
            assert 2 * a.out_channels == b.out_channels


def test_a_bottleneck_whose_branch_is_zero_is_the_rectified_identity():
    net = small("resnet50", "none")
    block = next(b for b in net.features if isinstance(getattr(b, "skip", None), nn.Identity))
    for p in block.branch.parameters():
        nn.init.zeros_(p)
    x = torch.randn(2, 16, 8, 8, generator=seed())
    assert torch.equal(block(x), x.relu())


# Normalization


@settings(max_examples=25)
@given(n=st.integers(1, 5), channels=st.integers(1, 4), side=st.integers(1, 4), shift=st.sampled_from([0.0, 3.0]))
def test_without_centring_a_channel_is_divided_by_its_root_mean_square(n, channels, side, shift):
    layer = convnets._UncentredBatchNorm2d(channels, eps=0, dtype=torch.float64, **CPU)
    x = shift + torch.randn(n, channels, side, side, generator=seed(), dtype=torch.float64)
    rms = x.square().mean((0, 2, 3)).sqrt()
    y = layer(x)
    torch.testing.assert_close(y, x / rms[:, None, None])
    torch.testing.assert_close(y.square().mean((0, 2, 3)), torch.ones(channels, dtype=torch.float64))
    torch.testing.assert_close(layer.running_var, 0.9 + 0.1 * rms.square())
    assert (layer.running_mean == 0).all()


def test_of_channels_with_mean_zero_centring_changes_nothing():
    x = torch.randn(6, 3, 4, 4, generator=seed(), dtype=torch.float64)
    x = x - x.mean((0, 2, 3), keepdim=True)
    plain, centred = convnets._UncentredBatchNorm2d(3, **CPU).double(), nn.BatchNorm2d(3, **CPU).double()
    for layer in (plain, centred):
        layer.weight.data, layer.bias.data = torch.tensor([1.0, 2.0, -1.0]).double(), torch.ones(3).double()
    torch.testing.assert_close(plain(x), centred(x))
    assert not torch.allclose(plain(x + 1), centred(x + 1))


def test_evaluation_divides_by_the_running_second_moment_and_changes_nothing():
    layer = convnets._UncentredBatchNorm2d(2, eps=0, **CPU).double()
    x = torch.randn(5, 2, 3, 3, generator=seed(), dtype=torch.float64)
    layer.running_var.copy_(torch.tensor([4.0, 9.0]))
    layer.eval()
    torch.testing.assert_close(layer(x), x / torch.tensor([2.0, 3.0]).double()[:, None, None])
    assert layer.running_var.tolist() == [4.0, 9.0] and int(layer.num_batches_tracked) == 0


def test_after_many_batches_evaluation_is_what_training_was_on_average():
    layer = convnets._UncentredBatchNorm2d(2, **CPU).double()
    x = torch.randn(400, 2, 3, 3, generator=seed(), dtype=torch.float64) * 3
    for _ in range(200):
        trained = layer(x)
    torch.testing.assert_close(layer.eval()(x), trained)


@pytest.mark.parametrize("name", convnets.NETWORKS)
def test_an_image_is_judged_alone_in_evaluation_and_with_its_batch_in_training(name):
    net, x = small(name).double(), images(6, torch.float64)
    net(x)
    assert not torch.allclose(net(x)[:3], net(x[:3]))
    net.eval()
    torch.testing.assert_close(net(x)[:3], net(x[:3]))
    assert net(x[:1]).shape == (1, 7)


def test_gradients_of_the_uncentred_layer_are_right():
    layer = convnets._UncentredBatchNorm2d(2, **CPU).double()
    x = torch.randn(3, 2, 2, 2, generator=seed(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


# Initialization


@pytest.mark.parametrize("scheme", ["he_normal", "xavier_uniform", "orthogonal"])
def test_a_convolution_gets_the_schemes_matrix_with_fan_in_channels_times_kernel(scheme):
    layer = nets.initialize_(nn.Conv2d(4, 6, 3), scheme, generator=seed(3))
    assert torch.equal(layer.weight.flatten(1), inits.matrix(scheme, 6, 36, generator=seed(3), dtype=torch.float32))
    assert (layer.bias == 0).all()


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(16, 64, 3), lambda: nn.Linear(144, 64)])
def test_the_one_sided_start_has_the_variance_of_torchs_own_and_no_negative_weight(make):
    def drawn(scheme):
        return nets.initialize_(make().double(), scheme, generator=seed(5))

    sided, centred, standard = (drawn(s) for s in ("torch_one_sided", "torch_one_sided_centred", "torch_default"))
    weight = sided.weight
    n, end = weight.numel(), 2 / math.sqrt(144)
    assert weight.min() >= 0 and 0.99 * end < weight.max() <= end
    variance = end**2 / 12
    # The variance of a uniform sample's variance is (μ₄ − σ⁴)/n with μ₄ = 9σ⁴/5.
    assert abs(weight.var() / variance - 1) < 5 * math.sqrt(0.8 / n)
    assert abs(standard.weight.var() / variance - 1) < 5 * math.sqrt(0.8 / n)
    torch.testing.assert_close(
        weight.detach().mean(), torch.tensor(end / 2).double(), atol=5 * end / math.sqrt(12 * n), rtol=0
    )
    rows = weight.flatten(1)
    torch.testing.assert_close(centred.weight.flatten(1), rows - rows.mean(1, keepdim=True))
    assert torch.equal(sided.bias, centred.bias) and sided.bias.abs().max() <= end / 2 and (sided.bias < 0).any()


def test_torch_default_has_the_bounds_of_a_new_convolution():
    fresh, ours = nn.Conv2d(16, 64, 3), nets.initialize_(nn.Conv2d(16, 64, 3), "torch_default", generator=seed())
    for theirs, mine in zip(fresh.parameters(), ours.parameters(), strict=True):
        assert theirs.abs().max() <= 1 / 12 >= mine.abs().max() > 0.9 / 12


# Pictures


def test_colour_rows_become_pictures_and_grey_ones_get_a_margin_and_three_colours():
    row = torch.arange(2 * 3072, dtype=torch.float32).reshape(2, 3072)
    assert torch.equal(convnets.pictures(row)[1, 2, 3], row[1, 2048 + 96 : 2048 + 128])
    grey = 1 + torch.rand(2, 784, generator=seed())
    made = convnets.pictures(grey)
    assert made.shape == (2, 3, 32, 32) and torch.equal(made[:, 0], made[:, 2])
    assert torch.equal(made[:, 1, 2:-2, 2:-2].flatten(1), grey)
    assert made.count_nonzero() == 3 * grey.numel()


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 3, 28, 28), torch.zeros(2, 3, 32, 32).double(), None, torch.zeros(1, 3, 32, 32)]
)
def test_what_is_no_batch_of_pictures_is_refused(x):
    with pytest.raises(ValueError, match="x must be a tensor"):
        small("vgg19")(x)
