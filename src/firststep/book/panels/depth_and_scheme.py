"""The panel on layer Hessian norms by scheme and depth."""

import torch

from firststep import checks, inits, predicted_norms
from firststep.book.charts import axis, band, chart, points, theory
from firststep.book.explore import Control, Outcome, explorable
from firststep.curvature import layer_norms
from firststep.feedforward import Pass, forward, layer_jacobian
from firststep.predicted_norms import KEPT

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


@explorable(
    claim="curvature.scheme",
    task="Unit Jacobians are meant to make every layer's Hessian norm about one (green: within a factor of ten). "
    "Find where they do not, and a scheme for which they do at every depth. Dashed: closed form for large width.",
    chart=chart(
        axis("layer", "layer", whole=True),
        axis("norm", "layer Hessian norm ‖H‖", scale="log"),
        band("aim", "green", "low", "high"),
        theory("closed"),
        points("norms", "blue", size=36, opacity=0.6),
    ),
    presets={"the paper's scheme, deep": {"depth": 20}, "orthogonal": {"scheme": "orthogonal", "depth": 20}},
    depth=Control("depth L", (2, 4, 6, 10, 14, 20), 10, low=2, high=40),
    width=Control("width d", (16, 64, 128), 64, low=2, high=256),
    scheme=Control("scheme", tuple(SCHEMES), "Eq. (8)"),
    activation=Control("activation", tuple(KEPT), "linear"),
)
def depth_and_scheme(depth: int, width: int, scheme: str, activation: str) -> Outcome:
    """Layer Hessian norms at initialization against layer: do unit Jacobians make them about one?

    Args:
        depth: number of layers L, from 2 to 40.
        width: of every layer, from 2 to 256.
        scheme: a key of ``SCHEMES``.
        activation: ``linear`` or ``relu`` in all layers but the last.
    """
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
