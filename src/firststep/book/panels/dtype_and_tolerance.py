"""The panel on what rank a dtype and a tolerance see in a deep chain."""

import functools
import math

import torch
from torch import Tensor

from firststep import checks, inits, scale
from firststep.book.charts import axis, chart, level, points, theory
from firststep.book.explore import Control, Outcome, explorable
from firststep.chain import LAWS, Chain
from firststep.lyapunov import lyapunov_exponents

WIDTH = 16
SEEDS = 3
DEEPEST = 2_000
FLOOR = -20.0  # where the chart ends; round-off ends at −16
CHAINS = {
    "plain": Chain(normalization="frobenius"),
    "plain, skips with γ = ¼": Chain(0.25, normalization="frobenius"),
    "batch norm": Chain(),
}
DTYPES = {"float32": torch.float32, "float64": torch.float64}
DEPTHS = (1, 5, 10, 20, 50, 100, 200, 400, 600, 800, 1_000, 1_500, 2_000)
LOG_TOLERANCES = (-14.0, -12.0, -10.0, -8.0, -6.0, -5.0, -4.0, -2.0, -1.0)


@functools.cache
def _weights() -> Tensor:
    """One set of weights for every chain and dtype, ``(DEEPEST, SEEDS, WIDTH, WIDTH)``, float64."""
    shape = (DEEPEST, WIDTH, WIDTH)
    empty = functools.partial(torch.empty, shape, dtype=torch.float64)
    return torch.stack([LAWS["gaussian"](empty(device=g.device), g) for g in inits.generators(SEEDS)], 1)


@functools.cache
def relative_spectra(chain: str, dtype: str) -> Tensor:
    """σ_i/σ_1 of the representations of an orthonormal batch after 1, 2, … layers, ``(DEEPEST, SEEDS, WIDTH)``."""
    weights, states = _weights().to(DTYPES[dtype]), []
    h = torch.eye(WIDTH, dtype=DTYPES[dtype], device=weights.device).expand(SEEDS, WIDTH, WIDTH)
    for weight in weights:
        h = CHAINS[chain].layer(weight, h)
        states.append(h)
    sigma = torch.linalg.svdvals(torch.stack(states)).double()
    return sigma / sigma[..., :1]


@functools.cache
def no_factor_is_singular(chain: str) -> Tensor:
    """Whether every factor I + γW_l, or W_l, up to a depth has a finite log|det|: ``(DEEPEST,)``."""
    eye = torch.eye(WIDTH, dtype=torch.float64, device=scale.device()).expand(SEEDS, WIDTH, WIDTH)
    factors = torch.stack([CHAINS[chain].branch(weight, eye) for weight in _weights()])
    return torch.linalg.slogdet(factors).logabsdet.isfinite().all(-1).cummin(0).values


@functools.cache
def gaps(chain: str) -> tuple[Tensor, Tensor]:
    """λ_1 − λ_i, and the size of its fluctuation in one layer, ``(WIDTH,)`` each, from other seeds."""
    blocks, depth = 20, 2_000
    g = inits.generators(range(1_000, 1_000 + SEEDS))
    x = torch.eye(WIDTH, dtype=torch.float64, device=scale.device())
    found = lyapunov_exponents(CHAINS[chain], x, depth=depth, generator=g, burn_in=1_000, blocks=blocks).flatten(0, 1)
    behind = found[:, :1] - found
    return behind.mean(0), behind.std(0) * (depth / blocks) ** 0.5


def predicted_ranks(chain: str, dtype: str, log_tolerance: float, depth: int) -> tuple[int, int]:
    """Fewest and most singular values above the tolerance, at three standard deviations of their random walk.

    Every layer rounds, and a direction that barely decays lifts round-off for a while: within two decades of it one
    more may count.

    Raises:
        ValueError: unknown chain or dtype, or a depth that is no positive integer.
    """
    checks.one_of("chain", chain, CHAINS)
    eps = torch.finfo(DTYPES[checks.one_of("dtype", dtype, DTYPES)]).eps
    drift, step = gaps(chain)
    fallen, spread = drift * checks.positive_integer("depth", depth), 3 * step * depth**0.5
    # Singular values start apart and fluctuate at a fixed depth: two e-foldings beside the walk.
    allowed = -log_tolerance * math.log(10)
    low = int((fallen + spread + 2 < allowed).sum())
    high = int((fallen - spread - 2 < allowed).sum())
    lifted = 10.0**log_tolerance < 100 * WIDTH * eps
    return max(1, low), min(WIDTH, high + lifted)


@explorable(
    claim="rank_collapse.exact_rank",
    task="Make the rank of one and the same network anything from 1 to 16 by moving the red tolerance. Then find "
    "out which depth each dtype can still be trusted at.",
    chart=chart(
        axis("i", "i", domain=(0.5, WIDTH + 0.5)),
        axis("value", "log₁₀ of σᵢ/σ₁", domain=(FLOOR, 0.5)),
        theory("predicted"),
        points("values", "blue", size=24),
        level("tolerance", color="vermilion"),
    ),
    presets={"below round-off": {"log_tolerance": -8.0}, "deep, batch norm": {"chain": "batch norm", "depth": 2_000}},
    chain=Control("chain", tuple(CHAINS), "plain"),
    dtype=Control("arithmetic", tuple(DTYPES), "float32"),
    log_tolerance=Control("log₁₀ of the tolerance", LOG_TOLERANCES, -5.0, high=-1e-6),
    depth=Control("depth", DEPTHS, 100, low=1, high=DEEPEST),
)
def dtype_and_tolerance(chain: str, dtype: str, log_tolerance: float, depth: int) -> Outcome:
    """How many singular values of a linear chain of width 16 are above a tolerance?

    Args:
        chain: a key of ``CHAINS``.
        dtype: ``float32`` or ``float64``.
        log_tolerance: log₁₀ of the tolerance relative to σ_1, below 0.
        depth: number of layers, from 1 to 2,000.
    """
    sigma = relative_spectra(chain, dtype)[depth - 1]
    ranks = (sigma > 10.0**log_tolerance).sum(-1)
    low, high = predicted_ranks(chain, dtype, log_tolerance, depth)
    hidden = 10.0**log_tolerance < WIDTH * torch.finfo(DTYPES[dtype]).eps
    inside = bool(((ranks >= low) & (ranks <= high)).all())
    exact = bool(no_factor_is_singular(chain)[depth - 1])
    counted = _span(int(ranks.min()), int(ranks.max()))
    verdict = f"The count follows the exponents; the exact rank is {WIDTH}." if inside else "The count left its range."
    return Outcome(
        tables={
            "values": _points(sigma),
            "predicted": _line(gaps(chain)[0], depth),
            "tolerance": {"value": [log_tolerance]},
        },
        prediction=f"exact rank {WIDTH}; from the Lyapunov exponents {_span(low, high)} above the tolerance",
        measurement=f"{counted} above 10^{log_tolerance:g} after {depth:,} layers in {dtype}; "
        + ("no factor is singular" if exact else "a factor is singular"),
        verdict="The tolerance is below the round-off of the dtype: the count means nothing." if hidden else verdict,
        survived=None if hidden else inside and exact,
    )


def _span(low: int, high: int) -> str:
    return str(low) if low == high else f"{low} to {high}"


def _points(sigma: Tensor) -> dict[str, list]:
    """log₁₀ of the relative singular values, one row a seed and index; what is below the chart sits on its edge."""
    logs = sigma.log10().clamp_min(FLOOR).tolist()
    index = list(range(1, WIDTH + 1))
    return {"i": index * len(logs), "value": [value for seed in logs for value in seed]}


def _line(drift: Tensor, depth: int) -> dict[str, list]:
    """Where the exponents put log₁₀(σ_i/σ_1), as far down as the chart goes."""
    values = (-drift * depth / math.log(10)).tolist()
    shown = [(i, value) for i, value in enumerate(values, start=1) if value >= FLOOR]
    return {"i": [i for i, _ in shown], "value": [value for _, value in shown]}
