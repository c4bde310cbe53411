"""VGG19 and ResNet-50, reduced in width, on images: the recorded runs of Figures 5, 7, 10 and 13."""

import inspect
import math
from collections.abc import Iterable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from firststep import checks, convnets, fitting, inits, nets, report
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


# The arms of Figures 5, 7, 10 and 13; the control that takes the mean from each row of the one-sided start; and plain
# networks, deep from two starts and shallow, with one convolution a block.
ARMS = {
    "standard": {"norm": "batch", "scheme": "torch_default"},
    "uncentred": {"norm": "uncentred", "scheme": "torch_default"},
    "one-sided": {"norm": "batch", "scheme": "torch_one_sided"},
    "rows centred": {"norm": "batch", "scheme": "torch_one_sided_centred"},
    "one-sided, uncentred": {"norm": "uncentred", "scheme": "torch_one_sided"},
    "none": {"norm": "none", "scheme": "torch_default"},
    "none, He": {"norm": "none", "scheme": "he_normal"},
    "shallow": {"norm": "none", "scheme": "torch_default", "at_most": 1},
}
STEP_SIZES = (0.003, 0.01, 0.03, 0.1, 0.3)
PASS = 2_500 // 32  # steps; what is left over is dropped
VGG = {"network": "vgg19", "width": 1 / 8, "data": "cifar10", "images": 2_500, "batch_size": 32, "every": PASS}
TRIAL = 100  # a seed that only chooses step sizes
# What the tuning sweeps found best; a test holds these tables against them.
TUNED = {
    "standard": 0.03, "uncentred": 0.01, "one-sided": 0.01, "rows centred": 0.01, "none, He": 0.1, "shallow": 0.3,
}  # fmt: skip
TUNED_LONGER = {"standard": 0.01, "uncentred": 0.003, "one-sided": 0.0017, "rows centred": 0.01}
TUNED_RESNET = {"standard": 0.1, "uncentred": 0.03, "one-sided": 0.1, "rows centred": 0.1}


def _points(arm: str, seeds: Iterable[int], base: dict, **options: object) -> list[dict]:
    return [base | ARMS[arm] | options | {"seed": seed} for seed in seeds]


# The first runs of Figures 5 and 7, which were too short for the question of centring, and those of Figure 10.
VGG_TUNING = [
    point for arm in TUNED for size in STEP_SIZES for point in _points(arm, [TRIAL], VGG, step_size=size, steps=PASS)
]
# Without normalization learning is slow: three passes left it open whether a shallow network does.
LONG = 8
VGG_TRAINING = [
    point
    for arm, size in TUNED.items()
    for point in _points(
        arm,
        range(5 if arm in ("standard", "uncentred") else 3),
        VGG,
        step_size=size,
        steps=(LONG if ARMS[arm]["norm"] == "none" else 3) * PASS,
    )
]
# Figure 10: without normalization at the step size that is best with it, at a hundred times that, and on random pixels.
_SAME = TUNED["standard"]
VGG_PLAIN = [
    point
    for arm, options in (
        ("none", {"step_size": _SAME}),
        ("none", {"step_size": 100 * _SAME}),
        ("none", {"step_size": _SAME, "data": "cifar10_pixels"}),
        ("shallow", {"step_size": TUNED["shallow"], "data": "cifar10_pixels"}),
    )
    for point in _points(arm, range(3), VGG, steps=LONG * PASS, **options)
]
# Figures 5 and 7, twice the images and twice the passes, and a finer grid of step sizes on two trial seeds. Twelve
# seeds where the difference between two arms is a small one.
FINE = (0.001, 0.0017, 0.003, 0.0055, 0.01, 0.017, 0.03, 0.055, 0.1)
LONGER = VGG | {"images": 5_000, "every": 5_000 // 32}
VGG_LONGER_TUNING = [
    point
    for arm in TUNED_LONGER
    for size in FINE
    for point in _points(arm, range(TRIAL, TRIAL + 2), LONGER, step_size=size, steps=2 * LONGER["every"])
]
VGG_LONGER = [
    point
    for arm, size in (TUNED_LONGER | {"none": TUNED_LONGER["standard"]}).items()
    for point in _points(
        arm,
        range(12 if arm in ("standard", "uncentred") else 3 if arm == "none" else 5),
        LONGER,
        step_size=size,
        steps=6 * LONGER["every"],
    )
]
# Whether the step size that is best over two passes is too small for six: the next ones up, nearly as good over two.
VGG_LONGER_STEPS = [
    point
    for size in (0.0055, 0.01)
    for point in _points("uncentred", range(3), LONGER, step_size=size, steps=6 * LONGER["every"])
]
# Figure 13.
RESNET = VGG | {"network": "resnet50"}
RESNET_TUNING = [
    point
    for arm in TUNED_RESNET
    for size in STEP_SIZES
    for point in _points(arm, [TRIAL], RESNET, step_size=size, steps=2 * PASS)
]
RESNET_TRAINING = [
    point
    for arm, size in TUNED_RESNET.items()
    for point in _points(
        arm, range(8 if arm in ("standard", "uncentred") else 4), RESNET, step_size=size, steps=3 * PASS
    )
]
# What pages run again: images that ship with the package, two short passes.
SLICE = VGG | {"data": "fashion", "images": 512, "steps": 32, "every": 16}
VGG_SLICE = [
    point
    for arm in ("standard", "uncentred", "one-sided", "none")
    for point in _points(arm, range(3), SLICE, step_size=TUNED.get(arm, _SAME))
]
VGG_SLICE += _points("none", range(3), SLICE, step_size=_SAME, data="fashion_pixels")
RESNET_SLICE = [
    point
    for arm in ("standard", "one-sided")
    for point in _points(
        arm, range(4), RESNET, width=1 / 16, data="fashion", images=256, steps=16, every=8, step_size=_SAME
    )
]


# The start at all widths up to the published one, on as many images as its gradients leave memory for.
def _starts(network: str, images: int, widths: Iterable[float]) -> list[dict]:
    arms = ("standard", "uncentred", "one-sided", "one-sided, uncentred")
    return [
        point
        for width in widths
        for arm in arms[: 4 if width < 1 else 3]
        for point in _points(arm, range(3), {"network": network, "width": width, "data": "cifar10", "images": images})
    ]


VGG_STARTS = _starts("vgg19", 128, (1 / 8, 1 / 4, 1.0))
RESNET_STARTS = _starts("resnet50", 64, (1 / 16, 1 / 8, 1 / 4, 1.0))

SWEEPS = {
    "rank_collapse/vgg_slice": (train, VGG_SLICE, "float32"),
    "rank_collapse/vgg_starts": (start, VGG_STARTS, "float32"),
    "rank_collapse/vgg_tuning": (train, VGG_TUNING, "float32"),
    "rank_collapse/vgg_training": (train, VGG_TRAINING, "float32"),
    "rank_collapse/vgg_plain": (train, VGG_PLAIN, "float32"),
    "rank_collapse/vgg_longer_tuning": (train, VGG_LONGER_TUNING, "float32"),
    "rank_collapse/vgg_longer": (train, VGG_LONGER, "float32"),
    "rank_collapse/vgg_longer_steps": (train, VGG_LONGER_STEPS, "float32"),
    "rank_collapse/resnet_slice": (train, RESNET_SLICE, "float32"),
    "rank_collapse/resnet_starts": (start, RESNET_STARTS, "float32"),
    "rank_collapse/resnet_tuning": (train, RESNET_TUNING, "float32"),
    "rank_collapse/resnet_training": (train, RESNET_TRAINING, "float32"),
}


# What pages read


def of(table: pd.DataFrame, arm: str, **options: object) -> pd.DataFrame:
    """The runs of an arm in a table of :func:`firststep.book.recorded.load`, by seed; ``options`` narrow it further.

    Raises:
        ValueError: an unknown arm, or none of its runs is there.
    """
    wanted = {"at_most": 4} | ARMS[checks.one_of("arm", arm, ARMS)] | options
    found = table.assign(at_most=table["at_most"].fillna(4) if "at_most" in table else 4)
    for name, value in wanted.items():
        found = found[found[name] == value]
    checks.require(len(found) > 0, "arm", arm, "one with runs in the table")
    return found.sort_values("seed")


def series(runs: pd.DataFrame, name: str) -> np.ndarray:
    """A measurement of runs of equal length over time, ``(times, seeds)``, nan where there is none.

    A run that diverged ends early; the rest of it is nan.
    """
    rows = [[math.nan if v is None else v for v in values] for values in runs[name]]
    longest = max(len(row) for row in rows)
    return np.array([row + [math.nan] * (longest - len(row)) for row in rows]).T


def last_pass(runs: pd.DataFrame) -> np.ndarray:
    """Training accuracy of the last pass, ``(seeds,)``; a run that diverged counts as chance, one in ten."""
    return np.nan_to_num(series(runs, "accuracy")[-1], nan=0.1)


def tried(table: pd.DataFrame, arm: str) -> pd.Series:
    """Accuracy of the last pass of an arm's tuning by step size, the mean of its trial seeds."""
    runs = of(table, arm)
    return pd.Series(last_pass(runs), runs["step_size"]).groupby(level=0).mean()


def beyond(difference: report.Estimate) -> float:
    """How far from zero a difference may lie: 0 if its interval holds zero, else the farther end's distance."""
    return 0.0 if difference.low <= 0 <= difference.high else max(abs(difference.low), abs(difference.high))


OVERVIEW = ["rank", "r(H)", "silent images", "gradient, first / last layer", "accuracy, last pass"]


def overview(runs: pd.DataFrame) -> list[str]:
    """An arm in a row of a table with columns ``OVERVIEW``: means over its seeds at the start, and after training.

    Growth of gradients is a geometric mean; accuracy has its 95 % interval.
    """
    rank, stable_rank, silent = (series(runs, name)[0].mean() for name in ("rank", "stable_rank", "silent"))
    growth = np.exp(np.log(series(runs, "first")[0] / series(runs, "last")[0]).mean())
    last = report.mean(last_pass(runs))
    ends = f"{last.value:.1%} ± {last.high - last.value:.1%}"
    return [f"{rank:.0f}", f"{stable_rank:.2f}", f"{silent:.0%}", f"{growth:.3g}", ends]


SPREAD = {"rank": 1.0, "stable_rank": 0.02, "accuracy": 0.02}  # least width of the seeds' spread


def disagreement(fresh: list[dict], recorded: pd.DataFrame) -> float:
    """The largest difference between fresh runs of an arm and its recorded ones of the same seeds, over their spread.

    Compared are rank and r(H) at the start and the accuracy of the last block; the spread of each is its range over
    all recorded seeds, at least that of ``SPREAD``. More than one is a disagreement.
    """
    worst = 0.0
    for name, least in SPREAD.items():
        place = -1 if name == "accuracy" else 0
        known = recorded[name].map(lambda values, place=place: values[place]).to_numpy(float)
        spread = max(float(np.ptp(known)), least)
        worst = max(worst, *(abs(run[name][place] - value) / spread for run, value in zip(fresh, known, strict=False)))
    return worst


def rerun(runs: pd.DataFrame, count: int) -> float:
    """Make the first runs of an arm once more, and return their :func:`disagreement` with the record."""
    names = [name for name in inspect.signature(train).parameters if name in runs]
    points = runs[names].head(count).astype({"at_most": int} if "at_most" in names else {}).to_dict("records")
    return disagreement([train(**point) for point in points], runs)
