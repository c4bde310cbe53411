"""The Gauss–Newton matrix of a wide random network on many samples, before a single weight is drawn.

For n samples its nonzero spectrum is that of the tangent kernel, with blocks of the outputs' size for every pair of
samples (:func:`firststep.curvature.tangent_kernel`). In the limit of large width each block is a number times the
identity, and the numbers follow from layer to layer. Two things survive at finite width and are put back in: the
read-out has few rows beside the width, and products of random matrices stretch some directions more than others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from firststep import checks, inits
from firststep.feedforward import LOSSES

ACTIVATIONS = ("linear", "relu", "tanh")
_SCHEMES = {*inits._SIGMA, "orthogonal"}
_TERMS, _NODES = 48, 160  # of a Hermite series, of Gauss–Hermite quadrature
_LARGEST = 1e100


@dataclass(frozen=True, eq=False)
class Limit:
    """The tangent kernel in the limit of large width, and what it is made of.

    Attributes:
        theta: (1/n) Σ_l ⟨z_aˡ⁻¹, z_bˡ⁻¹⟩ β_l(a, b), ``(n, n)``: the block of samples a, b is this times the identity.
        sizes: mean over samples of ‖zˡ⁻¹‖² for l = 1, …, L, and of ‖zᴸ‖², L + 1 numbers.
        slopes: mean square slope of each hidden layer, L − 1 numbers.
    """

    theta: Tensor
    sizes: list[float]
    slopes: list[float]


def limit(x: Tensor, widths: Sequence[int], scheme: str, activation: str) -> Limit:
    """Tangent kernel of the weights of a wide random network without biases on given inputs.

    With s_l the standard deviation of an entry of W_l, Sˡ the inner products of the samples in layer l, and
    expectations over Gaussian pairs (u_a, u_b) of covariance s_l² Sˡ⁻¹,

        Sˡ = d_l E f(u_a) f(u_b),   Dˡ = E f′(u_a) f′(u_b),   β_L = 1,   β_l = d_l s_{l+1}² Dˡ β_{l+1}.

    Args:
        x: inputs, float64, ``(n, d_0)``, one row a sample, none of them zero.
        widths: ``(d_0, …, d_L)``; the last layer is linear.
        scheme: a key of :data:`firststep.inits.INITIALIZERS` whose entries are independent, or ``orthogonal``.
        activation: of the hidden layers: ``linear``, ``relu`` or ``tanh``.

    Raises:
        ValueError: an unknown word, or inputs or widths that are not as described.

    Source: Jacot et al. (2018), Theorem 1; for relu the integrals of Cho and Saul (2009).
    """
    widths = _checked(widths, scheme, activation)
    checks.matrices("x", x, torch.float64)
    good = x.ndim == 2 and x.shape[1] == widths[0] and checks.every(x.square().sum(1) > 0)
    checks.require(good, "x", tuple(x.shape), f"(n, {widths[0]}), without a sample that is zero")
    signal = x @ x.mT
    signals, slopes = [signal], []
    for rows, columns in zip(widths[1:-1], widths[:-2], strict=True):
        even, odd = _pair_means(_variance(scheme, rows, columns) * signal, activation)
        signal = rows * even
        signals.append(signal)
        slopes.append(odd)
    theta, back = signals[-1].clone(), torch.ones_like(signal)
    for layer in range(len(widths) - 2, 0, -1):
        back = back * widths[layer] * _variance(scheme, widths[layer + 1], widths[layer]) * slopes[layer - 1]
        theta = theta + signals[layer - 1] * back
    last = widths[-1] * _variance(scheme, widths[-1], widths[-2]) * signals[-1]
    sizes = [float(s.diagonal().mean()) for s in [*signals, last]]
    return Limit(theta / len(x), sizes, [float(d.diagonal().mean()) for d in slopes])


def largest_eigenvalue(
    x: Tensor, widths: Sequence[int], scheme: str, activation: str, *, loss: str = "squared"
) -> float:
    """Predicted largest eigenvalue of the whole Gauss–Newton matrix: mean loss over samples, all weights, no biases.

    The largest eigenvalue of :func:`limit`, times what the edge of one sample's kernel exceeds its mean by
    (:func:`spread`), times E‖H_z‖ over Gaussian outputs of the predicted size (one for squared loss).

    Args:
        x, widths, scheme, activation: as :func:`limit`.
        loss: a key of :data:`firststep.feedforward.LOSSES`.

    Raises:
        ValueError: as :func:`limit`, or an unknown loss.
    """
    checks.one_of("loss", loss, LOSSES)
    found = limit(x, widths, scheme, activation)
    top = float(torch.linalg.eigvalsh(found.theta)[-1]) * spread(found, widths, scheme, activation)
    return top if loss == "squared" else top * _mean_loss_curvature(found.sizes[-1] / widths[-1], widths[-1])


def spread(found: Limit, widths: Sequence[int], scheme: str, activation: str) -> float:
    """Largest eigenvalue of one sample's kernel over its mean, for widths in fixed proportion, in the limit.

    F_1 = ‖z⁰‖² I and F_l = ‖zˡ⁻¹‖² I + W_l A F_{l−1} A W_lᵀ, with A a diagonal of zeros and equal numbers in general
    position. From the Cauchy transform g of the law of F_{l−1} at z follow a point and a value of the next one, as in
    :func:`firststep.predicted_norms.gauss_newton_norm`, and the edge is the least point that is reached.

    Args:
        found: what :func:`limit` returned.
        widths, scheme, activation: as there. Slopes of tanh count as equal.

    Raises:
        ValueError: as :func:`limit`, or a limit of another number of layers.
    """
    checks.instance("found", found, Limit, "what limit() returns")
    widths = _checked(widths, scheme, activation)
    checks.require(len(found.slopes) == len(widths) - 2, "widths", widths, f"{len(found.slopes) + 2} of them, as found")
    kept = 0.5 if activation == "relu" else 1.0
    layers = []
    mean = found.sizes[0]
    for n in range(1, len(widths) - 1):
        strength = found.slopes[n - 1] / kept * _variance(scheme, widths[n + 1], widths[n])
        mean = found.sizes[n] + widths[n] * kept * strength * mean
        layers.append((widths[n + 1], widths[n], strength, found.sizes[n]))

    def reached(log_gap: float) -> float:
        z, g = found.sizes[0] * (1 + math.exp(log_gap)), 1 / (found.sizes[0] * math.exp(log_gap))
        for rows, columns, strength, size in layers:
            z, g = _next_point(z, g, rows, columns, kept, strength, scheme == "orthogonal")
            z += size
            if not 0 < z < _LARGEST or not g > 0:
                return math.inf
        return z

    lowest = min(map(reached, np.linspace(-12.0, 40.0, 5_201)))
    return lowest / mean if math.isfinite(lowest) else 1.0


def _next_point(z: float, g: float, rows: int, columns: int, kept: float, strength: float, orthogonal: bool):
    """From G_F(z) = g to a point and value of the Cauchy transform of W A F A Wᵀ; nan where there is none."""
    w = z - (1 - kept) / g  # the law of F on the kept coordinates takes the value g / kept here
    if not 0 < w < _LARGEST:
        return math.nan, math.nan
    if not orthogonal:
        return strength * (columns * w * w * g + (rows - kept * columns) * w), 1 / (rows * strength * w)
    gain, share = strength * max(rows, columns), min(rows / columns, 1.0)
    value = g + (1 - kept) / w  # of A F A on all coordinates
    w -= (1 - share) / value  # on the rows of W, if they are fewer than its columns
    return gain * w, value / (share * gain)


def _checked(widths: Sequence[int], scheme: str, activation: str) -> tuple[int, ...]:
    widths = checks.widths("widths", widths)
    checks.require(len(widths) > 1, "widths", widths, "at least two")
    checks.one_of("scheme", scheme, _SCHEMES)
    checks.one_of("activation", activation, ACTIVATIONS)
    return widths


def _variance(scheme: str, rows: int, columns: int) -> float:
    """Variance of an entry; orthogonal weights have rows or columns of length one."""
    return 1 / max(rows, columns) if scheme == "orthogonal" else inits.sigma(scheme, rows, columns) ** 2


def _pair_means(covariance: Tensor, activation: str) -> tuple[Tensor, Tensor]:
    """E f(u_a) f(u_b) and E f′(u_a) f′(u_b) over Gaussian pairs with the given covariance, ``(n, n)``."""
    if activation == "linear":
        return covariance, torch.ones_like(covariance)
    sizes = covariance.diagonal().clamp_min(torch.finfo(covariance.dtype).tiny).sqrt()
    cosine = (covariance / sizes / sizes[:, None]).clamp(-1, 1)
    cosine.fill_diagonal_(1.0)
    if activation == "relu":
        angle = cosine.arccos()
        product = (angle.sin() + (math.pi - angle) * cosine) / (2 * math.pi)
        return product * sizes * sizes[:, None], (math.pi - angle) / (2 * math.pi)
    nodes, polynomials = (torch.as_tensor(a, device=covariance.device) for a in _hermite())
    u = torch.tanh(sizes[:, None] * nodes)
    return tuple(_series(values, polynomials, cosine) for values in (u, 1 - u.square()))


def _series(values: Tensor, polynomials: Tensor, cosine: Tensor) -> Tensor:
    """Σ_k c_k(a) c_k(b) ρᵏ, with c the Hermite coefficients of functions given at the nodes, ``(n, nodes)``."""
    coefficients = values @ polynomials.mT
    total = torch.zeros_like(cosine)
    for c in coefficients.mT.flip(0):  # Horner's scheme, from the highest term down
        total = total * cosine + c * c[:, None]
    weights = polynomials[0]  # the polynomial of order zero is one, so these are the weights
    total.diagonal().copy_(values.square() @ weights)
    return total


@cache
def _hermite() -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and weights times normalized Hermite polynomials ``(terms, nodes)``, of the Gaussian measure."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    rows = [np.ones_like(nodes), nodes]
    for k in range(1, _TERMS - 1):
        rows.append((nodes * rows[k] - math.sqrt(k) * rows[k - 1]) / math.sqrt(k + 1))
    return nodes, np.array(rows) * (weights / weights.sum())


def _mean_loss_curvature(variance: float, classes: int, draws: int = 4_096) -> float:
    """E‖diag(p) − ppᵀ‖ with p the softmax of independent Gaussians of that variance; always the same draws."""
    z = math.sqrt(variance) * torch.randn(
        draws, classes, generator=inits.generator(0, "cpu"), dtype=torch.float64, device="cpu"
    )
    p = torch.softmax(z, -1)
    return float(torch.linalg.matrix_norm(torch.diag_embed(p) - p[:, :, None] * p[:, None, :], 2).mean())
