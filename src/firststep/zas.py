"""Zero-asymmetric (ZAS) starts of deep linear residual networks, and the exact recursion that they obey.

ZAS puts every hidden layer at the identity and the output layer at zero. Fitting a square target Φ = A diag(s) Bᵀ
(singular value decomposition) by gradient descent from there keeps

    W_1 = … = W_{L-1} = B diag(u) Bᵀ,    W_L = A diag(v) Bᵀ

for ever, with one pair of numbers (u, v) for each singular value s. With the residual e = v u^{L-1} − s a step reads

    u ← u − η e v u^{L-2},    v ← v − η e u^{L-1},    from u = 1, v = 0.

So a run of any width and depth is d independent pairs, and a step costs O(d) instead of O(L d³).
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Generator, Tensor

from firststep import checks, inits, scale
from firststep.linear import Weights

# Starts --------------------------------------------------------------------------------------------------


def start(
    widths: Sequence[int], dtype: torch.dtype = torch.float64, *, device: torch.device | str | None = None
) -> Weights:
    """The ZAS start: hidden layers at the identity, padded by zeros where they are not square; output layer at zero.

    Args:
        widths: ``(d_0, …, d_L)``; no hidden layer narrower than the input.
        dtype: floating-point type of the weights.
        device: of the weights; by default :func:`firststep.scale.device`.

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
    device = scale.chosen(device)
    weights = [torch.zeros(r, c, dtype=dtype, device=device) for c, r in pairwise(widths)]
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
    checks.floating("dtype", dtype)

    def centre(device: torch.device) -> Weights:
        return [torch.eye(dimension, dtype=dtype, device=device)] * depth

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
    sigma = checks.between("sigma", sigma, 0)
    checks.floating("dtype", dtype)

    def centre(device: torch.device) -> Weights:
        return start((dimension,) * (depth + 1), dtype, device=device)

    return _perturbed(centre, sigma, generator)


def _perturbed(
    centre: Callable[[torch.device], Weights], sigma: float, generator: Generator | Sequence[Generator]
) -> Weights:
    def one(g: Generator) -> Weights:
        layers = centre(g.device)
        return [w + sigma * torch.randn(w.shape, generator=g, dtype=w.dtype, device=g.device) for w in layers]

    return inits._per_seed(one, generator)


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
    weights = checks.weights("weights", weights)
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
    device = scale.device_of(target_norm, depth)
    norm = checks.reals("target_norm", target_norm, device=device, allowed="finite and at least 0")
    depth = _depths(depth, device)
    checks.broadcast("target_norm and depth", norm.shape, depth.shape)
    phi = torch.maximum(2 * norm, 3 / depth.sqrt()).clamp(min=1)
    return torch.minimum(1 / (4 * depth**3 * phi**6), 1 / (144 * depth**2 * phi**4))


def sharp_step_size(spectral_norm: float | Tensor, depth: int | Tensor) -> Tensor:
    """Step size up to which ZAS never overshoots, and R(t) ≤ (1 − η)^{2t} R(0).

    It is 1/(x + (L − 1)s²), where s = ‖Φ‖₂ and x solves x = (1 + s²/x)^{L−1}: the squared hidden product u^{2(L−1)} at
    the end of gradient flow.

    Args:
        spectral_norm: s, ``(...)``.
        depth: L, broadcast.

    Returns:
        ``(...)``, float64.

    Raises:
        ValueError: a norm that is negative or not finite, or a depth below 1.

    Source: this book, *A sharp step size*.
    """
    device = scale.device_of(spectral_norm, depth)
    s = checks.reals("spectral_norm", spectral_norm, device=device, allowed="finite and at least 0")
    u, _ = solution(s, depth)
    before = _depths(depth, device) - 1
    return 1 / (u ** (2 * before) + before * s**2)


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
            ValueError: ``depth`` is not a positive integer, or ``u`` or ``v`` has no entry for each singular value.
        """
        checks.positive_integer("depth", depth)
        for name, value in (("u", u), ("v", v)):
            checks.tensor(name, value, self.singular_values.dtype)
            checks.require(value.ndim > 0, name, tuple(value.shape), "of shape (..., d)")
            checks.require(value.shape[-1] == self.right.shape[-1], name, tuple(value.shape), "of shape (..., d)")
            checks.broadcast(name, value.shape[:-1], self.right.shape[:-2])
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

    The steps are taken in numpy on the CPU; the pairs come back on the device of the singular values.

    Args:
        singular_values: s, ``(runs..., d)``.
        depth: L, broadcast over the runs.
        step_size: η > 0, broadcast over the runs.
        steps: number of iterations T.

    Returns:
        The :class:`Pairs`. Divergence is data: entries of runs that diverged become infinite or nan.

    Raises:
        ValueError: singular values that are negative or not finite, L < 1, η ≤ 0, or a negative number of steps.
    """
    device = scale.device_of(singular_values, depth, step_size)
    s, depth, eta, _ = _run_setting(singular_values, depth, step_size)
    checks.natural("steps", steps)
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
    return Pairs(*(torch.from_numpy(a).to(device) for a in (u, v, residual)))


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
    device = scale.device_of(singular_value, depth)
    s = checks.reals("singular_value", singular_value, device=device, allowed="finite and at least 0")
    depth = _depths(depth, device)
    checks.broadcast("singular_value and depth", s.shape, depth.shape)
    s, depth = torch.broadcast_tensors(s, depth)
    low, high = torch.full_like(s, -800.0), 2 * torch.log(s.clamp(min=1e-300))
    for _ in range(200):  # bisection in log w; w ≤ s², since u ≥ 1
        middle = (low + high) / 2
        above = middle / 2 + (depth - 1) / 2 * torch.log1p(middle.exp()) > torch.log(s)
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    w = torch.where(s > 0, high.exp(), 0.0)
    return torch.sqrt(1 + w), w.sqrt()


def _run_setting(
    singular_values: Tensor, depth: int | Tensor, step_size: float | Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[int, ...]]:
    """Validated float64 arrays s ``(..., d)``, L ``(...)``, η ``(...)`` on the CPU, and the shape of the runs."""
    allowed = "a non-empty (..., d) of finite numbers of at least 0"
    s = checks.reals("singular_values", singular_values, device="cpu", allowed=allowed)
    checks.require(s.ndim >= 1, "singular_values", singular_values, allowed)
    eta = checks.reals("step_size", step_size, device="cpu", allowed="positive and finite", positive=True)
    depth = _depths(depth, "cpu")
    runs = tuple(checks.broadcast("singular_values, depth and step_size", s.shape[:-1], depth.shape, eta.shape))
    return s.numpy(), depth.numpy(), eta.numpy(), runs


def _depths(depth: int | Tensor, device: torch.device | str) -> Tensor:
    value = checks.reals("depth", depth, device=device, allowed="positive integers", positive=True)
    whole = checks.every((value == value.round()) & (value <= checks.LARGEST))
    whole = whole and not (isinstance(depth, float) or (isinstance(depth, Tensor) and depth.is_floating_point()))
    checks.require(whole, "depth", depth, "positive integers")
    return value
