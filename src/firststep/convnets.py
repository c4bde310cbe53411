"""VGG19 and ResNet-50 for pictures of 32×32 pixels, with batch normalization, without its centring, or without any."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from firststep import checks, scale

# Channels of the convolutions between two poolings, at width 1.
VGG19_BLOCKS = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
# Channels inside a bottleneck, number of bottlenecks, stride of the first, at width 1.
RESNET50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXPANSION = 4  # of channels, from inside a bottleneck to its end


class _UncentredBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization that leaves the mean alone: each channel is divided by its root mean square.

    While training the mean is over batch, rows and columns, and ``running_var`` collects second moments, which
    evaluation uses; ``running_mean`` stays zero. Everything else is as in torch's layer.

    Source: Daneshmand et al. (2020), Eq. (2), whose normalization has no centring.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to the same shape."""
        second = self.running_var
        if self.training:
            second = x.square().mean((0, 2, 3))
            with torch.no_grad():
                self.running_var.lerp_(second, self.momentum)
                self.num_batches_tracked.add_(1)
        slope = self.weight * (second + self.eps).rsqrt()
        return torch.addcmul(self.bias[:, None, None], x, slope[:, None, None])


NORMS: dict[str, Callable[..., nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "uncentred": _UncentredBatchNorm2d,
    "none": lambda channels, device: nn.Identity(),
}


class ConvNet(nn.Module):
    """What both networks are: convolutions to one number a channel, then a linear read-out.

    Attributes:
        features: from ``(N, 3, 32, 32)`` to ``(N, d)``.
        readout: the last linear layer.
    """

    features: nn.Sequential
    readout: nn.Linear

    def last_hidden(self, x: Tensor) -> Tensor:
        """The last hidden representation of ``(N, 3, 32, 32)``, one column a sample: ``(d, N)``.

        Raises:
            ValueError: as :meth:`forward`.
        """
        return self._features(x).mT

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 3, 32, 32)`` to ``(N, classes)``.

        Raises:
            ValueError: pictures of another shape, or in another dtype than the network's.
        """
        return self.readout(self._features(x))

    def _features(self, x: Tensor) -> Tensor:
        good = isinstance(x, Tensor) and x.dtype == self.readout.weight.dtype and x.numel() > 0
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x
        # At its end VGG19 has one pixel an image left: a batch of one cannot be normalized there.
        enough = good and (len(x) > 1 or not self.training)
        wanted = f"a tensor (N, 3, 32, 32) of dtype {self.readout.weight.dtype}, N > 1 while training"
        checks.require(enough and x.shape[1:] == (3, 32, 32), "x", found, wanted)
        return self.features(x)


class VGG19(ConvNet):
    """VGG19 for small pictures: sixteen 3×3 convolutions in five blocks, each followed by a pooling, and one read-out.

    A layer is a convolution with bias, the normalization, and the rectifier, in this order. The three large layers
    at the end of the original, which is for pictures of 224×224 pixels, are one linear read-out here.

    Args:
        width: multiplier of all numbers of channels; 1 is the published network.
        classes: number of outputs.
        norm: a key of ``NORMS``.
        at_most: convolutions a block; 4 leaves all sixteen, 1 a shallow control with five.
        device: of the parameters; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: a width that leaves a layer without channels, or another argument outside what is described above.

    Source: Simonyan and Zisserman (2015), configuration E.
    """

    def __init__(
        self,
        width: float = 1.0,
        classes: int = 10,
        *,
        norm: str = "batch",
        at_most: int = 4,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        device = _checked(width, classes, norm, device)
        checks.positive_integer("at_most", at_most)
        layers, before = [], 3
        for block in VGG19_BLOCKS:
            for channels in block[:at_most]:
                after = _scaled(width, channels)
                convolution = nn.Conv2d(before, after, 3, padding=1, device=device)
                layers.append(nn.Sequential(convolution, NORMS[norm](after, device=device), nn.ReLU()))
                before = after
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.readout = nn.Linear(before, classes, device=device)


class ResNet50(ConvNet):
    """ResNet-50 for small pictures: a 3×3 convolution, sixteen bottlenecks in four stages, a mean, and one read-out.

    The first convolution has stride 1 and no pooling behind it, since pictures are small. Where a bottleneck changes
    the shape, its skip connection is a normalized 1×1 convolution. Convolutions have biases only without normalization.

    Args:
        width: multiplier of all numbers of channels; 1 is the published network.
        classes: number of outputs.
        norm: a key of ``NORMS``.
        device: of the parameters; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: as :class:`VGG19`.

    Source: He et al. (2016), Table 1, with the first layer of its Section 4.2.
    """

    def __init__(
        self,
        width: float = 1.0,
        classes: int = 10,
        *,
        norm: str = "batch",
        device: torch.device | str | None = None,
    ):
        super().__init__()
        device = _checked(width, classes, norm, device)
        before = _scaled(width, RESNET50_STAGES[0][0])
        layers: list[nn.Module] = [_normalized(3, before, 3, norm=norm, device=device), nn.ReLU()]
        for channels, count, stride in RESNET50_STAGES:
            inside = _scaled(width, channels)
            for k in range(count):
                layers.append(_Bottleneck(before, inside, stride if k == 0 else 1, norm, device))
                before = EXPANSION * inside
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.readout = nn.Linear(before, classes, device=device)


class _Bottleneck(nn.Module):
    def __init__(self, before: int, inside: int, stride: int, norm: str, device: torch.device):
        super().__init__()
        after, same = EXPANSION * inside, {"norm": norm, "device": device}
        self.branch = nn.Sequential(
            _normalized(before, inside, 1, **same),
            nn.ReLU(),
            _normalized(inside, inside, 3, stride=stride, **same),
            nn.ReLU(),
            _normalized(inside, after, 1, **same),
        )
        changes = stride > 1 or before != after
        self.skip = _normalized(before, after, 1, stride=stride, **same) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.branch(x) + self.skip(x))


NETWORKS: dict[str, type[ConvNet]] = {"vgg19": VGG19, "resnet50": ResNet50}


def pictures(x: Tensor) -> Tensor:
    """Rows of pixels as what the networks take.

    Args:
        x: ``(n, 3072)``, a row a colour picture of 32×32 pixels, as from :func:`firststep.cifar.cifar10`; or
            ``(n, 784)``, grey pictures of 28×28 pixels, as from :func:`firststep.images.fashion_mnist`, which get a
            black margin of two pixels and three equal colours.

    Returns:
        ``(n, 3, 32, 32)``.

    Raises:
        ValueError: another shape, or entries that are not finite.
    """
    checks.matrices("x", x)
    checks.require(x.ndim == 2 and x.shape[1] in (784, 3072), "x", tuple(x.shape), "of shape (n, 3072) or (n, 784)")
    if x.shape[1] == 3072:
        return x.reshape(-1, 3, 32, 32)
    return functional.pad(x.reshape(-1, 1, 28, 28), (2, 2, 2, 2)).repeat(1, 3, 1, 1)


def _normalized(
    before: int, after: int, kernel: int, *, norm: str, device: torch.device, stride: int = 1
) -> nn.Sequential:
    bias = norm == "none"
    convolution = nn.Conv2d(before, after, kernel, stride=stride, padding=kernel // 2, bias=bias, device=device)
    return nn.Sequential(convolution, NORMS[norm](after, device=device))


def _checked(width: float, classes: int, norm: str, device: torch.device | str | None) -> torch.device:
    checks.number("width", width, above=0, allowed="a finite number > 0")
    checks.require(1 / 128 < width <= 64, "width", width, "between 1/128, which leaves no channel, and 64")
    checks.positive_integer("classes", classes)
    checks.one_of("norm", norm, NORMS)
    return scale.chosen(device)


def _scaled(width: float, channels: int) -> int:
    return max(1, math.floor(width * channels + 0.5))
