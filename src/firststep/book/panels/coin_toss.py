"""The panel on the sign of the determinant: an orthogonal start, a target, and one layer that may be out of balance."""

import torch

from firststep import flow, inits, linear, scale
from firststep.book.charts import axis, chart, level, line
from firststep.book.explore import Control, Outcome, explorable

SIDE = 3
SINGULAR_VALUES = (1.5, 1.1, 0.8)  # of the target
LONGEST = 15.0  # before the integrator's error, which breaks balance too, has grown
ARRIVED, FLOOR = 1e-6, 1e-9
SIGNS = {"the start's": 1, "the other": -1}


@explorable(
    claim="synthesis.coin_toss",
    task="Toss a start of orthogonal layers and give the target the other sign. Can it get below the dashed line? "
    "Make one layer lighter, then heavier, with two layers and with three.",
    chart=chart(
        axis("time", "time"),
        axis("excess", "excess loss", scale="log", domain=(FLOOR, 20), ticks=(1e-8, 1e-4, 1)),
        line("excess", "blue"),
        level("bound"),
    ),
    presets={
        "wrong sign, balanced": {"sign": "the other"},
        "one layer lighter": {"sign": "the other", "weight": 0.5},
        "one layer heavier": {"sign": "the other", "weight": 2.0},
    },
    seed=Control("toss", (0, 1, 2, 3), 0, low=0, high=10_000),
    depth=Control("layers", (2, 3), 3, low=2, high=6),
    sign=Control("sign of the target's determinant", tuple(SIGNS), "the other"),
    weight=Control("size of the first layer", (0.5, 0.8, 1.0, 1.25, 2.0), 1.0, low=0.1, high=4),
)
def coin_toss(seed: int, depth: int, sign: str, weight: float) -> Outcome:
    """Gradient flow from orthogonal layers, the first times ``weight``: does it reach a target of either sign?

    Args:
        seed: of the start and the target.
        depth: number of layers, from 2 to 6.
        sign: of the target's determinant against the start's: ``the start's`` or ``the other``.
        weight: size of the first layer; all others have size 1, so that 1 means balanced.
    """
    generator = inits.generator(seed)
    start = inits.network((SIDE,) * (depth + 1), "orthogonal", generator=generator)
    start[0] = weight * start[0]
    moments = linear.Moments.whitened(_target(start, SIGNS[sign], generator))
    times = torch.linspace(0, LONGEST, 61, dtype=torch.float64, device=scale.device())
    path = flow.gradient_flow(start, moments, times, rtol=1e-11, atol=1e-13).weights
    excess = linear.excess_loss(path, moments).tolist()
    bound = SINGULAR_VALUES[-1] ** 2 / 2
    shown = [(t, e) for t, e in zip(times.tolist(), excess, strict=True) if e > FLOOR]
    held = _bound_to_keep(depth, weight) and SIGNS[sign] < 0
    survived = min(excess) >= bound * (1 - 1e-6) if held else None
    return Outcome(
        tables={
            "excess": {"time": [t for t, _ in shown], "excess": [e for _, e in shown]},
            "bound": {"excess": [bound]},
        },
        prediction=_predicted(SIGNS[sign], held, bound),
        measurement=f"excess loss {excess[-1]:.3g} at time {LONGEST:g}"
        + (", the target is reached" if excess[-1] < ARRIVED else ""),
        verdict={
            True: "The theorem holds: every layer keeps the sign of its determinant.",
            False: "The bound is broken.",
            None: "The theorem says nothing here.",
        }[survived],
        survived=survived,
    )


def _bound_to_keep(depth: int, weight: float) -> bool:
    """Whether every layer is balanced with a neighbour, or heavier than one: then no determinant changes its sign."""
    return weight == 1 or (depth > 2 and weight > 1)


def _predicted(sign: int, held: bool, bound: float) -> str:
    if held:
        return f"never below {bound:.3g}: no layer can become singular"
    if sign > 0:
        return "nothing is in the way: the signs agree already"
    return "the first layer is out of balance and may pass through determinant zero"


def _target(start: linear.Weights, sign: int, generator: torch.Generator) -> torch.Tensor:
    """A target of the given singular values, whose determinant has the sign of the start's product, times ``sign``."""
    left, right = (inits.matrix("orthogonal", SIDE, SIDE, generator=generator) for _ in range(2))
    target = left * torch.tensor(SINGULAR_VALUES, dtype=torch.float64, device=generator.device) @ right
    wanted = sign * torch.linalg.det(linear.product(start)).sign()
    flip = torch.ones(SIDE, dtype=torch.float64, device=generator.device)
    flip[0] = wanted * torch.linalg.det(target).sign()
    return target * flip
