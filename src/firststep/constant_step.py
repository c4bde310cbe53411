"""Training image classifiers at one constant step: where it breaks, and what it reaches.

A network is 784 · d · … · d · 10 with L weight matrices and no biases, as in :mod:`firststep.wide_kernel`, whose
prediction 2/λ_max of the largest step is put to the test. Step sizes come from one grid, 10^(j/8) for whole j; it is
walked in half decades and refined by halving around the edges.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from firststep import checks, feedforward, hessian_products, inits, nets, wide_kernel
from firststep.images import fashion_mnist

PER_DECADE = 8
COARSE = tuple(range(-3 * PER_DECADE, 2 * PER_DECADE + 1, PER_DECADE // 2))  # 10^-3 to 100 in half decades
SILENCE = {"squared": 0.5, "cross_entropy": math.log(10)}  # the loss of a network whose outputs are zero
# Beyond so many times the first loss, or that of silence, a run has diverged; cross-entropy is linear in the outputs.
_BLOWN = {"squared": 1e3, "cross_entropy": 30.0}
_CLASSES = 10


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
    _tens("count", count, len(found.y))
    checks.floating("dtype", dtype)
    train = found if split == "train" else fashion_mnist("train", dtype=torch.float64, device=device)
    rows = torch.cat([(found.y == k).nonzero()[: count // _CLASSES, 0] for k in range(_CLASSES)])
    x = (found.x[rows] - train.x.mean()) / train.x.std()
    return x.to(dtype), found.y[rows]


def _tens(name: str, value: int, most: int) -> None:
    good = checks.is_integer(value) and 0 < value <= most and value % _CLASSES == 0
    checks.require(good, name, value, f"a multiple of {_CLASSES} up to {most}")


def classifier(scheme: str, activation: str, width: int, depth: int, seed: int, *, device=None) -> nets.MLP:
    """A network of ``depth`` weight matrices, float32, whose biases are zero and stay so.

    Raises:
        ValueError: as :class:`firststep.nets.MLP` and :func:`firststep.nets.initialize_`, or a depth below one.
    """
    checks.positive_integer("depth", depth)
    net = nets.MLP(784, width, depth - 1, _CLASSES, activation=activation, device=device)
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
        generator: of the order of the minibatches, on the device of ``x``.
        test: images and labels of which the accuracy is taken; ``x`` and ``y`` if there are none.

    Raises:
        ValueError: an argument is outside what is described.
    """
    _check(net, x, y, loss, batch, generator)
    checks.number("step_size", step_size, above=0, allowed="a finite number > 0")
    checks.positive_integer("updates", updates)
    target = functional.one_hot(y, _CLASSES).to(x.dtype)
    moving = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=step_size)
    with torch.no_grad():
        everything = _loss(net(x), target, loss)
    first = largest = float(everything)
    blown, still = _BLOWN[loss] * max(first, SILENCE[loss]), 0
    order: list[Tensor] = []
    for _ in range(updates):
        if batch and not order:
            order = list(torch.randperm(len(x), generator=generator, device=x.device).split(batch))
        optimizer.zero_grad()
        rows = order.pop() if batch else slice(None)
        now = _loss(net(x[rows]), target[rows], loss)
        now.backward()
        largest, still = max(largest, float(now.detach())), 0 if any(p.grad.any() for p in moving) else still + 1
        if not float(now.detach()) < blown:
            return Trained(first, math.inf, math.inf, math.nan, SILENCE[loss])
        if still > len(x) / (batch or len(x)):
            break  # no image has had a gradient for a whole pass: every later step is the same
        optimizer.step()
    with torch.no_grad():
        last = float(_loss(net(x), target, loss))
        x_test, y_test = test or (x, y)
        accuracy = float((net(x_test).argmax(1) == y_test).double().mean())
    if not last < blown:
        return Trained(first, math.inf, math.inf, math.nan, SILENCE[loss])
    return Trained(first, last, max(largest, last) if not batch else largest, accuracy, SILENCE[loss])


def _loss(z: Tensor, target: Tensor, loss: str) -> Tensor:
    if loss == "squared":
        return 0.5 * (z - target).square().sum(1).mean()
    return functional.cross_entropy(z, target)


def _check(net: nets.MLP, x: Tensor, y: Tensor, loss: str, batch: int, generator: Generator | None) -> None:
    checks.instance("net", net, nets.MLP)
    checks.matrices("x", x)
    labels = isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == x.shape[:1]
    checks.require(
        labels and checks.every((y >= 0) & (y < _CLASSES)), "y", y, "class numbers from 0 to 9, one an image"
    )
    checks.one_of("loss", loss, feedforward.LOSSES)
    checks.natural("batch", batch)
    if batch:
        checks.generator("generator", generator)


def _walk(run: Callable[[int], Trained], coarse: tuple[int, ...] = COARSE) -> dict[int, Trained]:
    """Outcomes of a grid of step sizes 10^(j/8) by j, from below, refined by halving around the edge of training.

    Two coarse steps in a row that do not train, after one that does, end the walk.
    """
    found: dict[int, Trained] = {}
    for place, j in enumerate(coarse):
        found[j] = run(j)
        before = [found[i].trains for i in coarse[: place + 1]]
        if any(before) and not any(before[-2:]):
            break
    low = largest_step(found, "trains")
    high = min((j for j in found if low is not None and j > low), default=None)
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        found[middle] = run(middle)
        low, high = (middle, high) if found[middle].trains else (low, middle)
    return dict(sorted(found.items()))


def largest_step(found: dict[int, Trained], what: str) -> int | None:
    """The largest j that trains, or that descends as all smaller ones do; ``None`` if there is none.

    Far beyond the edge relu networks may die in one step, and a network whose outputs are zero goes up no more.

    Args:
        found: outcomes by j.
        what: ``trains`` or ``descends``.

    Raises:
        ValueError: ``found`` holds something else, or an unknown word.
    """
    good = isinstance(found, dict) and all(isinstance(outcome, Trained) for outcome in found.values())
    checks.require(good, "found", found, "outcomes by j")
    checks.one_of("what", what, ("trains", "descends"))
    kept = [(j, getattr(found[j], what)) for j in sorted(found)]
    if what == "descends":
        kept = list(itertools.takewhile(lambda pair: pair[1], kept))
    return max((j for j, fine in kept if fine), default=None)


def step(j: float) -> float:
    """10^(j/8).

    Raises:
        ValueError: not a number between -800 and 800.
    """
    return 10 ** (checks.between("j", j, -800, 800) / PER_DECADE)


def experiment(
    scheme: str, activation: str, loss: str, width: int, depth: int, images: int, batch: int, updates: int, seeds: int
) -> dict:
    """Everything about one start: its curvature, predicted and measured, and its training at every step of the grid.

    Args:
        scheme, activation, width, depth: as :func:`classifier`.
        loss, batch, updates: as :func:`train`.
        images: how many are trained on, as :func:`pixels`; curvature is of 500 of them at most.
        seeds: starts 0, 1, ….

    Returns:
        ``input``, the largest eigenvalue of the inputs' second moment; ``predicted``, that of the Gauss–Newton matrix;
        and ``runs``, a list over seeds of ``measured``, ``grid`` (j, first, last, largest, accuracy) and ``named``:
        step and the same for ``rule`` = 1/(‖H_z‖ · input), ``unit`` = 1, ``predicted`` = 2/λ, ``half`` = 1/λ and, with
        full batches, ``beyond`` = 4/λ of the measured λ. Infinite and undefined numbers are ``None``.

    Raises:
        ValueError: as the functions that it calls.
    """
    for name, value in (("width", width), ("depth", depth), ("updates", updates), ("seeds", seeds)):
        checks.positive_integer(name, value)
    checks.natural("batch", batch)
    _tens("images", images, 2_000)
    x, y = pixels(images, device="cpu")  # recorded runs are the same on every machine
    test = pixels(1_000, split="test", device="cpu")
    few = pixels(min(images, 500), dtype=torch.float64, device="cpu")[0]
    widths = (784,) + (width,) * (depth - 1) + (_CLASSES,)
    moment = float(torch.linalg.matrix_norm(few / math.sqrt(len(few)), 2)) ** 2
    predicted = wide_kernel.largest_eigenvalue(few, widths, scheme, activation, loss=loss)
    options = {"loss": loss, "updates": updates, "batch": batch, "test": test}
    found = []
    for seed in range(seeds):

        def at(size: float, seed: int = seed) -> Trained:
            net = classifier(scheme, activation, width, depth, seed, device="cpu")
            return train(net, x, y, step_size=size, generator=inits.generator(seed, "cpu"), **options)

        top = measured(classifier(scheme, activation, width, depth, seed, device="cpu"), few, activation, loss)
        grid = _walk(lambda j, at=at: at(step(j)))
        named = {"rule": rule_step(moment, loss), "unit": 1.0, "predicted": 2 / predicted, "half": 1 / predicted}
        named |= {} if batch else {"beyond": 4 / top}
        found.append({
            "measured": top,
            "grid": [[j, *_row(outcome)] for j, outcome in grid.items()],
            "named": {name: [size, *_row(at(size))] for name, size in named.items()},
        })  # fmt: skip
    return {"input": moment, "predicted": predicted, "runs": found}


def digest(run: dict, loss: str) -> dict:
    """What one of the ``runs`` of :func:`experiment` says, in numbers.

    Args:
        run: as there.
        loss: as there.

    Returns:
        ``measured`` and ``first`` as there; ``silent``; ``edge`` and ``descent``, the largest steps that train and that
        descend, nan if none; ``best``, the lowest loss on the grid, with its step ``best_step``, its ``accuracy``, and
        whether that is ``inside``, not an end of the grid; whether any step ``trains``; and for each named step
        ``last_…`` and ``trains_…``. The loss of a run that diverged is infinite.

    Raises:
        ValueError: not what :func:`experiment` returns, or an unknown loss.
    """
    checks.one_of("loss", loss, feedforward.LOSSES)
    try:
        found = {j: _outcome(values, loss) for j, *values in run["grid"]}
        named = {name: _outcome(values, loss) for name, (_, *values) in run["named"].items()}
        top = float(run["measured"])
        best = min(found, key=lambda j: found[j].last)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"run must be one that experiment() returns, got {run!r}") from error
    edges = {what: largest_step(found, what) for what in ("trains", "descends")}
    sizes = {what: math.nan if j is None else step(j) for what, j in edges.items()}
    return {
        "measured": top,
        "first": found[best].first,
        "silent": SILENCE[loss],
        "edge": sizes["trains"],
        "descent": sizes["descends"],
        "best": found[best].last,
        "best_step": step(best),
        "accuracy": found[best].accuracy,
        "trains": edges["trains"] is not None,
        "inside": COARSE[0] < best < COARSE[-1],
        **{f"last_{name}": outcome.last for name, outcome in named.items()},
        **{f"trains_{name}": outcome.trains for name, outcome in named.items()},
    }


def _outcome(values: list, loss: str) -> Trained:
    first, last, largest, accuracy = values
    kept = (math.inf if last is None else last, math.inf if largest is None else largest)
    return Trained(first, *kept, math.nan if accuracy is None else accuracy, SILENCE[loss])


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
    return (1.0 if loss == "squared" else _CLASSES) / moment


def _row(outcome: Trained) -> list[float | None]:
    values = (outcome.first, outcome.last, outcome.largest, outcome.accuracy)
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]
