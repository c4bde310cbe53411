"""The panel on which starts lead to the min-norm solution."""

import math
from functools import cache

import torch

from firststep import inits, linear, two_layer
from firststep.book.charts import axis, chart, line, points, theory
from firststep.book.explore import Control, Outcome, explorable

WIDTHS = (25, 50, 100, 200, 400, 800, 1_600)
SAMPLES, DIMENSION = 10, 40
CONDITIONS = ("none", "V U₂ᵀ = 0", "U₁U₂ᵀ = 0", "both")
MOST_STEPS = 4_000
GOAL = 1e-8


@explorable(
    claim="imbalance.min_norm",
    task="With both conditions the solution is the min-norm one. Drop one of them, or both, and find the scale of "
    "the entries at which a wider network does not come closer.",
    chart=chart(
        axis("width", "hidden width h", scale="log", domain=(20, 2_000), form="d", ticks=WIDTHS),
        axis("distance", "distance to min-norm", scale="log", domain=(1e-10, 1e2), ticks=(1e-8, 1e-4, 1e-2, 1, 1e2)),
        theory("line"),
        line("others", "blue", dots=True, opacity=0.6),
        points("end", "blue", size=140),
    ),
    presets={
        "a plain start": {"condition": "none"},
        "where width is no help": {"condition": "none", "decay": 0.25},
    },
    hidden=Control("hidden width h", WIDTHS, 100, log=True, low=SAMPLES + 2, high=3_200),
    decay=Control("entries of size h to the power −", (0.25, 0.5, 0.75), 0.5, low=0, high=1),
    condition=Control("condition", CONDITIONS, "both"),
    seed=Control("seed", (0, 1), 0, low=0),
)
def imbalance_min_norm(hidden: int, decay: float, condition: str, seed: int) -> Outcome:
    """Descent from a Gaussian start with entries of size h^(−decay): how far from the min-norm solution does it end?

    Args:
        hidden: width h, from 12 to 3,200.
        decay: exponent between 0 and 1: ½ is the theorem's.
        condition: which orthogonality is imposed on the start.
        seed: of data and start.
    """
    distance, converged, steps = _end(hidden, decay, condition, seed)
    promised = condition == "both"

    def expected(width: int) -> float:
        """Root mean square of ‖V U_2ᵀ‖ at the start."""
        return width ** (0.5 - 2 * decay) * math.sqrt(DIMENSION - SAMPLES)

    return Outcome(
        tables={
            "end": {"width": [hidden], "distance": [max(distance, 1e-10)]},
            "others": {
                "width": list(WIDTHS),
                "distance": [max(_end(width, decay, condition, seed)[0], 1e-10) for width in WIDTHS],
            },
            "line": {"width": list(WIDTHS), "distance": [expected(width) for width in WIDTHS]},
        },
        prediction=(
            "distance 0, by the proposition"
            if promised
            else f"about {expected(hidden):.3g} if V U₂ᵀ stayed as it was drawn (the dashed line)"
        ),
        measurement=f"distance {distance:.3g} after {steps} steps" + ("" if converged else ", not converged"),
        verdict=(
            "Not converged, so neither statement applies."
            if not converged
            else f"The proposition {'holds' if distance < 1e-6 else 'is broken'}."
            if promised
            else "One condition does not promise the min-norm solution. Wider helps exactly when the dashed line falls."
        ),
        survived=distance < 1e-6 if promised and converged else None,
    )


@cache
def _end(hidden: int, decay: float, condition: str, seed: int) -> tuple[float, bool, int]:
    """Distance to the min-norm solution at the end of one descent, whether it converged, and its steps."""
    generator = inits.generator(seed)
    normal = {"generator": generator, "dtype": torch.float64, "device": generator.device}
    x = torch.randn(DIMENSION, SAMPLES, **normal) / DIMENSION**0.5
    y = 0.5 * torch.randn(1, SAMPLES, **normal)
    problem = two_layer.Problem.of(x, y)
    std = hidden**-decay
    split = problem.split(two_layer.gaussian_start((DIMENSION, hidden, 1), std, std, generator=generator))
    sides = {"V U₂ᵀ = 0": ["outer"], "U₁U₂ᵀ = 0": ["inner"], "both": ["inner", "outer"]}.get(condition)
    split = two_layer.compress(two_layer.orthogonalize(split, sides) if sides else split)
    end, steps = _descend(problem, split)
    return float(problem.distance(end, split.unseen)), float(problem.excess_loss(end)) < GOAL, steps


def _descend(problem: two_layer.Problem, split: two_layer.Split) -> tuple[linear.Weights, int]:
    """Descent at a tenth of the inverse of the start's curvature, in pieces, until the excess is tiny."""
    sizes = [float(torch.linalg.matrix_norm(w, ord=2)) ** 2 for w in split.weights]
    step_size = 0.25 / (float(problem.sigma[0]) ** 2 * (sum(sizes) + 2 * float(problem.solution.norm())))
    weights, done = split.weights, 0
    while done < MOST_STEPS and float(problem.excess_loss(weights)) > 1e-2 * GOAL**2:
        weights = linear.gradient_descent(weights, problem.moments, step_size=step_size, steps=100, every=100).weights
        done += 100
    return weights, done
