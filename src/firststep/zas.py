"""Zero-asymmetric (ZAS) starts of deep linear residual networks, and the exact recursion that they obey.

ZAS puts every hidden layer at the identity and the output layer at zero. Fitting a square target Φ = A diag(s) Bᵀ
(singular value decomposition) by gradient descent from there keeps

    W_1 = … = W_{L-1} = B diag(u) Bᵀ,    W_L = A diag(v) Bᵀ

for ever, with one pair of numbers (u, v) for each singular value s. With the residual e = v u^{L-1} − s a step reads

    u ← u − η e v u^{L-2},    v ← v − η e u^{L-1},    from u = 1, v = 0.

So a run of any width and depth is d independent pairs, and a step costs O(d) instead of O(L d³).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from firststep import checks, inits
from firststep.linear import Weights

# How often the counting loop looks for pairs that have settled, in steps.
_RETIRE_EVERY = 128


# Starts --------------------------------------------------------------------------------------------------


def start(widths: Sequence[int], dtype: torch.dtype = torch.float64) -> Weights:
    """The ZAS start: hidden layers at the identity, padded by zeros where they are not square; output layer at zero.

    Args:
        widths: ``(d_0, …, d_L)``; no hidden layer narrower than the input.
        dtype: floating-point type of the weights.

    Returns:
        ``[W_1, …, W_L]``, ``W_l: (d_l, d_{l-1})``.

    Raises:
        ValueError: fewer than two widths, a hidden width below ``d_0``, or no floating-point dtype.

    Source: Wu et al. (2019), Eq. (3.1), and Remark (1) after Theorem 4.1.
    """
    widths = checks.widths("widths", widths)
    checks.floating("dtype", dtype)
    good = all(d >= widths[0] for d in widths[1:-1])
    checks.require(good, "widths", widths, f"such that no hidden layer is narrower than the input, {widths[0]}")
    weights = [torch.zeros(r, c, dtype=dtype) for c, r in pairwise(widths)]
    for weight in weights[:-1]:
        weight.diagonal()[: widths[0]] = 1  # the surplus units neither read nor write
    return weights


def near_identity(
    dimension: int,
    depth: int,
    *,
    generator: Generator | Sequence[Generator],
    dtype: torch.dtype = torch.float64,
) -> Weights:
    """Every layer at W_l = I + U_l with independent entries U_l ~ N(0, 1/(dL)).

    Args:
        dimension: d.
        depth: L.
        generator: one generator, or one a seed.
        dtype: floating-point type of the weights.

    Returns:
        ``[W_1, …, W_L]``, each ``(d, d)``, or ``(seeds, d, d)`` for a list of generators.

    Raises:
        ValueError: ``dimension`` or ``depth`` is not a positive integer, or no floating-point dtype.

    Source: Wu et al. (2019), Eq. (5.1).
    """
    checks.positive_integer("dimension", dimension)
    checks.positive_integer("depth", depth)
    centre = [torch.eye(dimension, dtype=checks.floating("dtype", dtype))] * depth
    return _perturbed(centre, 1 / math.sqrt(dimension * depth), generator)


def near_zas(
    dimension: int,
    depth: int,
    sigma: float,
    *,
    generator: Generator | Sequence[Generator],
    dtype: torch.dtype = torch.float64,
) -> Weights:
    """The square ZAS start plus independent Gaussian entries of standard deviation ``sigma`` in every layer.

    Args:
        dimension: d.
        depth: L.
        sigma: at least 0.
        generator: one generator, or one a seed.
        dtype: floating-point type of the weights.

    Returns:
        As :func:`near_identity`.

    Raises:
        ValueError: as :func:`near_identity`; or ``sigma`` is negative or not finite.

    Source: Wu et al. (2019), Remark after Theorem 4.3.
    """
    checks.positive_integer("dimension", dimension)
    checks.positive_integer("depth", depth)
    sigma = checks.number("sigma", sigma)
    checks.require(sigma >= 0, "sigma", sigma, "a finite number of at least 0")
    return _perturbed(start((dimension,) * (depth + 1), dtype), sigma, generator)


def _perturbed(centre: Weights, sigma: float, generator: Generator | Sequence[Generator]) -> Weights:
    def one(g: Generator) -> Weights:
        return [w + sigma * torch.randn(w.shape, generator=g, dtype=w.dtype) for w in centre]

    return inits.per_seed(one, generator)


# What the theorems are about ------------------------------------------------------------------------------


def invariants(weights: Weights) -> list[Tensor]:
    """D_l = W_{l+1}ᵀ W_{l+1} − W_l W_lᵀ between every two neighbours, which gradient flow conserves.

    Args:
        weights: ``[W_1, …, W_L]``, ``W_l: (..., d_l, d_{l-1})``, any widths.

    Returns:
        ``[D_1, …, D_{L-1}]``, ``D_l: (..., d_l, d_l)``; empty for one layer. At ZAS all are zero but D_{L-1} = −I.

    Raises:
        ValueError: empty, not finite, or shapes that do not chain.

    Source: Wu et al. (2019), Eq. (4.3).
    """
    weights = checks.chain("weights", weights)
    return [above.mT @ above - below @ below.mT for below, above in pairwise(weights)]


def theorem_step_size(target_norm: float | Tensor, depth: int | Tensor) -> Tensor:
    """Largest step size for which Theorem 4.3 promises R(t) ≤ (1 − η/2)^t R(0).

    With φ = max(2‖Φ‖_F, 3/√L, 1) it is min(1/(4 L³ φ⁶), 1/(144 L² φ⁴)).

    Args:
        target_norm: ‖Φ‖_F, ``(...)``.
        depth: L, ``(...)``.

    Returns:
        ``(...)``, float64.

    Raises:
        ValueError: a norm that is negative or not finite, or a depth below 1.

    Source: Wu et al. (2019), Theorem 4.3.
    """
    norm = torch.as_tensor(target_norm, dtype=torch.float64)
    good = bool((norm >= 0).all() and norm.isfinite().all())
    checks.require(good, "target_norm", target_norm, "finite and at least 0")
    depth = _depths(depth)
    phi = torch.maximum(2 * norm, 3 / depth.sqrt()).clamp(min=1)
    return torch.minimum(1 / (4 * depth**3 * phi**6), 1 / (144 * depth**2 * phi**4))


# The exact recursion --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    """A square target in the coordinates in which ZAS decouples: Φ = left · diag(s) · rightᵀ.

    Attributes:
        left: ``(..., d, d)``, orthogonal.
        singular_values: s, ``(..., d)``, in decreasing order.
        right: ``(..., d, d)``, orthogonal.
    """

    left: Tensor
    singular_values: Tensor
    right: Tensor

    @classmethod
    def of(cls, phi: Tensor) -> "Target":
        """Decompose Φ: ``(..., d, d)``.

        Raises:
            ValueError: Φ is not a batch of finite square matrices.
        """
        checks.matrices("phi", phi)
        checks.require(phi.shape[-1] == phi.shape[-2], "phi", tuple(phi.shape), "square, (..., d, d)")
        left, s, right_t = torch.linalg.svd(phi)
        return cls(left, s, right_t.mT)

    def weights(self, u: Tensor, v: Tensor, depth: int) -> Weights:
        """The network that pairs ``u, v: (..., d)`` stand for: L − 1 equal hidden layers and the output layer.

        Raises:
            ValueError: ``depth`` is not a positive integer.
        """
        checks.positive_integer("depth", depth)
        hidden = (self.right * u.unsqueeze(-2)) @ self.right.mT
        return [hidden] * (depth - 1) + [(self.left * v.unsqueeze(-2)) @ self.right.mT]


@dataclass(frozen=True)
class Pairs:
    """A run of the recursion.

    Attributes:
        u: hidden values, ``(T + 1, runs..., d)``; index 0 is the start.
        v: output values, in the same shape.
        residual: e = v u^{L-1} − s, in the same shape.
    """

    u: Tensor
    v: Tensor
    residual: Tensor

    @property
    def loss(self) -> Tensor:
        """R = ½ Σ e², ``(T + 1, runs...)``."""
        return 0.5 * self.residual.square().sum(-1)


def recursion(singular_values: Tensor, *, depth: int | Tensor, step_size: float | Tensor, steps: int) -> Pairs:
    """Run ZAS gradient descent in its exact coordinates and keep every step.

    Args:
        singular_values: s, ``(runs..., d)``.
        depth: L, broadcast over the runs.
        step_size: η > 0, broadcast over the runs.
        steps: number of iterations T.

    Returns:
        The :class:`Pairs`. Entries of runs that diverged become infinite or nan.

    Raises:
        ValueError: singular values that are negative or not finite, L < 1, η ≤ 0, or a negative number of steps.
    """
    s, depth, eta, _ = _setting(singular_values, depth, step_size)
    checks.require(checks.is_integer(steps) and steps >= 0, "steps", steps, "a non-negative integer")
    shape = np.broadcast_shapes(s.shape, (*depth.shape, 1), (*eta.shape, 1))
    u, v, residual = np.empty((3, steps + 1, *shape))
    u[0], v[0] = 1.0, 0.0
    power, hidden = depth[..., None] - 2, (depth > 1)[..., None]
    with np.errstate(all="ignore"):
        for t in range(steps + 1):
            below = u[t] ** power
            residual[t] = v[t] * below * u[t] - s
            if t < steps:
                pull = eta[..., None] * residual[t] * below
                u[t + 1] = u[t] - hidden * pull * v[t]
                v[t + 1] = v[t] - pull * u[t]
    return Pairs(torch.from_numpy(u), torch.from_numpy(v), torch.from_numpy(residual))


@dataclass(frozen=True)
class Count:
    """How many steps runs took.

    Attributes:
        steps: first iteration with R ≤ tolerance, ``(runs...)``, int64; −1 where there is none.
        diverged_at: first iteration at which R was not finite, ``(runs...)``, int64; −1 where it stayed finite.
    """

    steps: Tensor
    diverged_at: Tensor

    @property
    def converged(self) -> Tensor:
        """Whether each run reached the tolerance, ``(runs...)``."""
        return self.steps >= 0

    @property
    def diverged(self) -> Tensor:
        """Whether each run diverged, ``(runs...)``."""
        return self.diverged_at >= 0


def iterations(
    singular_values: Tensor,
    *,
    depth: int | Tensor,
    step_size: float | Tensor,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
    multiplicity: Tensor | None = None,
    race: bool = False,
) -> Count:
    """Count the iterations of ZAS gradient descent to R ≤ tolerance, for every run of a batch at once.

    A pair stays in the loop until it sits within 1e-14 of a fixed point that attracts it, and a run until it converges
    or diverges; so the cost follows the pairs that still move.

    Args:
        singular_values: s, ``(runs..., d)``.
        depth: L, broadcast over the runs.
        step_size: η > 0, broadcast over the runs.
        tolerance: of the loss R = ½ Σ e².
        max_steps: iterations after which a run is given up.
        multiplicity: how often each singular value counts, broadcast to ``singular_values``; by default once. The
            target −I of size 100 is one singular value of multiplicity 100.
        race: the last axis of the runs is a race, such as one over step sizes: when a run converges, the others on its
            axis that have not are stopped. The smallest count on the axis is then right, the others are −1.

    Returns:
        A :class:`Count`.

    Raises:
        ValueError: as :func:`recursion`; or a tolerance that is not positive, a multiplicity below 0, or no step.
    """
    s, depth, eta, runs = _setting(singular_values, depth, step_size)
    checks.number("tolerance", tolerance, above=0, allowed="a positive number")
    checks.positive_integer("max_steps", max_steps)
    times = np.ones(1) if multiplicity is None else np.asarray(multiplicity, dtype=float)
    good = bool(np.isfinite(times).all() and (times >= 0).all())
    checks.require(good, "multiplicity", multiplicity, "finite and at least 0")
    checks.require(not race or len(runs) > 0, "race", race, "False for a single run")
    d = s.shape[-1]
    flat = [np.broadcast_to(a, (*runs, d)).reshape(-1, d) for a in (s, times / 2, depth[..., None], eta[..., None])]
    lane = runs[-1] if race else 1
    steps, diverged = _count(*flat, tolerance, max_steps, lane)
    return Count(torch.from_numpy(steps).reshape(runs), torch.from_numpy(diverged).reshape(runs))


def _count(
    s: np.ndarray,
    half: np.ndarray,
    depth: np.ndarray,
    eta: np.ndarray,
    tolerance: float,
    max_steps: int,
    lane: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop behind :func:`iterations`, on ``(runs, d)`` arrays; lanes of ``lane`` runs race."""
    total = len(s)
    converged, diverged = np.full((2, total), -1, dtype=np.int64)
    run = np.repeat(np.arange(total), s.shape[1])
    hidden = (depth > 1).astype(float)
    pairs = [a.ravel() for a in (np.ones_like(s), np.zeros_like(s), s, half, depth - 2, eta, hidden)]
    open_runs = np.ones(total, dtype=bool)
    watched, place = np.flatnonzero(open_runs), run.copy()

    def keep(chosen: np.ndarray) -> None:
        """Drop the other pairs, and number the runs that are still open from 0."""
        nonlocal run, place, watched
        chosen = chosen & open_runs[run]
        pairs[:] = [a[chosen] for a in pairs]
        run, watched = run[chosen], np.flatnonzero(open_runs)
        place = np.searchsorted(watched, run)

    with np.errstate(all="ignore"):
        for t in range(max_steps + 1):
            u, v, s, half, power, eta, hidden = pairs
            below = u**power
            e = v * below * u - s
            loss = np.bincount(place, weights=half * e * e, minlength=len(watched))
            if not ((loss > tolerance) & (loss < np.inf)).all():
                good, bad = watched[loss <= tolerance], watched[~(loss < np.inf)]
                converged[good], diverged[bad] = t, t
                open_runs[good] = open_runs[bad] = False
                if lane > 1:
                    open_runs.reshape(-1, lane)[good // lane] = False
                if not open_runs.any():
                    break
                moving = np.ones(len(run), dtype=bool)
            elif t % _RETIRE_EVERY == _RETIRE_EVERY - 1:
                # Near a solution a step multiplies e by 1 − η·(curvature); the margin keeps round-off from deciding.
                attracts = np.abs(1 - eta * below**2 * (u**2 + hidden * (power + 1) * v**2)) < 0.99999
                moving = ~((np.abs(e) <= 1e-14 * np.maximum(1.0, s)) & attracts)
            else:
                moving = None
            pull = eta * e * below
            pairs[0], pairs[1] = u - hidden * pull * v, v - pull * u
            if moving is not None and not (moving & open_runs[run]).all():
                keep(moving)
    return converged, diverged


def _setting(
    singular_values: Tensor, depth: int | Tensor, step_size: float | Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Validated float64 arrays s ``(..., d)``, L ``(...)``, η ``(...)``, and the shape of the runs."""
    s = torch.as_tensor(singular_values, dtype=torch.float64)
    good = s.ndim >= 1 and s.numel() > 0 and bool(s.isfinite().all() and (s >= 0).all())
    checks.require(good, "singular_values", singular_values, "a non-empty (..., d) of finite numbers of at least 0")
    eta = torch.as_tensor(step_size, dtype=torch.float64)
    good = bool(eta.isfinite().all() and (eta > 0).all())
    checks.require(good, "step_size", step_size, "positive and finite")
    depth = _depths(depth)
    runs = tuple(torch.broadcast_shapes(s.shape[:-1], depth.shape, eta.shape))
    return s.numpy(), depth.numpy(), eta.numpy(), runs


def _depths(depth: int | Tensor) -> Tensor:
    value = torch.as_tensor(depth)
    whole = not value.is_floating_point() and value.dtype != torch.bool
    good = whole and value.numel() > 0 and bool((value >= 1).all())
    checks.require(good, "depth", depth, "positive integers")
    return value.to(torch.float64)


# Scalar networks from any start ---------------------------------------------------------------------------


def scalar_iterations(
    weights: Tensor,
    *,
    target: float = -1.0,
    step_size: float | Tensor,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
) -> Count:
    """Count gradient descent steps on ½(w_L…w_1 − target)² from any start, for every run of a batch at once.

    Args:
        weights: the start, ``(runs..., L)``.
        target: any finite number.
        step_size: η > 0, broadcast over the runs.
        tolerance: of the loss.
        max_steps: iterations after which a run is given up.

    Returns:
        A :class:`Count`.

    Raises:
        ValueError: weights or target that are not finite, no layer, η ≤ 0, a tolerance that is not positive, or
            no step.
    """
    start = torch.as_tensor(weights, dtype=torch.float64)
    good = start.ndim >= 1 and start.numel() > 0 and bool(start.isfinite().all())
    checks.require(good, "weights", weights, "a non-empty (..., L) of finite numbers")
    target = checks.number("target", target)
    _, _, eta, _ = _setting(torch.ones(1), 1, step_size)
    checks.number("tolerance", tolerance, above=0, allowed="a positive number")
    checks.positive_integer("max_steps", max_steps)
    runs = np.broadcast_shapes(tuple(start.shape[:-1]), eta.shape)
    layers = start.shape[-1]
    # Layers first: each is one contiguous row, and the products below run over rows.
    w = np.ascontiguousarray(np.broadcast_to(start.numpy(), (*runs, layers)).reshape(-1, layers).T)
    eta = np.broadcast_to(eta, runs).ravel()
    converged, diverged = np.full((2, w.shape[1]), -1, dtype=np.int64)
    run = np.arange(w.shape[1])
    with np.errstate(all="ignore"):
        for t in range(max_steps + 1):
            others = _products_of_others(w)
            e = others[0] * w[0] - target
            loss = 0.5 * e * e
            done, lost = loss <= tolerance, ~(loss < np.inf)
            if done.any() or lost.any():
                converged[run[done]], diverged[run[lost]] = t, t
                going = ~(done | lost)
                w, others, e, eta, run = w[:, going], others[:, going], e[going], eta[going], run[going]
                if not len(run):
                    break
            w = w - eta * e * others
    return Count(torch.from_numpy(converged).reshape(runs), torch.from_numpy(diverged).reshape(runs))


def _products_of_others(w: np.ndarray) -> np.ndarray:
    """For every layer the product of all the others, without a division; ``(L, runs)``."""
    above, below = np.ones_like(w), np.ones_like(w)
    for layer in range(1, len(w)):
        below[layer] = below[layer - 1] * w[layer - 1]
        above[-1 - layer] = above[-layer] * w[-layer]
    return above * below


def step_sizes(low: float, high: float, ratio: float) -> Tensor:
    """A logarithmic grid from ``high`` downwards, by the factor ``ratio`` > 1, to at least ``low``; increasing.

    Raises:
        ValueError: not 0 < low < high, or a ratio of at most 1.
    """
    checks.number("low", low, above=0, allowed="a positive number")
    checks.number("high", high, above=low, allowed=f"a finite number above low={low}")
    checks.number("ratio", ratio, above=1, allowed="a finite number above 1")
    count = math.floor(math.log(high / low) / math.log(ratio) + 1e-9)
    return high * ratio ** -torch.arange(count, -1, -1, dtype=torch.float64)


def solution(singular_value: float | Iterable[float] | Tensor, depth: int | Tensor) -> tuple[Tensor, Tensor]:
    """Where gradient *flow* from ZAS ends: the pair with v u^{L-1} = s on the conserved hyperbola u² − v² = 1.

    Solved by bisection for log w, w = v², in log s = ½ log w + ½(L − 1) log(1 + w), which increases in w.

    Args:
        singular_value: s ≥ 0, ``(...)``.
        depth: L, broadcast.

    Returns:
        ``u, v``, both ``(...)``.

    Raises:
        ValueError: a singular value that is negative or not finite, or L < 1.
    """
    s = torch.as_tensor(singular_value, dtype=torch.float64)
    good = bool(s.isfinite().all() and (s >= 0).all())
    checks.require(good, "singular_value", singular_value, "finite and at least 0")
    s, depth = torch.broadcast_tensors(s, _depths(depth))
    low, high = torch.full_like(s, -800.0), 2 * torch.log(s.clamp(min=1e-300))
    for _ in range(200):  # bisection in log w; w ≤ s², since u ≥ 1
        middle = (low + high) / 2
        above = middle / 2 + (depth - 1) / 2 * torch.log1p(middle.exp()) > torch.log(s)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    w = torch.where(s > 0, high.exp(), 0.0)
    return torch.sqrt(1 + w), w.sqrt()
