"""Many multilayer perceptrons of one shape, trained at once by SGD: seeds and step sizes are a batch dimension.

A product of batched matrices keeps a core busy where the products of a single narrow network are too small for it.
Members never meet: each has its own weights, minibatches, step size and running statistics, and one that diverges is
data. A batch of sixteen equals sixteen alone, to round-off.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional

from firststep import checks, nets, spectra

MOMENTUM, EPSILON = 0.1, 1e-5  # of running statistics and of normalization, as torch has them
_ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "linear": lambda h: h}


@dataclass(eq=False)
class Ensemble:
    """``B`` multilayer perceptrons of the same shape. Made by :meth:`of`; training changes it in place.

    Attributes:
        weights: ``[W_1, …, W_L, W_out]``, each ``(B, d_l, d_{l-1})``.
        biases: for each of them ``(B, d_l, 1)``.
        gains: the scales of batch normalization, for each hidden layer ``(B, d, 1)``; no entries without it.
        shifts: its shifts, likewise.
        means: running means, ``(B, d)`` for each hidden layer; no entries without batch normalization.
        variances: running variances, or running mean squares where nothing is centred, likewise.
        activation: a key of :data:`firststep.nets.MODULES`.
        centred: whether batch normalization subtracts the mean.
    """

    weights: list[Tensor]
    biases: list[Tensor]
    gains: list[Tensor]
    shifts: list[Tensor]
    means: list[Tensor]
    variances: list[Tensor]
    activation: str
    centred: bool

    @classmethod
    def of(cls, networks: Sequence[nets.MLP]) -> "Ensemble":
        """Copy networks of one shape, dtype and kind into an ensemble, with their running statistics.

        Raises:
            ValueError: no networks, or they differ in more than their numbers.
        """
        networks = checks.listed(networks)
        good = isinstance(networks, tuple) and networks and all(isinstance(net, nets.MLP) for net in networks)
        checks.require(good, "networks", networks, "a non-empty list of nets.MLP")
        kinds = {_kind(net) for net in networks}
        checks.require(len(kinds) == 1, "networks", f"{len(kinds)} kinds", "alike in shape, dtype, device and layers")
        normed, readouts = networks[0].batch_norm, [net.readout for net in networks]

        def stack(place: int, name: str) -> list[Tensor]:
            """A parameter of every hidden layer, copied from each network."""
            layers = zip(*([getattr(layer[place], name) for layer in net.hidden] for net in networks), strict=True)
            return [torch.stack(layer).detach() for layer in layers]

        weights, biases = (
            [*stack(0, name), torch.stack([getattr(layer, name) for layer in readouts]).detach()]
            for name in ("weight", "bias")
        )
        gains, shifts, means, variances = (
            stack(1, name) if normed else [] for name in ("weight", "bias", "running_mean", "running_var")
        )
        columns = ([v[..., None] for v in vectors] for vectors in (biases, gains, shifts))
        return cls(weights, *columns, means, variances, networks[0].activation, networks[0].centred)

    def member(self, index: int) -> nets.MLP:
        """A copy of one member as a torch module.

        Raises:
            ValueError: there is no such member.
        """
        checks.natural("index", index)
        checks.require(index < self.size, "index", index, f"below {self.size}, the number of members")
        (d_out, width), d_in, depth = self.weights[-1].shape[1:], self.weights[0].shape[2], len(self.weights) - 1
        options = {"activation": self.activation, "batch_norm": bool(self.gains), "centred": self.centred}
        net = nets.MLP(d_in, width, depth, d_out, **options, device=self.weights[0].device).to(self.weights[0].dtype)
        with torch.no_grad():
            for k, linear in enumerate([*(layer[0] for layer in net.hidden), net.readout]):
                linear.weight.copy_(self.weights[k][index])
                linear.bias.copy_(self.biases[k][index, :, 0])
            for k, norm in enumerate(layer[1] for layer in net.hidden if self.gains):
                norm.weight.copy_(self.gains[k][index, :, 0])
                norm.bias.copy_(self.shifts[k][index, :, 0])
                norm.running_mean.copy_(self.means[k][index])
                norm.running_var.copy_(self.variances[k][index])
        return net

    @property
    def size(self) -> int:
        """Number of members B."""
        return len(self.weights[0])

    @property
    def parameters(self) -> list[Tensor]:
        """What training moves: weights, biases, gains, shifts."""
        return [*self.weights, *self.biases, *self.gains, *self.shifts]

    def representations(self, x: Tensor, *, training: bool = True) -> list[Tensor]:
        """Every hidden layer's output, ``(B, d, N)``.

        Args:
            x: inputs that all members share, ``(N, d_in)``, or each member's own, ``(B, N, d_in)``; one row a sample.
            training: whether batch normalization takes the statistics of ``x``, not the running ones.

        Raises:
            ValueError: not inputs of the width and dtype of the networks, or one sample to normalize over.
        """
        self._check(x, training)
        return self._layers(x, training=training)

    def outputs(self, x: Tensor, *, training: bool = True) -> Tensor:
        """The read-outs, ``(B, d_out, N)``; arguments and errors as :meth:`representations`."""
        self._check(x, training)
        return self._outputs(x, training=training)

    def _outputs(self, x: Tensor, **options) -> Tensor:
        layers = self._layers(x, **options)
        return torch.baddbmm(self.biases[-1], self.weights[-1], layers[-1] if layers else self._columns(x))

    def _columns(self, x: Tensor) -> Tensor:
        return x.mT if x.ndim == 3 else x.mT.expand(self.size, -1, -1)

    def _layers(self, x: Tensor, *, training: bool, update: bool = False) -> list[Tensor]:
        h, layers = self._columns(x), []
        for k in range(len(self.weights) - 1):
            h = torch.baddbmm(self.biases[k], self.weights[k], h)
            if self.gains:
                h = self._normalized(h, k, training, update)
            h = _ACTIVATIONS[self.activation](h)
            layers.append(h)
        return layers

    def _normalized(self, h: Tensor, k: int, training: bool, update: bool) -> Tensor:
        """Batch normalization of ``(B, d, N)``: B·d rows, each with its own statistics."""
        mean, variance = self.means[k].view(-1), self.variances[k].view(-1)
        if self.centred:
            kept = (mean, variance) if update or not training else (None, None)
            affine = self.gains[k].view(-1), self.shifts[k].view(-1)
            flat = h.reshape(1, -1, h.shape[-1])
            return functional.batch_norm(flat, *kept, *affine, training, MOMENTUM, EPSILON).view_as(h)
        square = h.square().mean(-1, keepdim=True) if training else self.variances[k][..., None]
        if update:
            self.variances[k].lerp_(square.detach()[..., 0], MOMENTUM)
        return h * (square + EPSILON).rsqrt() * self.gains[k] + self.shifts[k]

    def _check(self, x: Tensor, training: bool) -> None:
        checks.flag("training", training)
        d_in, kind = self.weights[0].shape[2], self.weights[0].dtype
        good = isinstance(x, Tensor) and x.ndim in (2, 3) and x.numel() > 0 and x.dtype == kind
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x
        good = good and x.shape[-1] == d_in and (x.ndim == 2 or len(x) == self.size)
        checks.require(good, "x", found, f"(N, {d_in}) or ({self.size}, N, {d_in}) of dtype {kind}")
        alone = bool(self.gains) and training and x.shape[-2] < 2
        checks.require(not alone, "x", found, "more than one sample where the batch is normalized")


@dataclass(eq=False)
class History:
    """What training saw, for ``S`` steps, ``R`` measurements and ``B`` members.

    Attributes:
        loss: mean cross-entropy on a step's own minibatch, before the step, ``(S, B)``.
        accuracy: share of that minibatch that is classified right, in training mode, ``(S, B)``.
        steps: steps taken before each measurement, ``(R,)``; the first is 0, the last S.
        measured: for each name ``(R, B)``; nan for members that have diverged.
        diverged_at: the step, from 0, whose loss was not finite, ``(B,)``; S if only the last step's weights are not;
            -1 for a member that stayed finite.
    """

    loss: Tensor
    accuracy: Tensor
    steps: Tensor
    measured: dict[str, Tensor]
    diverged_at: Tensor

    def last(self, count: int) -> Tensor:
        """Mean loss of each member over the last ``count`` steps, ``(B,)``; infinite where it diverged.

        Raises:
            ValueError: ``count`` is not between 1 and the number of steps.
        """
        checks.positive_integer("count", count)
        checks.require(count <= len(self.loss), "count", count, f"at most {len(self.loss)}, the number of steps")
        return self.loss[-count:].mean(0).where(self.diverged_at < 0, torch.inf)


def sgd(
    ensemble: Ensemble,
    x: Tensor,
    y: Tensor,
    *,
    step_sizes: Sequence[float] | Tensor,
    steps: int,
    batch_size: int,
    generators: Sequence[Generator],
    warm_up: int = 0,
    measure: Mapping[str, Callable[[Ensemble], Tensor]] | None = None,
    every: int | None = None,
) -> History:
    """Train every member by plain SGD on the cross-entropy; the ensemble is changed in place.

    Each member goes through the samples in an order of its own, drawn anew each epoch; what is left of an epoch that
    would not fill a minibatch is not used. A member whose loss is no longer finite is recorded, its parameters become
    nan, and the others go on as if it were not there.

    Args:
        ensemble: the networks.
        x: training inputs, ``(n, d_in)``.
        y: labels, int64, ``(n,)``.
        step_sizes: one positive number a member.
        steps: number of steps.
        batch_size: samples a minibatch.
        generators: one a member, for the order of the samples.
        warm_up: steps over which the step size rises linearly to its value.
        measure: functions of the ensemble that return a tensor ``(B,)``, by name, called without gradients.
        every: steps between two measurements; by default only before the first and after the last.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    eta = _step_sizes(ensemble, step_sizes)
    _check_samples(ensemble, x, y)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        checks.positive_integer(name, value)
    least = 2 if ensemble.gains else 1
    checks.require(least <= batch_size <= len(x), "batch_size", batch_size, f"between {least} and {len(x)} samples")
    generators = checks.generators("generators", generators)
    checks.require(len(generators) == ensemble.size, "generators", len(generators), f"{ensemble.size}, one a member")
    checks.natural("warm_up", warm_up)
    measure = {} if measure is None else measure
    checks.functions("measure", measure)
    every = steps if every is None else checks.positive_integer("every", every)

    run = _Run(ensemble, measure, steps, every)
    rows = _minibatches(generators, len(x), batch_size)
    for k in range(steps):
        run.record(k)
        run.step(k, *_drawn(x, y, next(rows)), eta * min(1.0, (k + 1) / max(warm_up, 1)))
    run.finish()
    return run.history


def accuracy(ensemble: Ensemble, x: Tensor, y: Tensor, *, training: bool = False) -> Tensor:
    """Share of samples that each member classifies right, ``(B,)``; nan for one that has diverged.

    Args:
        ensemble: the networks.
        x: inputs, ``(n, d_in)``.
        y: labels, int64, ``(n,)``.
        training: as for :meth:`Ensemble.outputs`; by default batch normalization uses the running statistics.

    Raises:
        ValueError: arguments that :meth:`Ensemble.outputs` refuses, or labels of another number or range.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    _check_samples(ensemble, x, y)
    with torch.no_grad():
        right = (ensemble.outputs(x, training=training).argmax(1) == y).to(x.dtype).mean(-1)
    return right.where(finite(ensemble), torch.nan)


def stable_rank(ensemble: Ensemble, x: Tensor) -> Tensor:
    """r(H) of each member's last hidden layer in training mode, ``(B,)``; nan where it is zero or not finite.

    Args:
        ensemble: networks with at least one hidden layer.
        x: inputs, ``(n, d_in)``.

    Raises:
        ValueError: no hidden layer, or inputs that :meth:`Ensemble.representations` refuses.
    """
    checks.instance("ensemble", ensemble, Ensemble)
    checks.require(len(ensemble.weights) > 1, "ensemble", "no hidden layer", "networks with a hidden layer")
    with torch.no_grad():
        h = ensemble.representations(x)[-1]
    good = h.isfinite().all(-1).all(-1) & (h != 0).any(-1).any(-1)
    return spectra.stable_rank(h.where(good[:, None, None], 1.0)).where(good, torch.nan)


def finite(ensemble: Ensemble) -> Tensor:
    """Which members have finite parameters throughout, ``(B,)``."""
    checks.instance("ensemble", ensemble, Ensemble)
    return torch.stack([p.isfinite().flatten(1).all(1) for p in ensemble.parameters]).all(0)


class _Run:
    """One training run: the ensemble, its history, and which members are still finite."""

    def __init__(self, ensemble: Ensemble, measure: dict, steps: int, every: int):
        self.ensemble, self.measure, self.every, self.total = ensemble, measure, every, steps
        size, device = ensemble.size, ensemble.weights[0].device
        self.alive = torch.ones(size, dtype=torch.bool, device=device)
        nan = torch.full((steps, size), torch.nan, dtype=torch.float64, device=device)
        never = torch.full((size,), -1, dtype=torch.int64, device=device)
        self.history = History(nan, nan.clone(), torch.empty(0, device=device), {}, never)
        self.at, self.found = [], {name: [] for name in measure}

    def record(self, k: int) -> None:
        if k % self.every and k != self.total:
            return
        self.at.append(k)
        with torch.no_grad():
            for name, function in self.measure.items():
                self.found[name].append(function(self.ensemble).double().where(self.alive, torch.nan))

    @torch.enable_grad()
    def step(self, k: int, x: Tensor, y: Tensor, eta: Tensor) -> None:
        parameters = self.ensemble.parameters
        for p in parameters:
            p.requires_grad_(True)
        outputs = self.ensemble._outputs(x, training=True, update=True)
        loss = functional.cross_entropy(outputs, y, reduction="none").mean(-1)
        gradients = torch.autograd.grad(loss.sum(), parameters)
        with torch.no_grad():
            self.history.loss[k] = loss
            self.history.accuracy[k] = (outputs.argmax(1) == y).double().mean(-1)
            for p, gradient in zip(parameters, gradients, strict=True):
                p.requires_grad_(False).addcmul_(gradient, eta, value=-1)
            self.bury(self.alive & ~loss.isfinite(), k)

    def bury(self, lost: Tensor, k: int) -> None:
        """Members that diverged at step k: their parameters are nan from now on."""
        if not lost.any():
            return
        self.alive &= ~lost
        self.history.diverged_at[lost] = k
        for p in [*self.ensemble.parameters, *self.ensemble.means, *self.ensemble.variances]:
            p[lost] = torch.nan

    def finish(self) -> None:
        self.bury(self.alive & ~finite(self.ensemble), self.total)
        self.record(self.total)
        dead = ~self.alive
        for values in (self.history.loss, self.history.accuracy):
            after = torch.arange(self.total, device=dead.device)[:, None] >= self.history.diverged_at
            values[after & dead] = torch.nan
        self.history.steps = torch.tensor(self.at, device=dead.device)
        self.history.measured = {name: torch.stack(values) for name, values in self.found.items()}


def _kind(net: nets.MLP) -> tuple:
    """What networks of an ensemble have in common."""
    weight = net.readout.weight
    shapes = tuple(tuple(p.shape) for p in net.parameters())
    return shapes, weight.dtype, weight.device, net.activation, net.batch_norm, net.centred


def _step_sizes(ensemble: Ensemble, values: Sequence[float] | Tensor) -> Tensor:
    like = ensemble.weights[0]
    allowed = f"{ensemble.size} finite numbers > 0, one a member"
    eta = checks.reals("step_sizes", values, device=like.device, allowed=allowed, positive=True)
    checks.require(eta.shape == (ensemble.size,), "step_sizes", tuple(eta.shape), allowed)
    return eta.to(like.dtype)[:, None, None]


def _check_samples(ensemble: Ensemble, x: Tensor, y: Tensor) -> None:
    ensemble._check(x, False)
    checks.require(x.ndim == 2, "x", tuple(x.shape), "one matrix of inputs for all members")
    classes = ensemble.weights[-1].shape[1]
    good = isinstance(y, Tensor) and y.dtype == torch.int64 and y.shape == x.shape[:1]
    good = good and y.device == x.device and bool(((y >= 0) & (y < classes)).all())
    checks.require(good, "y", y, f"{len(x)} labels, int64, from 0 to {classes - 1}, on the device of x")


def _minibatches(generators: list[Generator], n: int, batch_size: int):
    """Each member's samples of the next step, ``(B, N)``; an epoch is a permutation of its own."""
    while True:
        orders = torch.stack([torch.randperm(n, generator=g, device=g.device) for g in generators])
        yield from orders[:, : n - n % batch_size].split(batch_size, dim=1)


def _drawn(x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    return x[rows], y[rows]
