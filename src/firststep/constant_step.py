"""Training image classifiers at one constant step: where it breaks, and what it reaches.

A network is 784 · d · … · d · 10 with L weight matrices and no biases, as in :mod:`firststep.wide_kernel`, whose
prediction 2/λ_max of the largest step is put to the test.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from firststep import checks, feedforward, fitting, hessian_products, inits, nets
from firststep.images import fashion_mnist

SILENCE = {"squared": 0.5, "cross_entropy": math.log(10)}  # the loss of a network whose outputs are zero
# Beyond so many times the first loss, or that of silence, a run has diverged; cross-entropy is linear in the outputs.
_BLOWN = {"squared": 1e3, "cross_entropy": 30.0}
CLASSES = 10


@dataclass(frozen=True)
class Trained:
    """What one run came to.

    Attributes:
        first: mean loss over all images at the start.
        last: the same at the end; infinite if the run diverged.
        largest: largest loss on the way, each of the minibatch that is trained on.
        accuracy: share of the test images that are right at the end; nan if the run diverged.
        silent: loss of a network whose outputs are zero.
    """

    first: float
    last: float
    largest: float
    accuracy: float
    silent: float

    @property
    def trains(self) -> bool:
        """Whether it ends at least a hundredth below the start and below silence."""
        return self.last < 0.99 * min(self.first, self.silent)

    @property
    def descends(self) -> bool:
        """Whether no loss on the way exceeds the first one by more than a hundredth."""
        return math.isfinite(self.last) and self.largest <= 1.01 * self.first


def pixels(
    count: int, *, split: str = "train", dtype: torch.dtype = torch.float32, device=None
) -> tuple[Tensor, Tensor]:
    """Balanced standardized images: ``(count, 784)`` with mean zero and variance one over all training pixels; labels.

    Args:
        count: how many, a multiple of ten up to 2,000, or 1,000 for the test split.
        split: ``train`` or ``test``.
        dtype: of the pixels.
        device: by default :func:`firststep.scale.device`.

    Raises:
        ValueError: a count that is not as described, or as :func:`firststep.images.fashion_mnist`.
    """
    found = fashion_mnist(split, dtype=torch.float64, device=device)
    good = checks.is_integer(count) and 0 < count <= len(found.y) and count % CLASSES == 0
    checks.require(good, "count", count, f"a multiple of {CLASSES} up to {len(found.y)}")
    checks.floating("dtype", dtype)
    train = found if split == "train" else fashion_mnist("train", dtype=torch.float64, device=device)
    rows = torch.cat([(found.y == k).nonzero()[: count // CLASSES, 0] for k in range(CLASSES)])
    x = (found.x[rows] - train.x.mean()) / train.x.std()
    return x.to(dtype), found.y[rows]


def classifier(scheme: str, activation: str, width: int, depth: int, seed: int, *, device=None) -> nets.MLP:
    """A network of ``depth`` weight matrices, float32, whose biases are zero and stay so.

    Raises:
        ValueError: as :class:`firststep.nets.MLP` and :func:`firststep.nets.initialize_`, or a depth below one.
    """
    checks.positive_integer("depth", depth)
    net = nets.MLP(784, width, depth - 1, CLASSES, activation=activation, device=device)
    nets.initialize_(net, scheme, generator=inits.generator(seed, net.readout.weight.device))
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            parameter.requires_grad_(False).zero_()
    return net


def measured(net: nets.MLP, x: Tensor, activation: str, loss: str) -> float:
    """Largest eigenvalue of the whole Gauss–Newton matrix of a network on images, float64, by Lanczos iteration.

    Raises:
        ValueError: as :func:`firststep.feedforward.forward` and
            :func:`firststep.hessian_products.gauss_newton_norm`.
    """
    checks.instance("net", net, nets.MLP)
    checks.matrices("x", x)
    weights = [p.detach().double() for p in net.parameters() if p.ndim == 2]
    names = (activation,) * (len(weights) - 1) + ("linear",)
    run = feedforward.forward(weights, x.double(), activation=names, samples=True)
    return hessian_products.gauss_newton_norm(run, loss=loss, tol=1e-4)


def train(
    net: nets.MLP,
    x: Tensor,
    y: Tensor,
    *,
    loss: str,
    step_size: float,
    updates: int,
    batch: int = 0,
    generator: Generator | None = None,
    test: tuple[Tensor, Tensor] | None = None,
) -> Trained:
    """Train by gradient descent at one constant step; the network is changed in place.

    Args:
        net: a network of ten outputs.
        x: images, ``(n, 784)``, in the dtype of the network.
        y: class numbers, int64, ``(n,)``.
        loss: ``squared``, ½‖z − t‖² with one-hot t, or ``cross_entropy``; the mean over images.
        step_size: η, positive.
        updates: number of steps.
        batch: images a step, reshuffled after each pass; 0 for all of them.
        generator: of the order of the minibatches, where there are any, on the device of ``x``.
        test: images and labels of which the accuracy is taken; ``x`` and ``y`` if there are none.

    Raises:
        ValueError: an argument is outside what is described.
    """
    _check(net, x, y, loss, batch, generator)
    checks.number("step_size", step_size, above=0, allowed="a finite number > 0")
    checks.positive_integer("updates", updates)
    with torch.no_grad():
        first = float(fitting.LOSSES[loss](net(x), y))
    blown = _BLOWN[loss] * max(first, SILENCE[loss])
    options = {"step_size": step_size, "steps": updates, "batch_size": batch or len(x)}
    options |= {"generator": generator if batch else None}
    run = fitting.fit(net, x, y, **options, loss=loss, limit=blown)
    with torch.no_grad():
        last = float(fitting.LOSSES[loss](net(x), y))
    if run.diverged or not last < blown:
        return Trained(first, math.inf, math.inf, math.nan, SILENCE[loss])
    largest = max(first, float(run.loss.max()), last if not batch else first)
    return Trained(first, last, largest, fitting.accuracy(net, *(test or (x, y))), SILENCE[loss])


def _check(net: nets.MLP, x: Tensor, y: Tensor, loss: str, batch: int, generator: Generator | None) -> None:
    checks.instance("net", net, nets.MLP)
    checks.matrices("x", x)
    labels = isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == x.shape[:1]
    checks.require(labels and checks.every((y >= 0) & (y < CLASSES)), "y", y, "class numbers from 0 to 9, one an image")
    checks.one_of("loss", loss, fitting.LOSSES)
    checks.natural("batch", batch)
    if batch:
        checks.generator("generator", generator)


def rule_step(moment: float, loss: str) -> float:
    """The paper's constant step: 1/‖H‖ where every Jacobian has norm one, so that ‖H‖ ≤ ‖H_z‖ · ‖Σ z⁰z⁰ᵀ/n‖.

    Args:
        moment: the largest eigenvalue of the inputs' second moment.
        loss: as :func:`train`; for cross-entropy ‖H_z‖ is that of ten equal probabilities, a tenth.

    Raises:
        ValueError: a moment that is not positive, or an unknown loss.
    """
    checks.number("moment", moment, above=0, allowed="a finite number > 0")
    checks.one_of("loss", loss, feedforward.LOSSES)
    return (1.0 if loss == "squared" else CLASSES) / moment
