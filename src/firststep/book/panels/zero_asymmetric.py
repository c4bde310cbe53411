"""Explorables of the chapter on zero-asymmetric initialization."""

import math

import altair as alt
import torch

from firststep import checks, step_counts, zas
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK

MAX_STEPS = 20_000  # of two scalars
MOST_ITERATIONS = 3_000  # of ZAS, at each of some hundred points of the grid
FLOOR = 1e-14  # where a loss of zero is drawn
TOLERANCE = 1e-10  # the paper's, for Figure 2
DEPTHS = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
LOG_STEPS = (-5.0, -4.0, -3.0, -2.5, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.1, -0.01, -0.001, 0.0, 0.001, 0.1)
TARGETS = {"−I": (1.0,), "singular values ½, 1, 2": (0.5, 1.0, 2.0)}


def simulate_depth_and_step(log_step: float, depth: int, target: str) -> Outcome:
    """ZAS at one step size and one depth: how many iterations to a loss of 1e-10?

    Args:
        log_step: log₁₀ of the step size.
        depth: number of layers, at most 1,000,000.
        target: a key of ``TARGETS``.

    Raises:
        ValueError: an argument that is not finite or not allowed.
    """
    checks.number("log_step", log_step)
    checks.positive_integer("depth", depth)
    checks.require(depth <= 1_000_000, "depth", depth, "at most 1000000")
    # The recursion steps and counts in numpy, so it starts on the CPU.
    s = torch.tensor(TARGETS[checks.one_of("target", target, TARGETS)], dtype=torch.float64, device="cpu")
    eta = 10.0**log_step
    count = step_counts.iterations(s, depth=depth, step_size=eta, tolerance=TOLERANCE, max_steps=MOST_ITERATIONS)
    steps, lost = int(count.steps), int(count.diverged_at)
    run = zas.recursion(s, depth=depth, step_size=eta, steps=200)
    loss = run.loss.tolist()
    shown = [k for k, value in enumerate(loss) if math.isfinite(value) and value < 1e6 and (steps < 0 or k <= steps)]
    shown = sorted({shown[round(i * (len(shown) - 1) / 60)] for i in range(61)})
    edge = 2 / (1 + (depth - 1) * float(s.max()) ** 2)
    end = f"no end in sight within {MOST_ITERATIONS:,} steps"
    if steps >= 0 or lost >= 0:
        end = f"converged after {steps:,} steps" if steps >= 0 else f"diverged at step {lost}"
    one = abs(eta - 1) < 1e-12
    return Outcome(
        tables={
            "loss": {"iteration": shown, "loss": [max(loss[k], FLOOR) for k in shown]},
            "line": {"loss": [TOLERANCE]},
        },
        prediction="one step, at every depth" if one else f"stable below η ≈ {edge:.2g}, about 2 / (1 + (L − 1)s²)",
        measurement=f"η = {eta:.4g}, L = {depth:,}: {end}",
        verdict=(
            ("One step was enough." if steps == 1 else "One step was not enough.")
            if one
            else f"The claim is about η = 1; this run {'converges' if steps >= 0 else 'does not converge'}."
        ),
        survived=(steps == 1) if one else None,
    )


def _loss_chart() -> alt.LayerChart:
    x = alt.X("iteration:Q", title="iteration (the first 200)", scale=alt.Scale(domain=[0, 200], type="symlog"))
    y = alt.Y(
        "loss:Q",
        title="loss",
        scale=alt.Scale(type="log", domain=[FLOOR, 1e4], clamp=True),
        axis=alt.Axis(format=".0e", tickCount=6),
    )
    line = alt.Chart(alt.NamedData("loss")).mark_line(point=True, clip=True, color=COLORS["blue"]).encode(x, y)
    rule = alt.Chart(alt.NamedData("line")).mark_rule(strokeDash=[6, 4], color=VEGA_INK).encode(y="loss:Q")
    return vega_theme(alt.layer(line, rule).properties(width=520, height=230))


def depth_and_step() -> Explorable:
    """Step size, depth and target against the number of iterations from ZAS."""
    return Explorable(
        name="zas-depth-and-step",
        claim="zero_asymmetric.one_step",
        task="Find a depth or a target that ZAS does not solve in a single step at η = 1 (the exponent 0). "
        "Then move the step size a little.",
        controls=(
            Control("log_step", "log₁₀ of the step size", LOG_STEPS, 0.0),
            Control("depth", "depth L", DEPTHS, 100),
            Control("target", "target", tuple(TARGETS), "−I"),
        ),
        simulate=simulate_depth_and_step,
        chart=_loss_chart(),
        presets={"deepest": {"depth": DEPTHS[-1]}, "a step of one per cent": {"log_step": -2.0, "depth": 10}},
    )


def simulate_stable_manifold(depth: int, common: float, offset: float) -> Outcome:
    """Gradient descent on ½(w_L…w_1 + 1)² with one weight moved off the ray: saddle or minimum?

    Args:
        depth: L, from 2 to 20.
        common: the weights w_2 = … = w_L at the start, above 0.
        offset: w_1 minus the others at the start.

    Raises:
        ValueError: an argument that is not finite or not allowed.
    """
    checks.require(checks.is_integer(depth) and 2 <= depth <= 20, "depth", depth, "an integer from 2 to 20")
    checks.number("common", common, above=0, allowed="a positive number")
    checks.number("offset", offset)
    step_size = 0.2 / depth
    a, b = common + offset, common
    path, end = [(a, b)], "still moving"
    for _ in range(MAX_STEPS):
        e = a * b ** (depth - 1) + 1
        if e * e / 2 < TOLERANCE:
            end = "the global minimum"
            break
        a, b = a - step_size * e * b ** (depth - 1), b - step_size * e * a * b ** (depth - 2)
        path.append((a, b))
        if not abs(a) + abs(b) < 1e6:
            end = "diverged"
            break
    loss = math.inf if end == "diverged" else 0.5 * (a * b ** (depth - 1) + 1) ** 2
    if end == "still moving" and abs(a * b ** (depth - 1)) < 1e-2:
        end = "the saddle region, where the product is 0"
    on_ray = offset == 0
    saddle = end.startswith("the saddle")
    lost = end == "diverged"  # of the step size, about which the claim says nothing
    return Outcome(
        tables={"path": _thinned(path, common), "minimum": _minimum(depth)},
        prediction="on the ray of equal weights: to the saddle, with loss ½" if on_ray else _off_the_ray(depth, offset),
        measurement=f"{end} after {len(path) - 1:,} steps, at w₁ = {a:.3g}, others {b:.3g}, loss {loss:.3g}",
        verdict=(
            "Off the ray the claim says nothing; the prediction above is the book's."
            if not on_ray
            else "These weights are too large for the step size, so the run says nothing about the flow."
            if lost
            else "The ray belongs to the stable manifold."
            if saddle
            else "The start left the ray's fate."
        ),
        survived=saddle if on_ray and not lost else None,
    )


def _off_the_ray(depth: int, offset: float) -> str:
    if offset < 0:
        return "off the ray: w₁ alone is smallest, passes through 0, and a minimum follows"
    if depth == 2:
        return "off the ray: the other weight is smallest, passes through 0, and a minimum follows"
    return "off the ray, but the smallest weights are tied: they fall to 0 together, to another saddle"


def _thinned(path: list[tuple[float, float]], common: float, most: int = 40) -> dict[str, list]:
    """At most ``most`` points, dense where the path starts."""
    chosen = sorted({round((len(path) - 1) * (k / (most - 1)) ** 2.5) for k in range(most)})
    inside = [(k, *path[k]) for k in chosen if max(map(abs, path[k])) <= 3 * max(1.0, common)]
    return {"step": [p[0] for p in inside], "w1": [p[1] for p in inside], "others": [p[2] for p in inside]}


def _minimum(depth: int) -> dict[str, list]:
    """The curve w₁ · others^{L−1} = −1 for positive others."""
    others = [0.55 + k * 0.02 for k in range(80)]
    kept = [o for o in others if o ** (1 - depth) <= 3]
    return {"others": kept, "w1": [-(o ** (1 - depth)) for o in kept]}


def _manifold_chart() -> alt.LayerChart:
    x = alt.X("others:Q", title="w₂ = … = w_L", scale=alt.Scale(domain=[-0.5, 2], nice=False))
    y = alt.Y("w1:Q", title="w₁", scale=alt.Scale(domain=[-2, 2], nice=False))
    ray = (
        alt.Chart(alt.Data(values=[{"others": 0, "w1": 0}, {"others": 2, "w1": 2}]))
        .mark_line(strokeDash=[6, 4], color=VEGA_INK)
        .encode(x, y)
    )
    minimum = alt.Chart(alt.NamedData("minimum")).mark_line(clip=True, color=COLORS["green"]).encode(x, y)
    path = alt.Chart(alt.NamedData("path")).encode(x, y, order="step:Q")
    line = path.mark_line(
        clip=True, color=COLORS["vermilion"], point={"filled": True, "size": 22, "color": COLORS["vermilion"]}
    )
    start = path.transform_filter("datum.step == 0").mark_point(clip=True, filled=True, size=120, color=COLORS["blue"])
    saddle = (
        alt.Chart(alt.Data(values=[{"others": 0, "w1": 0}]))
        .mark_point(shape="cross", size=110, color=VEGA_INK)
        .encode(x, y)
    )
    return vega_theme(alt.layer(ray, minimum, saddle, line, start).properties(width=400, height=340))


def stable_manifold() -> Explorable:
    """Depth, common weight and the offset of one weight against the critical point that is reached."""
    return Explorable(
        name="zas-stable-manifold",
        claim="zero_asymmetric.stable_manifold",
        task="Target −1, all weights equal but w₁. Move w₁ off the dashed ray, down and up, and find out when a saddle "
        "(product 0) still wins over the minima on the green curve.",
        controls=(
            Control(
                "offset",
                "w₁ minus the others",
                (-1.0, -0.5, -0.2, -0.1, -0.01, 0.0, 0.01, 0.1, 0.2, 0.5),
                0.0,
            ),
            Control("depth", "depth L", (2, 3, 4, 6), 3),
            Control("common", "the other weights", (0.5, 0.75, 1.0, 1.25, 1.5), 1.0),
        ),
        simulate=simulate_stable_manifold,
        chart=_manifold_chart(),
        presets={"the paper's example": {"depth": 2}, "just off the ray": {"offset": -0.01}, "a tie": {"offset": 0.2}},
    )


PANELS = {"zas_depth_and_step": depth_and_step, "zas_stable_manifold": stable_manifold}
