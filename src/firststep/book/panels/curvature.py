"""Explorables of the chapter on curvature initialization."""

import altair as alt
import torch

from firststep import checks, curvature, feedforward, inits, predicted_norms
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK
from firststep.curvature import layer_norms
from firststep.feedforward import Pass, forward, layer_jacobian
from firststep.predicted_norms import KEPT
from firststep.predicted_norms import edge as edge

SCHEMES = {
    "Eq. (8)": "curvature_normal",
    "Glorot": "xavier_normal",
    "He": "he_normal",
    "orthogonal": "orthogonal",
}
SEEDS = 5
FACTOR = 10.0  # how far from one "about one" may be
NEAR = (0.7, 1.1)  # Jacobian norms that we call about one: relu takes 15 % off, and narrow layers another 10 %


def signal_factor(scheme: str, width: int, activation: str) -> float:
    """:func:`firststep.predicted_norms.signal_factor` by the scheme's label, a key of ``SCHEMES``."""
    checks.one_of("scheme", scheme, SCHEMES)
    return predicted_norms.signal_factor(SCHEMES[scheme], width, activation)


def predicted_norm(scheme: str, depth: int, layer: int, width: int, activation: str) -> float:
    """:func:`firststep.predicted_norms.predicted_norm` by the scheme's label, a key of ``SCHEMES``."""
    checks.one_of("scheme", scheme, SCHEMES)
    return predicted_norms.predicted_norm(SCHEMES[scheme], depth, layer, width, activation)


def draw(scheme: str, depth: int, width: int, activation: str, seeds: int = SEEDS) -> Pass:
    """Square networks with a linear last layer at unit inputs, one of each a seed."""
    weights = inits.network([width] * (depth + 1), SCHEMES[scheme], generator=inits.generators(seeds))
    g = inits.generator(1_000)
    x = torch.randn(seeds, width, generator=g, dtype=torch.float64, device=g.device)
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
    draw = [
        [torch.randn(WIDTH, generator=g, dtype=torch.float64, device=g.device) for g in generators]
        for _ in range(depth + 2)
    ]
    x, target, *units = (torch.stack(part) for part in draw)
    biases = [weight_scale * bias_scale * b for b in units]
    run = feedforward.forward(weights, x, biases=biases, activation=activation)
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
