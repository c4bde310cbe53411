"""The panel on depth and step size of zero-asymmetric starts."""

import math

import torch

from firststep import step_counts, zas
from firststep.book.charts import axis, chart, level, line
from firststep.book.explore import Control, Outcome, explorable

MOST_ITERATIONS = 3_000  # of ZAS, at each of some hundred points of the grid
FLOOR = 1e-14  # where a loss of zero is drawn
TOLERANCE = 1e-10  # the paper's, for Figure 2
DEPTHS = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000)
LOG_STEPS = (-5.0, -4.0, -3.0, -2.5, -2.0, -1.5, -1.0, -0.7, -0.5, -0.3, -0.1, -0.01, -0.001, 0.0, 0.001, 0.1)
TARGETS = {"−I": (1.0,), "singular values ½, 1, 2": (0.5, 1.0, 2.0)}


@explorable(
    claim="zero_asymmetric.one_step",
    task="Find a depth or a target that ZAS does not solve in a single step at η = 1 (the exponent 0). "
    "Then move the step size a little.",
    chart=chart(
        axis("iteration", "iteration (the first 200)", scale="symlog", domain=(0, 200)),
        axis("loss", "loss", scale="log", domain=(FLOOR, 1e4), ticks=(1e-14, 1e-10, 1e-6, 1e-2, 1e2)),
        line("loss", "blue", dots=True),
        level("line"),
    ),
    presets={"deepest": {"depth": DEPTHS[-1]}, "a step of one per cent": {"log_step": -2.0, "depth": 10}},
    log_step=Control("log₁₀ of the step size", LOG_STEPS, 0.0, low=-8, high=1),
    depth=Control("depth L", DEPTHS, 100, low=1, high=1_000_000),
    target=Control("target", tuple(TARGETS), "−I"),
)
def zas_depth_and_step(log_step: float, depth: int, target: str) -> Outcome:
    """ZAS at one step size and one depth: how many iterations to a loss of 1e-10?

    Args:
        log_step: log₁₀ of the step size.
        depth: number of layers, at most 1,000,000.
        target: a key of ``TARGETS``.
    """
    # The recursion steps and counts in numpy, so it starts on the CPU.
    s = torch.tensor(TARGETS[target], dtype=torch.float64, device="cpu")
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
