"""The panel on the rate that imbalance promises."""

import math

import torch

from firststep import flow, inits, scale, two_layer
from firststep.book.charts import axis, chart, line, theory
from firststep.book.explore import Control, Outcome, explorable

OUTPUTS, INPUTS, HIDDEN = 2, 5, 7  # small: a hundred flows take seconds at build time
LONGEST = 40.0
FLOOR = 1e-12  # below it the excess loss is the solver's error
GOAL = 1e-8


@explorable(
    claim="imbalance.rate",
    task="Try to get the blue curve above the dashed bound, or to make the bound useless: "
    "change the level, the target, and where the start points.",
    chart=chart(
        axis("time", "time"),
        axis("excess", "excess loss, relative", scale="log", domain=(FLOOR, 1.5), ticks=(1e-12, 1e-8, 1e-4, 1)),
        line("excess", "blue"),
        theory("bound"),
    ),
    presets={"balanced, towards the saddle": {"c": 0.0, "product": "against"}, "very unbalanced": {"c": 3.0}},
    c=Control("level of imbalance c", (0.0, 0.1, 0.3, 1.0, 3.0), 0.3, low=0),
    target=Control("size of the target", (0.0, 0.5, 2.0), 0.5, low=0),
    product=Control("start's product", ("along", "against", "random"), "random"),
    weakest=Control("smallest eigenvalue of the data", (0.1, 0.4, 1.0), 1.0, low=1e-6, high=1),
)
def imbalance_rate(c: float, target: float, product: str, weakest: float) -> Outcome:
    """Gradient flow of a two-layer network from a start of level ``c``: is it as fast as the theorem promises?

    Args:
        c: level of imbalance of the start, at least 0.
        target: size of the target matrix, at least 0.
        product: end-to-end matrix of the start, relative to the direction of the target: ``along``, ``against`` or
            ``random``.
        weakest: λ_r(Σ_x), the smallest eigenvalue of the data, in (0, 1]; the largest is 1.
    """
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
