"""The panel on the plateau of the rank of a product."""

import math

import altair as alt
import torch

from firststep import inits, linear
from firststep.book.charts import axis, level, line, plot, themed
from firststep.book.explore import Control, Outcome, explorable

WIDTHS = (20, 16, 12)
PLATEAU_STEP = 0.2
START_SIZE = 0.5  # of Xavier's size: low-rank factors of that size are steep, and this step would diverge
MAX_STEPS = 20_000
DTYPES = {"float32": torch.float32, "float64": torch.float64, "projected float64": torch.float64}


_ITERATION = axis("iteration", "iteration", scale="sqrt")


@explorable(
    claim="full_rank.plateau",
    task="Choose factor ranks and try to lift the rank of the product above the dashed bound. "
    "You cannot, until you give round-off enough time.",
    chart=themed(
        alt.vconcat(
            plot(
                _ITERATION,
                axis("rank", "numerical rank", domain=(0, 12.5)),
                line("rank", "blue", dots=True, steps=True),
                level("bound"),
                height=170,
            ),
            plot(
                _ITERATION,
                axis("ratio", "forbidden σ / σ₁", scale="log", domain=(1e-20, 1), ticks=(1e-16, 1e-8, 1)),
                line("forbidden", "vermilion", dots=True),
                level("threshold", dash=(2, 3)),
                height=110,
            ),
        ).resolve_scale(x="shared")
    ),
    presets={"until round-off": {"iterations": 400}, "rank one and rank one": {"rank_1": 1, "rank_2": 1}},
    rank_1=Control("rank of W₁", (1, 2, 3, 4, 5, 6), 3, low=1, high=16),
    rank_2=Control("rank of W₂", (1, 2, 3, 4, 5, 6), 3, low=1, high=12),
    factors=Control("factors", ("unaligned", "aligned"), "unaligned"),
    arithmetic=Control("arithmetic", tuple(DTYPES), "float64"),
    iterations=Control("iterations", (10, 50, 100, 200, 400), 50, low=0, high=MAX_STEPS),
)
def plateau(rank_1: int, rank_2: int, factors: str, arithmetic: str, iterations: int) -> Outcome:
    """Gradient descent on 20·16·12 from factors of ranks ``rank_1`` and ``rank_2``: where does the product's rank stop?

    Args:
        rank_1: rank of the 16 × 20 factor W_1.
        rank_2: rank of the 12 × 16 factor W_2.
        factors: ``unaligned`` (general position) or ``aligned`` (W_2 reads where W_1 writes).
        arithmetic: ``float32``, ``float64``, or ``projected float64``, which puts every step back onto the
            subspace that exact arithmetic never leaves.
        iterations: number of steps, of size 0.2.
    """
    dtype = DTYPES[arithmetic]
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
