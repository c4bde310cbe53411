"""The panel on the part of the Hessian that the paper neglects."""

import torch

from firststep import curvature, feedforward, inits
from firststep.book.charts import axis, chart, level, points
from firststep.book.explore import Control, Outcome, explorable

WIDTH, DRAWS = 20, 8


@explorable(
    claim="curvature.theorem1",
    task="Make the neglected term smaller than the kept one at every layer (below the dashed line). "
    "Smaller weights should help, says the paper. Do they?",
    chart=chart(
        axis("layer", "layer", domain=(0.5, 6.5), ticks=range(1, 7)),
        axis("ratio", "|neglected| / kept", scale="log"),
        points("ratios", "vermilion", size=45),
        level("one"),
        height=230,
    ),
    presets={"tiny weights": {"weight_scale": 0.01}, "relu": {"activation": "relu"}},
    weight_scale=Control("weights (Glorot = 1)", (0.01, 0.03, 0.1, 0.3, 1.0, 3.0), 0.1, log=True, low=1e-9),
    bias_scale=Control("biases", (0.0, 0.1, 0.3, 1.0), 0.0, low=0),
    depth=Control("layers", (1, 2, 3, 4, 6), 3, low=1, high=8),
    activation=Control("activation", ("tanh", "relu", "softplus"), "tanh"),
)
def neglected_term(weight_scale: float, bias_scale: float, depth: int, activation: str) -> Outcome:
    """Kept and neglected part of every layer's second derivative along its gradient, squared loss.

    Args:
        weight_scale: weights relative to Glorot's, positive.
        bias_scale: standard deviation of the biases relative to ``weight_scale``, at least 0.
        depth: number of layers, 1 to 8, each 20 wide.
        activation: ``tanh``, ``relu`` or ``softplus`` (shifted through the origin).
    """
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
    """Size of neglected / kept, ``(depth, draws)``; zero where the derivative of a dead relu net vanishes."""
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
