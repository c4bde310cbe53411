"""VGG19 and ResNet-50, reduced in width, on images: the recorded runs of Figures 5, 7, 10 and 13."""

import math

import torch
from torch import Tensor

from firststep import checks, convnets, fitting, inits, nets
from firststep.book import sweep
from firststep.cifar import cifar10
from firststep.images import fashion_mnist

PROBE = 256  # images on which rank, r(H), alignment and gradients are measured: the first of the training set
DATA = ("cifar10", "cifar10_pixels", "fashion", "fashion_pixels")


def load(data: str, count: int, seed: int) -> tuple[Tensor, Tensor, str]:
    """The first images of a training set with mean zero and variance one in each colour, labels, and their source.

    Args:
        data: a set; with ``_pixels`` its labels stay and its images are replaced by independent uniform pixels.
        count: how many.
        seed: of the random pixels.

    Raises:
        ValueError: an unknown set, or one with fewer images.
        DataError: CIFAR-10 is not on this machine.
    """
    checks.one_of("data", data, DATA)
    found = cifar10(device="cpu") if data.startswith("cifar10") else fashion_mnist(device="cpu")
    checks.require(count <= len(found.x), "count", count, f"at most the number of images, {len(found.x)}")
    x = convnets.pictures(found.x[:count])
    if data.endswith("_pixels"):
        x = torch.rand(x.shape, generator=inits.generator(10**6 + seed, "cpu"), device="cpu")
    # Fashion-MNIST's three colours are one: the same for all of them.
    axes = (0, 2, 3)
    x = (x - x.mean(axes, keepdim=True)) / x.std(axes, keepdim=True)
    return x.contiguous(memory_format=torch.channels_last), found.y[:count], found.source


def train(
    network: str, width: float, norm: str, scheme: str, data: str, images: int, step_size: float, steps: int,
    batch_size: int, every: int, seed: int, at_most: int = 4,
) -> dict:  # fmt: skip
    """A fit by plain SGD in float32, watched on the way.

    Args:
        network: a key of :data:`firststep.convnets.NETWORKS`.
        width: multiplier of the numbers of channels.
        norm: a key of :data:`firststep.convnets.NORMS`.
        scheme: of the start, as :func:`firststep.nets.initialize_` knows it.
        data: one of ``DATA``.
        images: how many.
        step_size: of every step.
        steps: how many.
        batch_size: images a step.
        every: steps between two measurements, and in a block.
        seed: of weights, order, and random pixels.
        at_most: convolutions a block of VGG19; fewer than 4 make a shallow one.

    Returns:
        ``at``, the steps before which was measured, and there ``rank``, ``stable_rank``, ``alignment``, ``silent``,
        ``first`` and ``last`` of :func:`firststep.fitting.examine`; ``loss`` and ``accuracy``, the means of every
        block of minibatches before their steps; ``test``, accuracy on the test set in evaluation mode; ``moved``, for
        networks without normalization, the displacement of the read-out's weights; ``diverged``, the step or ``None``;
        ``parameters`` and ``source``. Numbers that are none are ``None``.

    Raises:
        ValueError, DataError: as :func:`load` and the functions above.
    """
    x, y, source = load(data, images, seed)
    options = {} if network == "resnet50" else {"at_most": at_most}
    net = convnets.NETWORKS[network](width, norm=norm, device="cpu", **options)
    nets.initialize_(net.to(memory_format=torch.channels_last), scheme, generator=inits.generator(seed, "cpu"))
    before = net.readout.weight.detach().clone()
    seen: list[dict] = []
    run = fitting.fit(
        net, x, y, step_size=step_size, steps=steps, batch_size=batch_size, every=every,
        generator=inits.generator(10**3 + seed, "cpu"),
        measure={"seen": lambda net: seen.append(fitting.examine(net, x[:PROBE], y[:PROBE])) or 0.0},
    )  # fmt: skip
    blocks = {name: getattr(run, name).split(every) for name in ("loss", "accuracy")}
    return {
        "at": run.at,
        **{name: [_number(one[name]) for one in seen] for name in seen[0]},
        **{name: [_number(float(block.mean())) for block in given] for name, given in blocks.items()},
        "test": None if data.endswith("_pixels") or run.diverged else _test_accuracy(net, data, images),
        "moved": _digits(net.readout.weight.detach() - before) if norm == "none" else None,
        "diverged": run.step,
        "parameters": sum(p.numel() for p in net.parameters()),
        "source": source,
    }


def start(network: str, width: float, norm: str, scheme: str, data: str, images: int, seed: int) -> dict:
    """The start alone, on as many images: what :func:`firststep.fitting.examine` finds.

    Raises:
        ValueError, DataError: as :func:`train`.
    """
    x, y, source = load(data, images, seed)
    net = convnets.NETWORKS[network](width, norm=norm, device="cpu").to(memory_format=torch.channels_last)
    nets.initialize_(net, scheme, generator=inits.generator(seed, "cpu"))
    found = {name: _number(value) for name, value in fitting.examine(net, x, y).items()}
    return found | {"parameters": sum(p.numel() for p in net.parameters()), "source": source}


def _test_accuracy(net: convnets.ConvNet, data: str, count: int) -> float:
    """Test images get the shift and scale of the training images."""
    kind = cifar10 if data == "cifar10" else fashion_mnist
    raw = convnets.pictures(kind(device="cpu").x[:count])
    mean, std = raw.mean((0, 2, 3), keepdim=True), raw.std((0, 2, 3), keepdim=True)
    test = kind("test", device="cpu")
    return fitting.accuracy(net, (convnets.pictures(test.x) - mean) / std, test.y)


def _number(value: float) -> float | None:
    """JSON knows no nan; six digits are more than float32 has to say here."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _digits(values: Tensor) -> list:
    return [[_number(float(v)) for v in row] for row in values]


# The five arms of Figures 5 and 7, the control that takes the mean from each row of the one-sided start, and one-sided
# weights without centring.
ARMS = {
    "standard": ("batch", "torch_default"),
    "uncentred": ("uncentred", "torch_default"),
    "one-sided": ("batch", "torch_one_sided"),
    "one-sided, rows centred": ("batch", "torch_one_sided_centred"),
    "one-sided, uncentred": ("uncentred", "torch_one_sided"),
    "none": ("none", "torch_default"),
}
STEP_SIZES = (0.003, 0.01, 0.03, 0.1, 0.3)
VGG = {"network": "vgg19", "width": 1 / 8, "data": "cifar10", "images": 5_000, "batch_size": 64}
PASS = 5_000 // 64  # steps
SHALLOW = {"norm": "none", "scheme": "torch_default", "at_most": 1}  # one convolution a block, five in all


def _tuning(arms: dict[str, tuple[str, str]], network: dict, step_sizes: tuple[float, ...], passes: int) -> list[dict]:
    """Every arm at every step size, on a seed that is not used again."""
    steps = passes * (network["images"] // network["batch_size"])
    points = sweep.grid(step_size=step_sizes, arm=arms)
    return [
        network | dict(zip(("norm", "scheme"), arms[p["arm"]], strict=True))
        | {"step_size": p["step_size"], "steps": steps, "every": steps // passes, "seed": 100}
        for p in points
    ]  # fmt: skip


VGG_TUNING = _tuning(ARMS, VGG, STEP_SIZES, 3)
VGG_TUNING += _tuning({"none, He": ("none", "he_normal")}, VGG, STEP_SIZES, 3)
VGG_TUNING += [{**p, **SHALLOW} for p in _tuning({"none": ARMS["none"]}, VGG, STEP_SIZES, 3)]

SWEEPS = {
    "rank_collapse/vgg_tuning": (train, VGG_TUNING),
}
