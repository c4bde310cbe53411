"""The panel on the ray of equal weights, which leads into a saddle."""

import math

from firststep.book.charts import axis, chart, cross, line, path, segment
from firststep.book.explore import Control, Outcome, explorable

MAX_STEPS = 20_000  # of two scalars
TOLERANCE = 1e-10  # the paper's, for Figure 2
OFFSETS = (-1.0, -0.5, -0.2, -0.1, -0.01, 0.0, 0.01, 0.1, 0.2, 0.5)


@explorable(
    claim="zero_asymmetric.stable_manifold",
    task="Target −1, all weights equal but w₁. Move w₁ off the dashed ray, down and up, and find out when a saddle "
    "(product 0) still wins over the minima on the green curve.",
    chart=chart(
        axis("others", "w₂ = … = w_L", domain=(-0.5, 2)),
        axis("w1", "w₁", domain=(-2, 2)),
        segment({"others": 0, "w1": 0}, {"others": 2, "w1": 2}),
        line("minimum", "green"),
        cross(others=0, w1=0),
        path("path"),
        width=400,
        height=340,
    ),
    presets={"the smallest": {"depth": 2}, "just off the ray": {"offset": -0.01}, "a tie": {"offset": 0.2}},
    offset=Control("w₁ minus the others", OFFSETS, 0.0),
    depth=Control("depth L", (2, 3, 4, 6), 3, low=2, high=20),
    common=Control("the other weights", (0.5, 0.75, 1.0, 1.25, 1.5), 1.0, low=1e-6),
)
def zas_stable_manifold(depth: int, common: float, offset: float) -> Outcome:
    """Gradient descent on ½(w_L…w_1 + 1)² with one weight moved off the ray: saddle or minimum?

    Args:
        depth: L, from 2 to 20.
        common: the weights w_2 = … = w_L at the start, above 0.
        offset: w_1 minus the others at the start.
    """
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
