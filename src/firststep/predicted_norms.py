"""Norms of Hessians and Jacobians of random square networks in the limit of large width, in closed form.

Unit input, loss ½‖z − t‖², a linear last layer; what one draws is compared with :mod:`firststep.curvature`. A linear or
relu network multiplies signals by W A, with A the diagonal of slopes, and free probability gives the norm of products.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar

from firststep import checks, inits, report

KEPT = {"linear": 1.0, "relu": 0.5}  # share of the neurons whose slope is one


def signal_factor(scheme: str, width: int, activation: str) -> float:
    """Factor by which a square layer multiplies the mean square of a signal.

    Args:
        scheme: a key of :data:`firststep.inits.INITIALIZERS` whose entries are independent, or ``orthogonal``.
        width: d, of input and output.
        activation: ``linear`` or ``relu``.

    Returns:
        d σ², or 1 for orthogonal weights; half of it for relu.

    Raises:
        ValueError: an unknown word, or a width that is not a positive integer.

    Source: He et al. (2015), Eq. (9), with their n the width.
    """
    checks.one_of("scheme", scheme, _SCHEMES)
    checks.positive_integer("width", width)
    checks.one_of("activation", activation, KEPT)
    gain = 1.0 if scheme == "orthogonal" else width * inits.sigma(scheme, width, width) ** 2
    return KEPT[activation] * gain


_SCHEMES = {*inits._SIGMA, "orthogonal"}


def edge(pairs: int, kept: float, *, orthogonal: bool = False) -> float:
    """Squared norm of W A W A ⋯ W A with ``pairs`` square factors each, in the limit of large width.

    The W are independent and Gaussian with variance one over the width, or uniform orthogonal; the A are diagonal with
    a share ``kept`` of ones and zeros else, in general position to the W. Free multiplication gives the inverse
    function z(ψ) of the moment series as a product, and the norm is where it stops being invertible:

        Gaussian    z = (1 + ψ)(p + ψ)ᵏ / ψ                 k ψ² + (k − 1) ψ − p = 0
        orthogonal  z = (1 + ψ)/ψ · ((p + ψ)/(1 + ψ))ᵏ      ψ = p / (k (1 − p) − 1)

    Args:
        pairs: k, at least 0.
        kept: p, in (0, 1].
        orthogonal: which W.

    Returns:
        For p = 1: (k + 1)ᵏ⁺¹ / kᵏ (Gaussian) and 1 (orthogonal).

    Raises:
        ValueError: a number outside its range.

    Source: the S-transform of Voiculescu (1987), applied to Wishart matrices and projections.
    """
    k = checks.natural("pairs", pairs)
    p = checks.between("kept", kept, 0, 1)
    checks.require(p > 0, "kept", kept, "in (0, 1]")
    checks.flag("orthogonal", orthogonal)
    if k == 0 or (orthogonal and k * (1 - p) <= 1):
        return 1.0  # so few projections in general position still share a direction, almost
    if orthogonal:
        psi = p / (k * (1 - p) - 1)
        return (1 + psi) / psi * ((p + psi) / (1 + psi)) ** k
    psi = (math.sqrt((k - 1) ** 2 + 4 * k * p) - (k - 1)) / (2 * k)
    return (1 + psi) * (p + psi) ** k / psi


def predicted_norm(scheme: str, depth: int, layer: int, width: int, activation: str) -> float:
    """Layer Hessian norm E‖zˡ⁻¹‖² · ‖B_l A_l‖² for unit input and loss ½‖z − t‖², in the limit of large width.

    Args:
        scheme: as :func:`signal_factor`.
        depth: L; all layers are square, the last one linear.
        layer: l, from 1 to L.
        width: enters through the scheme's σ only.
        activation: ``linear`` or ``relu``.

    Raises:
        ValueError: as :func:`signal_factor`, or no such layer.

    Source: derived for this book from :func:`edge`, and Skorski (2020), Theorem 1, for the norm.
    """
    factor = signal_factor(scheme, width, activation)
    checks.positive_integer("depth", depth)
    good = checks.is_integer(layer) and 1 <= layer <= depth
    checks.require(good, "layer", layer, f"an integer between 1 and {depth}")
    kept = KEPT[activation]
    # ``factor`` counts the projections, ``edge`` counts them again: take them out once.
    gain = (factor / kept) ** (depth - layer)
    return factor ** (layer - 1) * gain * edge(depth - layer, kept, orthogonal=scheme == "orthogonal")


def jacobian_edge(slopes: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Squared norm of A W in the limit of large width: W square and Gaussian with variance one over the width, A fixed.

    A = diag(a_1, a_2, …) has the slopes of a layer, in general position to W. With H the law of a², the edge of the
    spectrum of A W Wᵀ Aᵀ is the least value of α (1 + E[a² / (α − a²)]) over α above all a².

    Args:
        slopes: the values of a; a quadrature's nodes, or a layer's own slopes.
        weights: how often each of them occurs, up to a factor; all alike by default.

    Returns:
        (1 + √p)² for a share p of ones among zeros: 4 for a linear layer.

    Raises:
        ValueError: no slope is different from zero, something is not finite, or the weights do not fit the slopes.

    Source: the end of the spectrum by the Marčenko–Pastur equation with a law of a² in the middle, for ratio one.
    """
    squares = np.square(report._numbers("slopes", slopes, 1))
    share = np.ones_like(squares) if weights is None else report._numbers("weights", weights, 1)
    good = share.shape == squares.shape and bool((share >= 0).all() and share.sum() > 0)
    checks.require(good, "weights", share.tolist(), f"{squares.size} numbers of at least 0, one for each of the slopes")
    checks.require(bool(squares[share > 0].max() > 0), "slopes", squares.tolist(), "numbers, not all of them zero")
    squares, share = squares[share > 0], share[share > 0] / share.sum()
    top = float(squares.max())

    def value(log_gap: float) -> float:
        alpha = top * (1 + math.exp(log_gap))
        return alpha * (1 + float(share @ (squares / (alpha - squares))))

    return value(minimize_scalar(value, bounds=(-30.0, 10.0), method="bounded", options={"xatol": 1e-10}).x)


def gauss_newton_norm(scheme: str, depth: int, width: int, activation: str) -> float:
    """Largest eigenvalue of the Gauss–Newton matrix in all weights of a wide network; unit input, loss ½‖z − t‖².

    It is that of the tangent kernel Θ = Σ_l ‖zˡ⁻¹‖² B_l A_l² B_lᵀ. With f the signal's factor and p the share of slopes
    that are one, Θ = f^{L−1} Θ_{L−1} with Θ_0 = I and Θ_k = I + W A Θ_{k−1} A Wᵀ / p. In the limit of large width
    the Cauchy transform G_k of the law of Θ_k follows from that of Θ_{k−1}: from z and G = G_{k−1}(z) put
    w = z − (1 − p)/G; then

        Gaussian    G_k(1 + (w² G + (1 − p) w)/p) = p/w
        orthogonal  G_k(1 + w/p) = p ((1 − p)/w + G)

    and the edge is the least value of the argument that a start z > 1, G = 1/(z − 1), can reach.

    Args:
        scheme: as :func:`signal_factor`.
        depth: L; all layers are square, the last one linear.
        width: enters through the scheme's σ only.
        activation: ``linear`` or ``relu``.

    Returns:
        L for orthogonal weights in linear networks; about 1.14 L² for Glorot's.

    Raises:
        ValueError: as :func:`signal_factor`, or a depth that is not a positive integer.

    Source: derived for this book, by free compression and the Marčenko–Pastur equation.
    """
    factor, kept = signal_factor(scheme, width, activation), KEPT[activation]
    checks.positive_integer("depth", depth)
    orthogonal = scheme == "orthogonal"
    if depth == 1 or (orthogonal and kept == 1):
        return factor ** (depth - 1) * depth

    def reached(log_gap: float) -> float:
        gap = math.exp(log_gap)
        z, g = 1 + gap, 1 / gap
        for _ in range(depth - 1):
            w = z - (1 - kept) / g
            if w <= 0 or w > 1e100:
                return math.inf
            if orthogonal:
                z, g = 1 + w / kept, kept * ((1 - kept) / w + g)
            else:
                z, g = 1 + (w * w * g + (1 - kept) * w) / kept, kept / w
        return z

    grid = np.linspace(-12.0, 40.0, 521)
    values = np.array([reached(v) for v in grid])
    best = grid[int(values.argmin())]
    least = minimize_scalar(reached, bounds=(best - 0.1, best + 0.1), method="bounded", options={"xatol": 1e-10}).fun
    return factor ** (depth - 1) * float(min(least, values.min()))
