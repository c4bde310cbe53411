"""Explorables of the chapter on imbalance."""

import math
from functools import cache

import altair as alt
import torch

from firststep import checks, flow, inits, linear, scale, two_layer
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK

OUTPUTS, INPUTS, HIDDEN = 2, 5, 7  # small: a hundred flows take seconds at build time
LONGEST = 40.0
FLOOR = 1e-12  # below it the excess loss is the solver's error
GOAL = 1e-8


def simulate_rate(c: float, target: float, product: str, weakest: float) -> Outcome:
    """Gradient flow of a two-layer network from a start of level ``c``: is it as fast as the theorem promises?

    Args:
        c: level of imbalance of the start, at least 0.
        target: size of the target matrix, at least 0.
        product: end-to-end matrix of the start, relative to the direction of the target: ``along``, ``against`` or
            ``random``.
        weakest: λ_r(Σ_x), the smallest eigenvalue of the data, in (0, 1]; the largest is 1.

    Raises:
        ValueError: a number outside its range, or an unknown word.
    """
    checks.require(checks.number("c", c) >= 0, "c", c, "a number of at least 0")
    checks.require(checks.number("target", target) >= 0, "target", target, "a number of at least 0")
    checks.require(0 < checks.number("weakest", weakest) <= 1, "weakest", weakest, "in (0, 1]")
    checks.one_of("product", product, ("along", "against", "random"))
    direction, other = _directions()
    spectrum = torch.linspace(1, weakest, INPUTS, dtype=torch.float64, device=scale.device())
    problem = two_layer.Problem.of(torch.diag(spectrum.sqrt()), target * direction)
    # In the coordinates of the data: Problem sorts and signs the singular vectors as it likes.
    first = 0.3 * {"along": direction, "against": -direction, "random": other}[product] @ problem.seen
    start = two_layer.start_of_level(first, c, HIDDEN, generator=inits.generator(3))
    rate = 2 * weakest * c
    horizon = min(LONGEST, 24 / rate) if rate else LONGEST
    times = torch.linspace(0, horizon, 81, dtype=torch.float64, device=scale.device())
    excess = problem.excess_loss(flow.gradient_flow(start, problem.moments, times, rtol=1e-8, atol=1e-14).weights)
    relative = (excess / excess[0]).tolist()
    shown = [(t, e) for t, e in zip(times.tolist(), relative, strict=True) if e > FLOOR]
    broken = [t for t, e in shown if e > math.exp(-rate * t) * (1 + 1e-6)]
    return Outcome(
        tables={
            "excess": {"time": [t for t, _ in shown], "excess": [e for _, e in shown]},
            "bound": {"time": times.tolist(), "excess": [max(math.exp(-rate * t), FLOOR) for t in times.tolist()]},
        },
        prediction=f"excess loss at most e^(−{rate:.3g} t)" if rate else "nothing: c = 0",
        measurement=_measured(times.tolist(), relative, rate),
        verdict=(
            "The theorem is silent: some balanced starts converge, some do not."
            if not rate
            else f"The bound is broken at t = {broken[0]:.3g}."
            if broken
            else "The bound holds at every time."
        ),
        survived=None if not rate else not broken,
    )


def _directions() -> tuple[torch.Tensor, torch.Tensor]:
    """Two fixed random matrices of Frobenius norm 1."""
    generator = inits.generator(11)
    pair = torch.randn(2, OUTPUTS, INPUTS, generator=generator, dtype=torch.float64, device=generator.device)
    first, second = pair / torch.linalg.matrix_norm(pair)[:, None, None]
    return first, second


def _measured(times: list[float], relative: list[float], rate: float) -> str:
    reached = next((k for k, e in enumerate(relative) if e < GOAL), None)
    if reached is None:
        return f"relative excess loss {relative[-1]:.2g} at t = {times[-1]:.3g}"
    mean = -math.log(relative[reached]) / times[reached]
    against = f", {mean / rate:.2f} times the promised rate" if rate else ""
    return f"relative excess loss below {GOAL:.0e} at t = {times[reached]:.3g}: mean rate {mean:.3g}{against}"


def _rate_chart() -> alt.LayerChart:
    time = alt.X("time:Q", title="time")
    decades = alt.Scale(type="log", domain=[FLOOR, 1.5])
    ticks = alt.Axis(values=[1e-12, 1e-8, 1e-4, 1], format=".0e")
    excess = alt.Y("excess:Q", title="excess loss, relative", scale=decades, axis=ticks)
    measured = alt.Chart(alt.NamedData("excess")).mark_line(color=COLORS["blue"], clip=True).encode(time, excess)
    bound = alt.Chart(alt.NamedData("bound")).mark_line(strokeDash=[6, 4], color=VEGA_INK, clip=True)
    return vega_theme(alt.layer(measured, bound.encode(time, excess)).properties(width=520, height=260))


def imbalance_rate() -> Explorable:
    """Level, target, product and data against the promised rate."""
    return Explorable(
        name="imbalance-rate",
        claim="imbalance.rate",
        task="Try to get the blue curve above the dashed bound, or to make the bound useless: "
        "change the level, the target, and where the start points.",
        controls=(
            Control("c", "level of imbalance c", (0.0, 0.1, 0.3, 1.0, 3.0), 0.3),
            Control("target", "size of the target", (0.0, 0.5, 2.0), 0.5),
            Control("weakest", "λ_r(Σ_x)", (0.1, 0.4, 1.0), 1.0),
            Control("product", "start's product", ("along", "against", "random"), "random"),
        ),
        simulate=simulate_rate,
        chart=_rate_chart(),
        presets={"balanced, towards the saddle": {"c": 0.0, "product": "against"}, "very unbalanced": {"c": 3.0}},
    )


WIDTHS = (25, 50, 100, 200, 400, 800, 1_600)
SAMPLES, DIMENSION = 10, 40
CONDITIONS = ("none", "V U₂ᵀ = 0", "U₁U₂ᵀ = 0", "both")
MOST_STEPS = 4_000


def simulate_min_norm(hidden: int, decay: float, condition: str, seed: int) -> Outcome:
    """Descent from a Gaussian start with entries of size h^(−decay): how far from the min-norm solution does it end?

    Args:
        hidden: width h, from 12 to 3,200.
        decay: exponent between 0 and 1: ½ is the theorem's.
        condition: which orthogonality is imposed on the start.
        seed: of data and start.

    Raises:
        ValueError: a number outside its range, or an unknown condition.
    """
    good = checks.is_integer(hidden) and SAMPLES + 2 <= hidden <= 3_200
    checks.require(good, "hidden", hidden, "an integer between 12 and 3200")
    checks.require(0 <= checks.number("decay", decay) <= 1, "decay", decay, "in [0, 1]")
    checks.one_of("condition", condition, CONDITIONS)
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


def _min_norm_chart() -> alt.LayerChart:
    width = alt.X("width:Q", title="hidden width h", scale=alt.Scale(type="log", domain=[20, 2_000]))
    decades = alt.Scale(type="log", domain=[1e-10, 1e2])
    ticks = alt.Axis(values=[1e-8, 1e-4, 1e-2, 1, 1e2], format=".0e")
    distance = alt.Y("distance:Q", title="distance to min-norm", scale=decades, axis=ticks)
    end = alt.Chart(alt.NamedData("end")).mark_point(filled=True, size=140, color=COLORS["blue"], clip=True)
    line = alt.Chart(alt.NamedData("line")).mark_line(strokeDash=[6, 4], color=VEGA_INK, clip=True)
    others = alt.Chart(alt.NamedData("others")).mark_line(point=True, color=COLORS["blue"], clip=True, opacity=0.6)
    layers = alt.layer(*(part.encode(width, distance) for part in (line, others, end)))
    return vega_theme(layers.properties(width=520, height=260))


def imbalance_min_norm() -> Explorable:
    """Width, scale of the entries and orthogonality of the start against the distance to the min-norm solution."""
    return Explorable(
        name="imbalance-min-norm",
        claim="imbalance.min_norm",
        task="With both conditions the solution is the min-norm one. Drop one of them, or both, and find the scale of "
        "the entries at which a wider network does not come closer.",
        controls=(
            Control("hidden", "hidden width h", WIDTHS, 100, log=True),
            Control("decay", "entries ∝ h^−", (0.25, 0.5, 0.75), 0.5),
            Control("condition", "condition", CONDITIONS, "both"),
            Control("seed", "seed", (0, 1), 0),
        ),
        simulate=simulate_min_norm,
        chart=_min_norm_chart(),
        presets={
            "a plain start": {"condition": "none"},
            "where width is no help": {"condition": "none", "decay": 0.25},
        },
    )


PANELS = {"imbalance_rate": imbalance_rate, "imbalance_min_norm": imbalance_min_norm}
