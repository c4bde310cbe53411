"""Stochastic gradient descent on images, and what to watch meanwhile: rank, alignment and growth of gradients."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from firststep import checks, spectra


def _squared(scores: Tensor, y: Tensor) -> Tensor:
    target = functional.one_hot(y, scores.shape[1]).to(scores.dtype)
    return 0.5 * (scores - target).square().sum(1).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squared": _squared,
    "cross_entropy": functional.cross_entropy,
}
"""Means over images: ½‖z − t‖² with one-hot t, or the cross-entropy."""


@dataclass(eq=False)
class Fit:
    """What :func:`fit` did.

    Attributes:
        loss: mean loss of each step's minibatch before the step, ``(steps,)``; NaN after a divergence.
        accuracy: share of that minibatch that was right before the step, ``(steps,)``; likewise.
        at: the steps before which was measured, ending with the number of steps taken.
        measured: each measurement, ``(len(at),)`` or longer.
        diverged: whether a loss was not below the limit; no step was taken from there.
        step: the step at which, or ``None``.
    """

    loss: Tensor
    accuracy: Tensor
    at: list[int]
    measured: dict[str, Tensor]
    diverged: bool = False
    step: int | None = None


@torch.enable_grad()
def fit(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    step_size: float,
    steps: int,
    batch_size: int,
    generator: Generator | None,
    loss: str = "cross_entropy",
    limit: float = math.inf,
    measure: Mapping[str, Callable[[nn.Module], float]] | None = None,
    every: int | None = None,
) -> Fit:
    """Plain SGD: no momentum, no decay; the network is changed in place, in training mode.

    Every pass goes through the images in a new order; what is left over at its end is dropped. Parameters that need no
    gradient stay as they are.

    Args:
        net: from images to class scores.
        x: images, one a row of the first axis, in the network's dtype.
        y: labels, int64.
        step_size: of every step.
        steps: how many.
        batch_size: images a step, at most as many as there are.
        generator: source of the orders, on the device of ``x``; ``None`` keeps the images in their own.
        loss: a key of ``LOSSES``.
        limit: a loss that is not below it has diverged.
        measure: functions of the network, called every ``every`` steps from the first on, and at the end.
        every: by default only before the first step and at the end.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    checks.instance("net", net, nn.Module, "a torch module")
    _check_labels(x, y)
    checks.number("step_size", step_size, above=0, allowed="a finite number > 0")
    checks.positive_integer("steps", steps)
    checks.positive_integer("batch_size", batch_size)
    checks.require(batch_size <= len(x), "batch_size", batch_size, f"at most the number of images, {len(x)}")
    if generator is not None:
        checks.generator("generator", generator)
    checks.one_of("loss", loss, LOSSES)
    good = isinstance(limit, int | float) and limit > 0
    checks.require(good, "limit", limit, "a number > 0")
    measure = {} if measure is None else measure
    checks.functions("measure", measure)
    every = checks.positive_integer("every", steps if every is None else every)

    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=step_size)
    net.train()
    run = Fit(*(torch.full((steps,), math.nan, device=x.device) for _ in range(2)), at=[], measured={})
    seen: dict[str, list] = {name: [] for name in measure}

    def look(step: int) -> None:
        run.at.append(step)
        for name, function in measure.items():
            seen[name].append(torch.as_tensor(function(net), dtype=torch.float64, device="cpu"))

    minibatches = _minibatches(len(x), batch_size, generator, x.device)
    for step in range(steps):
        if step % every == 0:
            look(step)
        rows = next(minibatches)
        scores = net(x[rows])
        if step == 0:
            _check_classes(scores, y)
        value = LOSSES[loss](scores, y[rows])
        if not float(value.detach()) < limit:
            run.diverged, run.step = True, step
            break
        run.loss[step] = value.detach()
        run.accuracy[step] = (scores.detach().argmax(1) == y[rows]).float().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    taken = run.step if run.diverged else steps
    if not run.at or run.at[-1] != taken:
        look(taken)
    run.measured = {name: torch.stack(values) for name, values in seen.items()}
    return run


def _minibatches(n: int, batch_size: int, generator: Generator | None, device: torch.device) -> Iterator[Tensor]:
    while True:
        drawn = generator is not None
        order = torch.randperm(n, generator=generator, device=device) if drawn else torch.arange(n, device=device)
        yield from order[: n - n % batch_size].split(batch_size)


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 500) -> float:
    """Share of the images that the network gets right in evaluation mode; its mode is left as it was.

    Raises:
        ValueError: labels and images do not fit together, or a batch size that is not a positive integer.
    """
    checks.instance("net", net, nn.Module, "a torch module")
    _check_labels(x, y)
    checks.positive_integer("batch_size", batch_size)
    was = net.training
    net.eval()
    found = torch.cat([net(part).argmax(1) for part in x.split(batch_size)])
    net.train(was)
    return float((found == y).double().mean())


def alignment(h: Tensor) -> Tensor:
    """Mean absolute cosine between the last layer's gradients of two different samples, over all pairs that have them.

    The gradient of an output neuron's weights is a number times the sample's representation, so that neither neuron,
    nor labels, nor loss matter: it is the mean of abs(cos(h_i, h_j)), one if all columns are collinear. A column
    of zeros has no gradient, and its pairs are left out.

    Args:
        h: representations, ``(d, N)``, one column a sample, at least two of them not zero.

    Returns:
        A scalar.

    Raises:
        ValueError: not a matrix, or fewer than two columns that are not zero.

    Source: Daneshmand et al. (2020), Equation (97) and Figure 10.
    """
    checks.matrices("h", h)
    heard = h[:, (h != 0).any(0)] if h.ndim == 2 else h[..., :0]
    n = heard.shape[-1]
    checks.require(n > 1, "h", tuple(h.shape), "a matrix with at least two columns that are not zero")
    unit = heard / heard.abs().amax(0)  # squares of tiny entries would underflow
    unit = unit / unit.norm(dim=0)
    cosines = (unit.mT @ unit).abs()
    return ((cosines.sum() - cosines.trace()) / (n * (n - 1))).clamp(0, 1)


@torch.enable_grad()
def gradient_norms(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Frobenius norm of the cross-entropy's gradient for every weight of a linear layer or convolution, in order.

    In training mode if the network is in it; what normalization layers have collected is left as it was.

    Returns:
        ``(layers,)``, the read-out last.

    Raises:
        ValueError: labels and images do not fit together.
    """
    checks.instance("net", net, nn.Module, "a torch module")
    _check_labels(x, y)
    weights = [m.weight for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    with _kept(net):
        scores = net(x)
        _check_classes(scores, y)
        loss = functional.cross_entropy(scores, y)
        return torch.stack([g.norm() for g in torch.autograd.grad(loss, weights)])


def examine(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """The state of a network on a batch of images: is its last representation spread, and do gradients explode?

    Args:
        net: a network with the method ``last_hidden``, such as :class:`firststep.convnets.VGG19`, in either mode; it
            is not changed.
        x: images, at least two.
        y: labels, int64.

    Returns:
        ``rank``, of the last hidden representation at the default tolerance; ``stable_rank``, its r(H);
        ``silent``, the share of samples whose representation is zero; ``alignment``, over the others; ``first`` and
        ``last``, the gradient's norm for the first weights and for those before the read-out: ``first / last`` is how
        far gradients grow on their way back. NaN where there is nothing to measure, as after a divergence.

    Raises:
        ValueError: labels and images do not fit together, or there is one image only.
    """
    checks.require(hasattr(net, "last_hidden"), "net", type(net).__name__, "a network with the method last_hidden")
    norms = gradient_norms(net, x, y)
    checks.require(len(x) > 1, "x", len(x), "at least two images")
    with torch.no_grad(), _kept(net):
        h = net.last_hidden(x)
    found = dict.fromkeys(("rank", "stable_rank", "alignment", "silent"), math.nan)
    if bool(h.isfinite().all()):
        heard = int((h != 0).any(0).sum())
        found |= {"rank": float(spectra.numerical_rank(h)), "silent": 1 - heard / len(x)}
        if heard:
            found["stable_rank"] = float(spectra.stable_rank(h / h.abs().max()))
        if heard > 1:
            found["alignment"] = float(alignment(h))
    return found | {"first": float(norms[0]), "last": float(norms[-2])}


class _kept:
    """What a network's normalization layers have collected, as it was before."""

    def __init__(self, net: nn.Module):
        self.buffers = list(net.buffers())

    def __enter__(self) -> None:
        self.before = [buffer.clone() for buffer in self.buffers]

    def __exit__(self, *_: object) -> None:
        with torch.no_grad():
            for buffer, before in zip(self.buffers, self.before, strict=True):
                buffer.copy_(before)


def _check_labels(x: Tensor, y: Tensor) -> None:
    checks.tensor("x", x)
    checks.require(x.ndim > 1, "x", tuple(x.shape), "images along the first of at least two axes")
    good = isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == (len(x),) and checks.every(y >= 0)
    found = (tuple(y.shape), y.dtype) if isinstance(y, Tensor) else y
    checks.require(good, "y", found, f"labels ({len(x)},) of dtype torch.int64, at least 0")


def _check_classes(scores: Tensor, y: Tensor) -> None:
    most = int(y.max())
    checks.require(most < scores.shape[1], "y", most, f"labels below the number of classes, {scores.shape[1]}")
