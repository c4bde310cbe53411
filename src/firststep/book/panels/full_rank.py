"""Explorables of the chapter on full-rank initialization."""

import math

import altair as alt
import torch

from firststep import checks, inits, linear
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK

# Small enough that a thousand runs take seconds at build time.
WIDTHS = (20, 16, 12)
PLATEAU_STEP = 0.2
START_SIZE = 0.5  # of Xavier's size: low-rank factors of that size are steep, and this step would diverge
MAX_STEPS = 20_000
DTYPES = {"float32": torch.float32, "float64": torch.float64, "projected float64": torch.float64}


def simulate_plateau(rank_1: int, rank_2: int, factors: str, arithmetic: str, iterations: int) -> Outcome:
    """Gradient descent on 20·16·12 from factors of ranks ``rank_1`` and ``rank_2``: where does the product's rank stop?

    Args:
        rank_1: rank of the 16 × 20 factor W_1.
        rank_2: rank of the 12 × 16 factor W_2.
        factors: ``unaligned`` (general position) or ``aligned`` (W_2 reads where W_1 writes).
        arithmetic: ``float32``, ``float64``, or ``projected float64``, which puts every step back onto the
            subspace that exact arithmetic never leaves.
        iterations: number of steps, of size 0.2.

    Raises:
        ValueError: a rank that the shape does not allow, an unknown word, or more than 20,000 iterations.
    """
    checks.one_of("factors", factors, ("aligned", "unaligned"))
    dtype = DTYPES[checks.one_of("arithmetic", arithmetic, DTYPES)]
    good = checks.is_integer(iterations) and 0 <= iterations <= MAX_STEPS
    checks.require(good, "iterations", iterations, f"an integer between 0 and {MAX_STEPS}")
    start = inits.prescribed_rank(WIDTHS, (rank_1, rank_2), aligned=factors == "aligned", generator=inits.generator(1))
    bound = int(linear.reachable_rank(start, rtol=1e-9))
    weights = [START_SIZE * w.to(dtype) for w in start]
    steps = sorted({round(iterations * (k / 40) ** 2) for k in range(41)})
    run = linear.gradient_descent(
        weights,
        linear.Moments.whitened(_target().to(dtype)),
        step_size=PLATEAU_STEP,
        steps=iterations,
        measure={"product": linear.product},
        every=steps,
        constrain=linear.project_onto_reachable(start, rtol=1e-9) if arithmetic.startswith("projected") else None,
    )
    sigma = torch.linalg.svdvals(run["product"])
    threshold = max(run["product"].shape[-2:]) * torch.finfo(dtype).eps
    ranks = (sigma > threshold * sigma[:, :1]).sum(-1).tolist()
    forbidden = (sigma[:, bound] / sigma[:, 0]).tolist() if bound < sigma.shape[-1] else [math.nan] * len(ranks)
    above = [step for step, rank in zip(steps, ranks, strict=True) if rank > bound]
    return Outcome(
        tables={
            "rank": {"iteration": steps, "rank": ranks},
            "bound": {"rank": [bound]},
            "forbidden": {
                "iteration": [s for s, f in zip(steps, forbidden, strict=True) if f > 0],
                "ratio": [f for f in forbidden if f > 0],
            },
            "threshold": {"ratio": [threshold]},
        },
        prediction=f"rank at most {bound} = min(12, dim(col W₁ + row W₂)), for ever",
        measurement=f"rank {ranks[0]} at the start, {ranks[-1]} after {iterations} steps in {arithmetic}",
        verdict=(
            f"Round-off has left the plateau: rank {max(ranks)} by step {above[0]}. Exact arithmetic never would."
            if above
            else "The theorem holds so far."
        ),
        survived=not above,
    )


def _target() -> torch.Tensor:
    """A fixed 12 × 20 target with singular values from 1.5 down to 0.5."""
    generator = inits.generator(7)
    left = inits.matrix("orthogonal", 12, 12, generator=generator)
    right = inits.matrix("orthogonal", 12, 20, generator=generator)
    return left * torch.linspace(1.5, 0.5, 12, dtype=torch.float64, device=left.device) @ right


def _plateau_chart() -> alt.VConcatChart:
    iteration = alt.X("iteration:Q", title="iteration", scale=alt.Scale(type="sqrt"))
    rank = alt.Y("rank:Q", title="numerical rank", scale=alt.Scale(domain=[0, 12.5]))
    ratio = alt.Y(
        "ratio:Q",
        title="forbidden σ / σ₁",
        scale=alt.Scale(type="log", domain=[1e-20, 1]),
        axis=alt.Axis(values=[1e-16, 1e-8, 1], format=".0e"),
    )
    measured = alt.Chart(alt.NamedData("rank")).mark_line(interpolate="step-after", point=True, color=COLORS["blue"])
    bound = alt.Chart(alt.NamedData("bound")).mark_rule(strokeDash=[6, 4], color=VEGA_INK)
    forbidden = alt.Chart(alt.NamedData("forbidden")).mark_line(point=True, color=COLORS["vermilion"])
    threshold = alt.Chart(alt.NamedData("threshold")).mark_rule(strokeDash=[2, 3], color=VEGA_INK)
    size = {"width": 520}
    upper = (measured.encode(iteration, rank) + bound.encode(y="rank:Q")).properties(height=170, **size)
    lower = (forbidden.encode(iteration, ratio) + threshold.encode(y="ratio:Q")).properties(height=110, **size)
    return vega_theme(alt.vconcat(upper, lower).resolve_scale(x="shared"))


def plateau() -> Explorable:
    """Factor ranks, alignment, arithmetic and time against the plateau of the product's rank."""
    return Explorable(
        name="plateau",
        claim="full_rank.plateau",
        task="Choose factor ranks and try to lift the rank of the product above the dashed bound. "
        "You cannot, until you give round-off enough time.",
        controls=(
            Control("rank_1", "rank of W₁", (1, 2, 3, 4, 5, 6), 3),
            Control("rank_2", "rank of W₂", (1, 2, 3, 4, 5, 6), 3),
            Control("iterations", "iterations", (10, 50, 100, 200, 400), 50),
            Control("factors", "factors", ("unaligned", "aligned"), "unaligned"),
            Control("arithmetic", "arithmetic", tuple(DTYPES), "float64"),
        ),
        presets={"until round-off": {"iterations": 400}, "rank one and rank one": {"rank_1": 1, "rank_2": 1}},
        simulate=simulate_plateau,
        chart=_plateau_chart(),
    )


def simulate_scalar_pair(w1: float, w2: float, step_size: float, target: int) -> Outcome:
    """Gradient descent on ½(w₁w₂ − target)² from (w1, w2): which critical point does it reach?

    Args:
        w1: start of the inner weight.
        w2: start of the outer weight.
        step_size: η > 0.
        target: 1 or −1.

    Raises:
        ValueError: η is not positive, a start is not finite, or the target is neither 1 nor −1.
    """
    checks.number("w1", w1)
    checks.number("w2", w2)
    checks.number("step_size", step_size, above=0, allowed="a positive number")
    checks.require(checks.is_integer(target) and target in (1, -1), "target", target, "1 or -1")
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


def _pair_chart() -> alt.LayerChart:
    window = alt.Scale(domain=[-2, 2], nice=False)
    x, y = alt.X("w1:Q", title="w₁", scale=window), alt.Y("w2:Q", title="w₂", scale=window)
    kinds = ["minimum", "level"]
    color = alt.Scale(domain=kinds, range=[COLORS["green"], "#9a9a9a"])
    thickness = alt.Scale(domain=kinds, range=[2.6, 0.7])
    levels = (
        alt.Chart(alt.NamedData("levels"))
        .mark_line(clip=True)
        .encode(
            x,
            y,
            detail="branch:N",
            color=alt.Color("kind:N", legend=None, scale=color),
            strokeWidth=alt.StrokeWidth("kind:N", legend=None, scale=thickness),
        )
    )
    path = alt.Chart(alt.NamedData("path")).encode(x, y, order="step:Q")
    line = path.mark_line(
        clip=True, color=COLORS["vermilion"], point={"filled": True, "size": 22, "color": COLORS["vermilion"]}
    )
    start = path.transform_filter("datum.step == 0").mark_point(clip=True, filled=True, size=120, color=COLORS["blue"])
    saddle = (
        alt.Chart(alt.Data(values=[{"w1": 0, "w2": 0}]))
        .mark_point(shape="cross", size=110, color=VEGA_INK)
        .encode(x, y)
    )
    return vega_theme(alt.layer(levels, saddle, line, start).properties(width=360, height=360))


def scalar_pair() -> Explorable:
    """The start (w₁, w₂), the step size and the sign of the target against the critical point that is reached."""
    starts = tuple(k / 4 for k in range(-6, 7))
    return Explorable(
        name="scalar-pair",
        claim="full_rank.claim2",
        task="Find a start of full rank (w₁w₂ ≠ 0) from which gradient descent converges to the saddle, "
        "marked by a cross, and not to a minimum, the green curve.",
        controls=(
            Control("w1", "start w₁", starts, 1.0),
            Control("w2", "start w₂", starts, 0.5),
            Control("step_size", "step size η", (0.02, 0.1, 0.5, 1.0), 0.1, log=True),
            Control("target", "target", (-1, 1), -1),
        ),
        presets={"(1, 1): full rank": {"w1": 1.0, "w2": 1.0}, "(1, 0): rank zero": {"w1": 1.0, "w2": 0.0}},
        simulate=simulate_scalar_pair,
        chart=_pair_chart(),
    )


PANELS = {"plateau": plateau, "scalar_pair": scalar_pair}
