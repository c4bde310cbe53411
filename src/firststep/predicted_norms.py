"""Layer Hessian norms of random square networks in the limit of large width, in closed form.

Unit input, loss ½‖z − t‖², a linear last layer; what one draws is compared with :mod:`firststep.curvature`. A linear or
relu network multiplies signals by W A, with A the diagonal of slopes, and free probability gives the norm of products.
"""

import math

from firststep import checks, inits

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
