"""Explorables of the chapter on curvature initialization."""

import math

import altair as alt
import torch

from firststep import checks, curvature, inits
from firststep.curvature import Pass, forward, layer_jacobian, output_jacobians
from firststep.explore import Control, Explorable, Outcome
from firststep.figures import COLORS, VEGA_INK, vega_theme

SCHEMES = {
    "Eq. (8)": "curvature_normal",
    "Glorot": "xavier_normal",
    "He": "he_normal",
    "orthogonal": "orthogonal",
}
KEPT = {"linear": 1.0, "relu": 0.5}  # share of the neurons whose slope is one
SEEDS = 5
FACTOR = 10.0  # how far from one "about one" may be
NEAR = (0.7, 1.1)  # Jacobian norms that we call about one: relu takes 15 % off, and narrow layers another 10 %


def signal_factor(scheme: str, width: int, activation: str) -> float:
    """Factor by which a square layer multiplies the mean square of a signal.

    Args:
        scheme: a key of ``SCHEMES``.
        width: d, of input and output.
        activation: ``linear`` or ``relu``.

    Returns:
        d σ², or 1 for orthogonal weights; half of it for relu.

    Raises:
        ValueError: an unknown word, or a width that is not a positive integer.
    """
    checks.one_of("scheme", scheme, SCHEMES)
    checks.positive_integer("width", width)
    checks.one_of("activation", activation, KEPT)
    gain = 1.0 if scheme == "orthogonal" else width * inits.sigma(SCHEMES[scheme], width, width) ** 2
    return KEPT[activation] * gain


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
    checks.require(checks.is_integer(pairs) and pairs >= 0, "pairs", pairs, "an integer of at least 0")
    p = checks.number("kept", kept)
    checks.require(0 < p <= 1, "kept", kept, "in (0, 1]")
    k = pairs
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
        scheme: a key of ``SCHEMES``.
        depth: L; all layers are square, the last one linear.
        layer: l, from 1 to L.
        width: enters through the scheme's σ only.
        activation: ``linear`` or ``relu``.

    Raises:
        ValueError: as :func:`signal_factor`, or no such layer.
    """
    factor = signal_factor(scheme, width, activation)
    checks.positive_integer("depth", depth)
    good = checks.is_integer(layer) and 1 <= layer <= depth
    checks.require(good, "layer", layer, f"an integer between 1 and {depth}")
    kept = KEPT[activation]
    # ``factor`` counts the projections, ``edge`` counts them again: take them out once.
    gain = (factor / kept) ** (depth - layer)
    return factor ** (layer - 1) * gain * edge(depth - layer, kept, orthogonal=scheme == "orthogonal")


def layer_norms(run: Pass) -> torch.Tensor:
    """All layer Hessian norms ‖zˡ⁻¹‖²·‖B_l A_l‖² of a linear or relu network with loss ½‖z − t‖², ``(L, draws)``."""
    sides = zip(run.z, output_jacobians(run), run.slope, strict=False)
    pulled = ((z.square().sum(-1), b * slope.unsqueeze(-2)) for z, b, slope in sides)
    return torch.stack([size * torch.linalg.matrix_norm(root, ord=2).square() for size, root in pulled])


def draw(scheme: str, depth: int, width: int, activation: str, seeds: int = SEEDS) -> Pass:
    """Square networks with a linear last layer at unit inputs, one of each a seed."""
    weights = inits.network([width] * (depth + 1), SCHEMES[scheme], generator=inits.generators(seeds))
    x = torch.randn(seeds, width, generator=torch.Generator().manual_seed(1_000), dtype=torch.float64)
    names = (activation,) * (depth - 1) + ("linear",)
    return forward(weights, x / x.norm(dim=-1, keepdim=True), activation=names)


def simulate_depth_and_scheme(depth: int, width: int, scheme: str, activation: str) -> Outcome:
    """Layer Hessian norms at initialization against layer: do unit Jacobians make them about one?

    Args:
        depth: number of layers L, from 2 to 40.
        width: of every layer, from 2 to 256.
        scheme: a key of ``SCHEMES``.
        activation: ``linear`` or ``relu`` in all layers but the last.

    Raises:
        ValueError: a number outside its range, or an unknown word.
    """
    checks.require(checks.is_integer(depth) and 2 <= depth <= 40, "depth", depth, "an integer between 2 and 40")
    checks.require(checks.is_integer(width) and 2 <= width <= 256, "width", width, "an integer between 2 and 256")
    checks.one_of("scheme", scheme, SCHEMES)
    checks.one_of("activation", activation, KEPT)
    run = draw(scheme, depth, width, activation)
    norms = layer_norms(run)
    layers = list(range(1, depth + 1))
    closed = [predicted_norm(scheme, depth, layer, width, activation) for layer in layers]
    middle = (depth + 1) // 2
    first = run.draw(0)
    jacobian = sum(float(torch.linalg.matrix_norm(layer_jacobian(first, layer), ord=2)) for layer in layers) / depth
    unit = NEAR[0] <= jacobian <= NEAR[1]
    typical = norms.median(-1).values
    off = [layer for layer, norm in zip(layers, typical.tolist(), strict=True) if not 1 / FACTOR <= norm <= FACTOR]
    return Outcome(
        tables={
            "norms": {"layer": layers * SEEDS, "norm": [_floor(v) for v in norms.T.flatten().tolist()]},
            "closed": {"layer": layers, "norm": [_floor(v) for v in closed]},
            "aim": {"low": [1 / FACTOR], "high": [FACTOR]},
        },
        prediction=f"closed form: ‖H‖ = {closed[middle - 1]:.2g} at layer {middle}"
        + ("; the paper's aim: about 1 at every layer" if unit else ""),
        measurement=f"‖H‖ = {float(typical[middle - 1]):.2g} at layer {middle}, {float(typical.min()):.2g} to "
        f"{float(typical.max()):.2g} over the layers; mean ‖J‖ = {jacobian:.2f}",
        verdict=_verdict(unit, off, depth),
        survived=not off if unit else None,
    )


def _verdict(unit: bool, off: list[int], depth: int) -> str:
    if not unit:
        return "The rule says nothing: ‖J‖ is not about one."
    if off:
        return f"‖J‖ is about one, yet {len(off)} of {depth} layers miss the aim by more than a factor of ten."
    return "All layers are within a factor of ten of one."


def _floor(value: float) -> float:
    """The chart's axis is logarithmic and ends here."""
    return max(value, 1e-30)


def _depth_and_scheme_chart() -> alt.LayerChart:
    layer = alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False, padding=8))
    scale = alt.Scale(type="log")
    norm = alt.Y("norm:Q", title="layer Hessian norm ‖H‖", scale=scale, axis=alt.Axis(format=".0e", tickCount=7))
    aim = alt.Chart(alt.NamedData("aim")).mark_rect(color=COLORS["green"], opacity=0.15)
    measured = alt.Chart(alt.NamedData("norms")).mark_point(filled=True, size=36, opacity=0.6, color=COLORS["blue"])
    closed = alt.Chart(alt.NamedData("closed")).mark_line(strokeDash=[6, 4], color=VEGA_INK)
    layers = alt.layer(
        aim.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q"), closed.encode(layer, norm), measured.encode(layer, norm)
    )
    return vega_theme(layers.properties(width=520, height=260))


def depth_and_scheme() -> Explorable:
    """Depth, width, scheme and activation against the layer Hessian norms."""
    return Explorable(
        name="depth-and-scheme",
        claim="curvature.scheme",
        task="Unit Jacobians are meant to make every layer's Hessian norm about one (green: within a factor of ten). "
        "Find where they do not, and a scheme for which they do at every depth. Dashed: closed form for large width.",
        controls=(
            Control("depth", "depth L", (2, 4, 6, 10, 14, 20), 10),
            Control("width", "width d", (16, 64, 128), 64),
            Control("scheme", "scheme", tuple(SCHEMES), "Eq. (8)"),
            Control("activation", "activation", tuple(KEPT), "linear"),
        ),
        simulate=simulate_depth_and_scheme,
        chart=_depth_and_scheme_chart(),
    )


WIDTH, DRAWS = 20, 8


def simulate_neglected_term(weight_scale: float, bias_scale: float, depth: int, activation: str) -> Outcome:
    """Kept and neglected part of every layer's second derivative along its gradient, squared loss.

    Args:
        weight_scale: weights relative to Glorot's, positive.
        bias_scale: standard deviation of the biases relative to ``weight_scale``, at least 0.
        depth: number of layers, 1 to 8, each 20 wide.
        activation: ``tanh``, ``relu`` or ``softplus`` (shifted through the origin).

    Raises:
        ValueError: an argument outside of what is described above.
    """
    checks.number("weight_scale", weight_scale, above=0, allowed="a positive number")
    checks.require(checks.number("bias_scale", bias_scale) >= 0, "bias_scale", bias_scale, "a number of at least 0")
    checks.require(checks.is_integer(depth) and 1 <= depth <= 8, "depth", depth, "an integer from 1 to 8")
    checks.one_of("activation", activation, ("tanh", "relu", "softplus"))
    ratios = _ratios(weight_scale, bias_scale, depth, activation)
    medians = ratios.median(1).values.tolist()
    worst = max(range(depth), key=medians.__getitem__)
    survived = medians[worst] < 1
    table = {"layer": [], "ratio": [], "draw": []}
    for layer, row in enumerate(ratios.tolist(), start=1):
        for draw, ratio in enumerate(row):
            if ratio > 0:
                table["layer"].append(layer)
                table["ratio"].append(ratio)
                table["draw"].append(draw)
    return Outcome(
        tables={"ratios": table, "one": {"ratio": [1.0]}},
        prediction=f"Theorem 1: the neglected term is small. By our count {_order(bias_scale, activation)}",
        measurement=f"median |neglected| / kept by layer: {', '.join(f'{m:.2g}' for m in medians)}",
        verdict=(
            "The approximation survives: what it neglects is smaller than what it keeps, at every layer."
            if survived
            else f"The approximation is broken: layer {worst + 1} neglects {medians[worst]:.2g} times what it keeps."
        ),
        survived=survived,
    )


def _order(bias_scale: float, activation: str) -> str:
    """The predicted power of the weight scale s at layer l of L."""
    if activation == "relu":
        return "it is zero: relu does not bend"
    tanh = "s^(2l−L)" if bias_scale == 0 else "s^(l−L+1)"
    return f"its share scales as {'s^(l−L)' if activation == 'softplus' else tanh} as the weights' scale s falls"


def _ratios(weight_scale: float, bias_scale: float, depth: int, activation: str) -> torch.Tensor:
    """|neglected| / kept, ``(depth, draws)``; zero where the derivative of a dead relu net vanishes."""
    generators = inits.generators(DRAWS)
    weights = [weight_scale * w for w in inits.network((WIDTH,) * (depth + 1), "xavier_normal", generator=generators)]
    draw = [[torch.randn(WIDTH, generator=g, dtype=torch.float64) for g in generators] for _ in range(depth + 2)]
    x, target, *units = (torch.stack(part) for part in draw)
    biases = [weight_scale * bias_scale * b for b in units]
    run = curvature.forward(weights, x, biases=biases, activation=activation)
    rows = []
    for layer in range(1, depth + 1):
        g = curvature.layer_gradient(run, target, layer)
        g = g / g.abs().amax((-2, -1), keepdim=True).clamp_min(1e-300)
        kept = curvature.kept_form(run, target, layer, g)
        neglected = curvature.neglected_terms(run, target, layer, g).sum(-1).abs()
        rows.append(torch.where(kept > 0, neglected / kept, torch.zeros_like(kept)))
    return torch.stack(rows)


def _neglected_chart() -> alt.LayerChart:
    x = alt.X("layer:Q", title="layer", axis=alt.Axis(tickMinStep=1, format="d"), scale=alt.Scale(domain=[0.5, 6.5]))
    y = alt.Y("ratio:Q", title="|neglected| / kept", scale=alt.Scale(type="log"), axis=alt.Axis(format=".0e"))
    points = alt.Chart(alt.NamedData("ratios")).mark_point(filled=True, size=45, color=COLORS["vermilion"])
    one = alt.Chart(alt.NamedData("one")).mark_rule(strokeDash=[6, 4], color=VEGA_INK)
    return vega_theme((points.encode(x, y) + one.encode(y="ratio:Q")).properties(width=480, height=230))


def neglected_term() -> Explorable:
    """Weight and bias scale, depth and activation against the neglected part of every layer's Hessian."""
    return Explorable(
        name="neglected-term",
        claim="curvature.theorem1",
        task="Make the neglected term smaller than the kept one at every layer (below the dashed line). "
        "Smaller weights should help, says the paper. Do they?",
        controls=(
            Control("weight_scale", "weights (Glorot = 1)", (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), 0.1, log=True),
            Control("bias_scale", "biases", (0.0, 0.1, 0.3, 1.0), 0.0),
            Control("depth", "layers", (1, 2, 3, 4, 6), 3),
            Control("activation", "activation", ("tanh", "relu", "softplus"), "tanh"),
        ),
        simulate=simulate_neglected_term,
        chart=_neglected_chart(),
    )


PANELS = {"depth_and_scheme": depth_and_scheme, "neglected_term": neglected_term}
