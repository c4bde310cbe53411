"""The panel on the sharp step size of zero-asymmetric starts."""

import torch

from firststep import zas
from firststep.book.charts import axis, chart, level, line, theory
from firststep.book.explore import Control, Outcome, explorable

MOST_STEPS = 600
FACTORS = (0.1, 0.3, 0.6, 1.0, 1.05, 1.2, 1.5, 2.0, 2.5, 4.0)
SHARE = 1e-8  # of the residual at the start: below it, it is round-off


@explorable(
    claim="zero_asymmetric.sharp_rate",
    task="At 1 the blue curve must stay below zero and above the dashed bound. Find a depth and a target where it does "
    "not. Then raise the step, and see how little room there is in deep networks.",
    chart=chart(
        axis("step", "iteration"),
        axis("residual", "residual, over s", domain=(-1, 1)),
        level("zero"),
        theory("bound"),
        line("residual", "blue", dots=True),
    ),
    presets={"two layers, large target": {"depth": 2, "norm": 10.0}, "5 % beyond": {"factor": 1.05, "depth": 10_000}},
    factor=Control("step, in units of the theorem's", FACTORS, 1.0, low=1e-3, high=10),
    depth=Control("depth L", (1, 2, 3, 5, 10, 30, 100, 1_000, 10_000), 100, low=1, high=100_000),
    norm=Control("largest singular value s", (0.1, 0.3, 1.0, 3.0, 10.0), 1.0, low=0.01, high=100),
)
def sharp_rate(factor: float, depth: int, norm: float) -> Outcome:
    """ZAS descent on one singular value: does it overshoot?

    Args:
        factor: step size over 1/(x + (L − 1)s²).
        depth: L.
        norm: s, the singular value.
    """
    u, _ = zas.solution(norm, depth)
    ours = float(zas.sharp_step_size(norm, depth))
    curvature = float(u ** (2 * (depth - 1)) + (depth - 1) * norm**2 / u**2)  # at the end of the flow
    eta, s = factor * ours, torch.tensor([norm], dtype=torch.float64, device="cpu")  # the recursion steps in numpy
    residual = (zas.recursion(s, depth=depth, step_size=eta, steps=MOST_STEPS).residual[:, 0] / norm).tolist()
    lost = next((k for k, e in enumerate(residual) if not abs(e) < 1e6), 0)
    done = next((k for k, e in enumerate(residual) if abs(e) < SHARE), 0)
    last = lost - 1 if lost else done or MOST_STEPS
    path = residual[: last + 1]
    kept = max(path) <= SHARE and all(abs(e) <= max(1 - eta, 0) ** k * (1 + 1e-9) + SHARE for k, e in enumerate(path))
    shown = sorted({round(i * last / 80) for i in range(81)})
    end = f"not there after {MOST_STEPS} steps"
    if lost or done:
        end = f"diverged at step {lost}" if lost else f"there, to {SHARE:.0e}, after {done} steps"
    over = f"overshoots by {max(path):.2g} s" if max(path) > SHARE else "no overshoot"
    return Outcome(
        tables={
            "residual": {"step": shown, "residual": [min(max(path[k], -1.0), 1.0) for k in shown]},
            "bound": {"step": shown, "residual": [-(max(1 - eta, 0.0) ** k) for k in shown]},
            "zero": {"residual": [0.0]},
        },
        prediction=f"no overshoot up to η = {ours:.3g}, nearly none up to 1/λ = {1 / curvature:.3g}; "
        f"Theorem 4.3 allows {float(zas.theorem_step_size(norm, depth)):.2g}",
        measurement=f"η = {eta:.3g}: {over}; {end}",
        verdict=("No overshoot, and inside the bound." if kept else "The theorem is broken.")
        if factor <= 1
        else "The claim is about steps up to 1.",
        survived=kept if factor <= 1 else None,
    )
