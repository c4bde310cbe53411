"""Deep linear networks: product, loss, gradient, gradient descent over many runs at once.

A network is a list ``[W_1, …, W_L]`` with ``W_l: (..., d_l, d_{l-1})``. Leading axes are runs: seeds, step
sizes, anything. The loss ½‖W_L…W_1 X − Y‖²_F is a quadratic in the product whose coefficients are the moments
XXᵀ and YXᵀ, so nothing here ever touches the samples again: a step costs the same for 100 and for 100,000.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from firststep import checks
from firststep.spectra import numerical_rank

Weights = list[Tensor]
Measure = Callable[[Weights], Tensor]


@dataclass(frozen=True)
class Moments:
    """What the squared loss knows about the data.

    Attributes:
        xx: XXᵀ, ``(..., d_0, d_0)``; ``None`` means the identity exactly (whitened data), and saves its products.
        yx: YXᵀ, ``(..., d_L, d_0)``.
        yy: ‖Y‖²_F, ``(...)``.

    Raises:
        ValueError: not finite tensors of one dtype and these shapes.
    """

    xx: Tensor | None
    yx: Tensor
    yy: Tensor

    def __post_init__(self):
        checks.matrices("yx", self.yx)
        checks.tensor("yy", self.yy, self.yx.dtype)
        if self.xx is not None:
            checks.matrices("xx", self.xx, self.yx.dtype)
            side = self.yx.shape[-1]
            if self.xx.shape[-2:] != (side, side):
                shapes = tuple(self.xx.shape), tuple(self.yx.shape)
                raise ValueError(f"xx must be of shape (..., d_0, d_0), yx (..., d_L, d_0), got xx and yx of {shapes}")
        leading = [m.shape[:-2] for m in (self.xx, self.yx) if m is not None]
        checks.broadcast("xx, yx and yy", *leading, self.yy.shape)

    @classmethod
    def of(cls, x: Tensor, y: Tensor) -> "Moments":
        """Moments of inputs ``x: (..., d_0, n)`` and targets ``y: (..., d_L, n)``, one column a sample.

        Raises:
            ValueError: not finite matrices, or different numbers of samples.
        """
        checks.matrices("x", x)
        checks.matrices("y", y)
        if x.shape[-1] != y.shape[-1]:
            shapes = tuple(x.shape), tuple(y.shape)
            raise ValueError(f"x and y must have one column a sample, got x and y of shapes {shapes}")
        if (x.dtype, x.device) != (y.dtype, y.device):
            raise ValueError(f"x and y must have one dtype, got x and y of dtypes {x.dtype} and {y.dtype}")
        checks.broadcast("x and y", x.shape[:-2], y.shape[:-2])
        return cls(x @ x.mT, y @ x.mT, y.square().sum((-2, -1)))

    @classmethod
    def whitened(cls, target: Tensor) -> "Moments":
        """The loss ½‖W_L…W_1 − Φ‖²_F for ``target`` Φ: ``(..., d_L, d_0)``."""
        checks.matrices("target", target)
        return cls(None, target, target.square().sum((-2, -1)))

    def solution(self) -> Tensor:
        """Least-squares product P* = YXᵀ (XXᵀ)⁺, ``(..., d_L, d_0)``."""
        return self.yx if self.xx is None else self.yx @ torch.linalg.pinv(self.xx, hermitian=True)

    def residual(self, p: Tensor) -> Tensor:
        """Gradient of the loss in the product P: ``(..., d_L, d_0)``, which is P XXᵀ − YXᵀ of the same shape.

        Raises:
            ValueError: ``p`` is not a batch of finite matrices of the shape and dtype of YXᵀ.
        """
        checks.matrices("p", p, self.yx.dtype)
        good = p.shape[-2:] == self.yx.shape[-2:]
        checks.require(good, "p", tuple(p.shape), f"of shape (..., {self.yx.shape[-2]}, {self.yx.shape[-1]})")
        leading = [m.shape[:-2] for m in (self.xx, self.yx) if m is not None]
        checks.broadcast("p and the moments", p.shape[:-2], *leading)
        return self._residual(p)

    def _residual(self, p: Tensor) -> Tensor:
        return (p if self.xx is None else p @ self.xx) - self.yx


def product(weights: Weights) -> Tensor:
    """W_L … W_1, ``(..., d_L, d_0)``, multiplied from the narrower end.

    Raises:
        ValueError: empty, not finite, or shapes that do not chain.
    """
    return _product(checks.weights("weights", weights))


def _product(weights: Weights) -> Tensor:
    if weights[-1].shape[-2] <= weights[0].shape[-1]:
        result = weights[-1]
        for weight in reversed(weights[:-1]):
            result = result @ weight
    else:
        result = weights[0]
        for weight in weights[1:]:
            result = weight @ result
    return result


def loss(weights: Weights, moments: Moments) -> Tensor:
    """½‖W_L…W_1 X − Y‖²_F, ``(...)``.

    The quadratic in the moments cancels when the loss is many orders below ‖Y‖²; :func:`excess_loss` does not.

    Raises:
        ValueError: as :func:`product`, or the network does not fit the moments.
    """
    _fits(weights, moments)
    p = _product(weights)
    px = p if moments.xx is None else p @ moments.xx
    return 0.5 * ((p * (px - 2 * moments.yx)).sum((-2, -1)) + moments.yy)


def excess_loss(weights: Weights, moments: Moments) -> Tensor:
    """Loss above that of the least-squares solution, ½ Tr (P − P*) XXᵀ (P − P*)ᵀ, ``(...)``: never negative.

    Where XXᵀ is singular, round-off could take the quadratic form below zero; such values are set to zero.

    Raises:
        ValueError: as :func:`loss`.
    """
    _fits(weights, moments)
    gap = _product(weights) - moments.solution()
    return 0.5 * (gap * (gap if moments.xx is None else gap @ moments.xx)).sum((-2, -1)).clamp_min(0)


def gradient(weights: Weights, moments: Moments) -> Weights:
    """∂L/∂W_l = (W_L…W_{l+1})ᵀ (P XXᵀ − YXᵀ) (W_{l-1}…W_1)ᵀ for every layer, in the shapes of ``weights``.

    Costs three products of the narrower outer width with each layer, whatever the number of samples.

    Raises:
        ValueError: as :func:`loss`.
    """
    _fits(weights, moments)
    return _gradient(weights, moments)


def _gradient(weights: Weights, moments: Moments) -> Weights:
    if weights[-1].shape[-2] > weights[0].shape[-1]:
        # Wide output: the transposed network W_1ᵀ … W_Lᵀ has the same gradients, transposed, and a narrow end.
        flipped, residual = [w.mT for w in reversed(weights)], moments._residual(_product(weights)).mT
        return [g.mT for g in reversed(_chain_rule(flipped, residual))]
    return _chain_rule(weights, None, moments)


def _chain_rule(weights: Weights, residual: Tensor | None, moments: Moments | None = None) -> Weights:
    """Gradients of every layer, carrying only matrices with d_L rows.

    ``above[l] = W_L…W_{l+1}`` comes from the output side; ``below = residual · (W_{l-1}…W_1)ᵀ`` from the input.
    """
    above: list[Tensor | None] = [None] * len(weights)
    running = weights[-1]
    for layer in reversed(range(len(weights) - 1)):
        above[layer] = running
        running = running @ weights[layer]
    below = moments._residual(running) if residual is None else residual
    gradients = []
    for weight, suffix in zip(weights, above, strict=True):
        gradients.append(below if suffix is None else suffix.mT @ below)
        if suffix is not None:
            below = below @ weight.mT
    return gradients


@dataclass(frozen=True)
class Descent:
    """What a gradient descent run left behind.

    Attributes:
        weights: ``[W_1, …, W_L]`` after the last step; entries of diverged runs are not finite.
        steps: iterations at which was measured, ``(T,)``; 0 is the start.
        measured: one tensor a measure, ``(T, runs..., ...)``; not a number where a run had diverged.
        diverged_at: first iteration, of the measured ones and the last, at which a run's weights or their product were
            not finite, ``(runs...)``, else −1.
    """

    weights: Weights
    steps: Tensor
    measured: dict[str, Tensor]
    diverged_at: Tensor

    def __getitem__(self, name: str) -> Tensor:
        return self.measured[name]

    @property
    def diverged(self) -> Tensor:
        """Whether each run diverged, ``(runs...)``."""
        return self.diverged_at >= 0


def gradient_descent(
    weights: Weights,
    moments: Moments,
    *,
    step_size: float | Tensor,
    steps: int,
    measure: Mapping[str, Measure] | None = None,
    every: int | Iterable[int] = 1,
    constrain: Callable[[Weights], Weights] | None = None,
) -> Descent:
    """Gradient descent W_l ← W_l − η ∂L/∂W_l on all layers at once, for every run of the batch.

    Args:
        weights: the start, ``W_l: (runs..., d_l, d_{l-1})``; not changed.
        moments: the data, broadcast over the runs.
        step_size: η > 0; a tensor broadcasts over the runs, so that one call sweeps a grid of step sizes.
        steps: number of iterations.
        measure: functions of the weights, each returning a tensor with the runs in front.
        every: measure at 0, ``every``, 2·``every``, … and at the end; or at these iterations.
        constrain: applied to the weights after every step, such as a projection.

    Returns:
        A :class:`Descent`. Divergence is data: the run is flagged, its measures become nan (−1 for integer ones),
        and the other runs go on.

    Raises:
        ValueError: shapes that do not chain or fit, entries that are not finite, η ≤ 0, a negative number of steps.
    """
    _fits(weights, moments)
    checks.natural("steps", steps)
    checks.functions("measure", {} if measure is None else measure)
    checks.require(constrain is None or callable(constrain), "constrain", constrain, "None or a function of weights")
    eta = _step_sizes(step_size, weights)
    due = _cadence(every, steps)
    batched = [*weights, moments.yx] if moments.xx is None else [*weights, moments.xx, moments.yx]
    runs = checks.broadcast("step_size", eta.shape[:-2], *(b.shape[:-2] for b in batched))
    weights = [w.expand(*runs, *w.shape[-2:]).clone() for w in weights]
    diverged_at = torch.full(runs, -1, device=weights[0].device)
    taken: list[int] = []
    records: dict[str, list[Tensor]] = {name: [] for name in measure or {}}
    for step in range(steps + 1):
        if due(step):
            taken.append(step)
            finite = _finite(weights)
            diverged_at[(diverged_at < 0) & ~finite] = step
            for name, value in _measure(measure or {}, weights, finite).items():
                records[name].append(value)
            if not finite.any():
                break
        if step < steps:
            for weight, grad in zip(weights, _gradient(weights, moments), strict=True):
                weight.sub_(grad.mul_(eta))
            weights = constrain(weights) if constrain else weights
    if not due(steps):
        diverged_at[(diverged_at < 0) & ~_finite(weights)] = steps
    measured = {name: torch.stack(values) for name, values in records.items()}
    return Descent(weights, torch.tensor(taken, device=weights[0].device), measured, diverged_at)


def _finite(weights: Weights) -> Tensor:
    """Whether each run is finite still, its product too: finite factors can overflow on being multiplied."""
    return torch.stack([w.isfinite().all(-1).all(-1) for w in [*weights, _product(weights)]]).all(0)


def _measure(measure: Mapping[str, Measure], weights: Weights, finite: Tensor) -> dict[str, Tensor]:
    safe = weights if finite.all() else [torch.where(finite[..., None, None], w, 0.0) for w in weights]
    values = {}
    for name, function in measure.items():
        value = function(safe)
        kept = finite.reshape(finite.shape + (1,) * (value.ndim - finite.ndim))
        values[name] = torch.where(kept, value, torch.nan if value.is_floating_point() else -1)
    return values


def _cadence(every: int | Iterable[int], steps: int) -> Callable[[int], bool]:
    """Whether an iteration is to be measured; never a list of all of them."""
    allowed = f"a positive integer, or iterations between 0 and steps={steps}"
    due = checks.listed(every)
    if not isinstance(due, tuple):
        checks.require(checks.is_integer(every) and every >= 1, "every", every, allowed)
        return lambda step: step % every == 0 or step == steps
    good = len(due) > 0 and all(checks.is_integer(s) and 0 <= s <= steps for s in due)
    checks.require(good, "every", every, allowed)
    return frozenset(due).__contains__


def _step_sizes(step_size: float | Tensor, weights: Weights) -> Tensor:
    if not isinstance(step_size, Tensor):
        checks.number("step_size", step_size, above=0, allowed="positive and finite, a number or a tensor")
    if isinstance(step_size, Tensor) and (step_size.is_complex() or step_size.numel() == 0):
        raise ValueError(f"step_size must be real and not empty, got step_size={step_size!r}")
    eta = torch.as_tensor(step_size, dtype=weights[0].dtype, device=weights[0].device)
    good = checks.every((eta > 0) & eta.isfinite())
    checks.require(good, "step_size", step_size, f"positive and finite in {eta.dtype}")
    return eta[..., None, None]


def _fits(weights: Sequence[Tensor], moments: Moments) -> None:
    checks.weights("weights", weights)
    checks.instance("moments", moments, Moments)
    outer = (weights[-1].shape[-2], weights[0].shape[-1])
    if tuple(moments.yx.shape[-2:]) != outer:
        raise ValueError(
            f"moments must fit the network, YXᵀ of shape (..., d_L, d_0) = (..., {outer[0]}, {outer[1]}), "
            f"got moments with YXᵀ of shape {tuple(moments.yx.shape)}"
        )
    if (moments.yx.dtype, moments.yx.device) != (weights[0].dtype, weights[0].device):
        wanted, found = (f"{t.dtype} on {t.device}" for t in (weights[0], moments.yx))
        raise ValueError(f"moments must have dtype and device of the weights, {wanted}, got moments of {found}")
    leading = [m.shape[:-2] for m in (moments.xx, moments.yx) if m is not None]
    checks.broadcast("weights and moments", *(w.shape[:-2] for w in weights), *leading)


def curvature_scale(weights: Weights, moments: Moments) -> Tensor:
    """The size of the loss's Hessian along a run, roughly: a step size of 1 over it treats all starts alike.

    The sum of a bound on the Gauss–Newton part at the start, ‖XXᵀ‖ Σ_l ‖W_L…W_{l+1}‖² ‖W_{l-1}…W_1‖², and of its size
    at a balanced minimum, L ‖XXᵀ‖ ‖P*‖^{2 − 2/L}. On the way between the two the Hessian may be larger.

    Args:
        weights: the start, ``W_l: (..., d_l, d_{l-1})``.
        moments: the data.

    Returns:
        ``(...)``.

    Raises:
        ValueError: as :func:`loss`.
    """
    _fits(weights, moments)
    total = len(weights) * _norm(moments.solution()) ** (2 - 2 / len(weights))
    for layer in range(len(weights)):
        above, below = weights[layer + 1 :], weights[:layer]
        outside = (_norm(_product(above)) if above else 1.0) * (_norm(_product(below)) if below else 1.0)
        total = total + outside**2
    return total if moments.xx is None else total * _norm(moments.xx)


def _norm(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix, ord=2)


def reachable_rank(weights: Weights, rtol: float | None = None) -> Tensor:
    """Largest rank that the product can ever have under gradient descent from this start, ``(...)``, int64.

    Layer i only ever uses the subspace S_i = col(W_i) + row(W_{i+1}) of the start, whatever the data, the step sizes
    and the number of steps; so rank(W_L…W_1) ≤ min(d_0, d_L, min_i dim S_i) for ever. The proof stands in the chapter
    on full rank.

    Args:
        weights: the start, ``W_l: (..., d_l, d_{l-1})``.
        rtol: relative threshold of :func:`firststep.spectra.numerical_rank`.

    Raises:
        ValueError: as :func:`product`.
    """
    weights = checks.weights("weights", weights)
    runs = torch.broadcast_shapes(*(w.shape[:-2] for w in weights))
    bound = torch.full(runs, min(weights[0].shape[-1], weights[-1].shape[-2]), device=weights[0].device)
    for space in _hidden_spaces(weights):
        bound = torch.minimum(bound, numerical_rank(space, rtol))
    return bound


def project_onto_reachable(weights: Weights, rtol: float | None = None) -> Callable[[Weights], Weights]:
    """The projection that puts weights back onto the subspaces V_i of a start (:func:`reachable_rank`).

    Exact arithmetic never leaves them; in floating point this removes what round-off adds. Pass it to
    :func:`gradient_descent` as ``constrain``; it works in the dtype of the weights that it is given.

    Raises:
        ValueError: as :func:`product`, or the weights have a leading axis of runs.
    """
    weights = checks.weights("weights", weights)
    shapes = [tuple(w.shape) for w in weights]
    checks.require(all(w.ndim == 2 for w in weights), "weights", shapes, "one network, without an axis of runs")
    projectors = []
    for space in _hidden_spaces(weights):
        basis = torch.linalg.svd(space, full_matrices=False).U[:, : int(numerical_rank(space, rtol))]
        projectors.append(basis @ basis.mT)

    def project(current: Weights) -> Weights:
        projected = list(current)
        for layer, projector in enumerate(projectors):
            projector = projector.to(current[layer].dtype)
            projected[layer] = projector @ projected[layer]
            projected[layer + 1] = projected[layer + 1] @ projector
        return projected

    return project


def _hidden_spaces(weights: Weights) -> list[Tensor]:
    """Matrices whose columns span col(W_i) + row(W_{i+1}), for every hidden layer i."""
    runs = torch.broadcast_shapes(*(w.shape[:-2] for w in weights))
    spread = [w.expand(*runs, *w.shape[-2:]) for w in weights]
    return [torch.cat([below, above.mT], -1) for below, above in itertools.pairwise(spread)]
