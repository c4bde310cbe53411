"""The panel on the smallest counterexample: two numbers, a saddle and a curve of minima."""

import math

import altair as alt

from firststep.book.charts import Axis, Layer, axis, chart, cross, encoded, path
from firststep.book.explore import Control, Outcome, explorable
from firststep.book.figures import COLORS

MAX_STEPS = 20_000
STARTS = tuple(k / 4 for k in range(-6, 7))


def _level_sets(table: str) -> Layer:
    """The curve of minima, thick, and the other level sets, thin."""
    kinds = ["minimum", "level"]
    color = alt.Color("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=[COLORS["green"], "#9a9a9a"]))
    width = alt.StrokeWidth("kind:N", legend=None, scale=alt.Scale(domain=kinds, range=[2.6, 0.7]))

    def layer(x: Axis, y: Axis) -> alt.Chart:
        mark = alt.Chart(alt.NamedData(table)).mark_line(clip=True)
        return encoded(mark, x, y, detail="branch:N", color=color, strokeWidth=width)

    return layer


@explorable(
    claim="full_rank.claim2",
    task="Find a start of full rank (w₁w₂ ≠ 0) from which gradient descent converges to the saddle, "
    "marked by a cross, and not to a minimum, the green curve.",
    chart=chart(
        axis("w1", "w₁", domain=(-2, 2)),
        axis("w2", "w₂", domain=(-2, 2)),
        _level_sets("levels"),
        cross(w1=0, w2=0),
        path("path"),
        width=360,
        height=360,
    ),
    presets={"(1, 1): full rank": {"w1": 1.0, "w2": 1.0}, "(1, 0): rank zero": {"w1": 1.0, "w2": 0.0}},
    w1=Control("start w₁", STARTS, 1.0),
    w2=Control("start w₂", STARTS, 1.0),
    step_size=Control("step size η", (0.02, 0.1, 0.5, 1.0), 0.1, log=True, low=1e-9),
    target=Control("target", (-1, 1), -1, low=-1, high=1),
)
def scalar_pair(w1: float, w2: float, step_size: float, target: int) -> Outcome:
    """Gradient descent on ½(w₁w₂ − target)² from (w1, w2): which critical point does it reach?

    Args:
        w1: start of the inner weight.
        w2: start of the outer weight.
        step_size: η > 0.
        target: 1 or −1.
    """
    path = [(w1, w2)]
    a, b = w1, w2
    end = "still moving"
    for _ in range(MAX_STEPS):
        residual = a * b - target
        da, db = residual * b, residual * a
        a, b = a - step_size * da, b - step_size * db
        path.append((a, b))
        if not abs(a) + abs(b) < 1e6:
            end = "diverged"
            break
        if abs(da) + abs(db) < 1e-12:
            end = "the global minimum" if abs(a * b - target) < 1e-6 else "the saddle at (0, 0)"
            break
    survived = None if w1 * w2 == 0 or not end.startswith("the") else end == "the global minimum"
    return Outcome(
        tables={"path": _thinned(path), "levels": _levels(target)},
        prediction=(
            "Claim 2 says nothing: the product starts at rank 0"
            if w1 * w2 == 0
            else f"Claim 2: rank 1 at the start (w₂w₁ = {w2 * w1:.3g}), so a global minimum if it converges"
        ),
        measurement=(
            f"{end} after {len(path) - 1} steps"
            if end == "diverged"
            else f"{end} after {len(path) - 1} steps, at ({a:.3g}, {b:.3g}), loss {0.5 * (a * b - target) ** 2:.3g}"
        ),
        verdict={
            True: "Claim 2 survives this start.",
            False: "Claim 2 is broken: rank 1 at the start, and the limit is a saddle.",
            None: "No test of Claim 2: it asks for full rank at the start and for convergence.",
        }[survived],
        survived=survived,
    )


def _thinned(path: list[tuple[float, float]], most: int = 24) -> dict[str, list]:
    """At most ``most`` points of the path, dense where it starts, inside the drawn window."""
    chosen = sorted({round((len(path) - 1) * (k / (most - 1)) ** 2.5) for k in range(most)})
    inside = [(k, *path[k]) for k in chosen if max(map(abs, path[k])) <= 3]
    return {"step": [p[0] for p in inside], "w1": [p[1] for p in inside], "w2": [p[2] for p in inside]}


def _levels(target: int) -> dict[str, list]:
    """Level sets of ½(w₁w₂ − target)²: the hyperbolas w₁w₂ = target ± √(2·level)."""
    table: dict[str, list] = {"w1": [], "w2": [], "branch": [], "kind": []}
    for root in (0.0, 0.5, 1.0, 1.5, 2.0, -0.5, -1.0, -1.5, -2.0):
        constant = target + root
        for sign in (1, -1):
            for k in range(25):
                w1 = sign * 0.2 * 10 ** (k / 24 * math.log10(10))
                if abs(constant / w1) <= 2:
                    table["w1"].append(w1)
                    table["w2"].append(constant / w1)
                    table["branch"].append(f"{root}{sign}")
                    table["kind"].append("minimum" if root == 0 else "level")
    return table
