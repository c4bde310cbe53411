"""Explorables of the chapter on rank collapse."""

import functools
import math
from collections.abc import Callable

import altair as alt
import torch
from torch import Tensor

from firststep import checks, inits, scale
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK
from firststep.chain import LAWS, Chain, State, batch_norm, follow
from firststep.lyapunov import lyapunov_exponents

# Of dtype and tolerance
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


def simulate_dtype_and_tolerance(chain: str, dtype: str, log_tolerance: float, depth: int) -> Outcome:
    """How many singular values of a linear chain of width 16 are above a tolerance?

    Args:
        chain: a key of ``CHAINS``.
        dtype: ``float32`` or ``float64``.
        log_tolerance: log₁₀ of the tolerance relative to σ_1, below 0.
        depth: number of layers, from 1 to 2,000.

    Raises:
        ValueError: an argument that is not allowed.
    """
    checks.one_of("chain", chain, CHAINS)
    checks.one_of("dtype", dtype, DTYPES)
    checks.require(checks.number("log_tolerance", log_tolerance) < 0, "log_tolerance", log_tolerance, "below 0")
    good = checks.positive_integer("depth", depth) <= DEEPEST
    checks.require(good, "depth", depth, f"from 1 to {DEEPEST}")
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
            "tolerance": {"level": [log_tolerance]},
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


def _spectrum_chart() -> alt.LayerChart:
    x = alt.X("i:Q", title="i", scale=alt.Scale(domain=[0.5, WIDTH + 0.5], nice=False))
    y = alt.Y("value:Q", title="log₁₀ of σᵢ/σ₁", scale=alt.Scale(domain=[FLOOR, 0.5], nice=False))
    points = alt.Chart(alt.NamedData("values")).mark_point(filled=True, size=24, color=COLORS["blue"]).encode(x, y)
    line = alt.Chart(alt.NamedData("predicted")).mark_line(strokeDash=[6, 4], color=VEGA_INK).encode(x, y)
    rule = alt.Chart(alt.NamedData("tolerance")).mark_rule(color=COLORS["vermilion"], strokeWidth=2).encode(y="level:Q")
    return vega_theme(alt.layer(line, points, rule).properties(width=520, height=250))


def dtype_and_tolerance() -> Explorable:
    """Normalization, dtype, tolerance and depth against the number of singular values that count."""
    return Explorable(
        name="rank-dtype-and-tolerance",
        claim="rank_collapse.exact_rank",
        task="Make the rank of one and the same network anything from 1 to 16 by moving the red tolerance. Then find "
        "out which depth each dtype can still be trusted at.",
        controls=(
            Control("chain", "chain", tuple(CHAINS), "plain"),
            Control("dtype", "arithmetic", tuple(DTYPES), "float32"),
            Control("log_tolerance", "log₁₀ of the tolerance", LOG_TOLERANCES, -5.0),
            Control("depth", "depth", DEPTHS, 100),
        ),
        simulate=simulate_dtype_and_tolerance,
        chart=_spectrum_chart(),
    )


# Of the soft rank and of collinear inputs
STRENGTHS = {"0": 0.0, "0.1": 0.1, "1": 1.0, "∞": math.inf}  # γ; JSON has no infinity
SETTINGS = {  # number of samples relative to the width, and normalization
    "Gaussian inputs": ("full", "rows"),
    "rank-one inputs": ("one", "rows"),
    "no batch norm": ("full", "frobenius"),
}
LAYERS = 1_000


@functools.cache
def _run(gamma: float, d: int, inputs: str, normalization: str) -> tuple[Tensor, float]:
    """Eigenvalues of M after each of ``LAYERS`` layers, ``(LAYERS + 1, d)``; and the α of the second half.

    One sample keeps a rank-one state exactly: with several, round-off would free them within a few layers.
    """
    g = inits.generator(0)
    x = torch.randn(d, 1 if inputs == "one" else d, generator=g, dtype=torch.float64, device=g.device)
    x = batch_norm(x)
    measure = {"spectrum": lambda state: state.eigenvalues, "terms": State.regularity_terms}
    layers = Chain(gamma, normalization=normalization)
    found = follow(layers, x, generator=g, measure=measure, at=range(LAYERS + 1))
    rows, cubes = found["terms"][LAYERS // 2 :, 0].mean(0).tolist()
    return found["spectrum"][:, 0].clamp_min(0), rows / cubes


def simulate_soft_rank(gamma: str, d: int, depth: int, tau: float, setting: str) -> Outcome:
    """One chain of width d: the soft rank, averaged over the layers so far, against the bound of Theorem 2.

    Args:
        gamma: residual strength, a key of ``STRENGTHS``.
        d: width, from 2 to 64, and number of samples.
        depth: layers averaged over, at most ``LAYERS``.
        tau: threshold of the soft rank, in [0, 1).
        setting: a key of ``SETTINGS``.

    Raises:
        ValueError: an unknown word, or a number outside its range.
    """
    strength = STRENGTHS[checks.one_of("gamma", gamma, STRENGTHS)]
    inputs, normalization = SETTINGS[checks.one_of("setting", setting, SETTINGS)]
    checks.require(checks.is_integer(d) and 2 <= d <= 64, "d", d, "an integer between 2 and 64")
    good = checks.is_integer(depth) and 1 <= depth <= LAYERS
    checks.require(good, "depth", depth, f"an integer between 1 and {LAYERS}")
    checks.require(0 <= checks.number("tau", tau) < 1, "tau", tau, "in [0, 1)")
    # α belongs to the invariant law: that of Gaussian inputs; γ = 0 has none of its own and borrows the smallest γ.
    alpha = _run(strength or 0.1, d, "full", "rows")[1]
    bound = (1 - tau) ** 2 * math.sqrt(max(0.0, 1 - alpha) * d)
    spectrum = _run(strength, d, inputs, normalization)[0][1 : depth + 1]
    layers = torch.arange(1, depth + 1, device=spectrum.device)
    soft = (spectrum >= tau).sum(1).cumsum(0) / layers
    stable = (spectrum.sum(1).square() / spectrum.square().sum(1)).cumsum(0) / layers
    shown = sorted({round(depth ** (k / 24)) for k in range(25)})
    dropped = {"rank-one inputs": "inputs of full rank", "no batch norm": "batch normalization"}.get(setting)
    dropped = dropped or ("a random branch" if strength == 0 else None)
    end = float(soft[-1])
    return Outcome(
        tables={
            "soft": {"depth": shown, "average": [float(soft[k - 1]) for k in shown]},
            "stable": {"depth": shown, "average": [float(stable[k - 1]) for k in shown]},
            "bound": {"average": [bound]},
        },
        prediction=(
            f"the average of rank_τ tends to at least (1−τ)²√((1−α)d) = {bound:.3g}, with α = {alpha:.3g}"
            + (f"; but the theorem asks for {dropped}" if dropped else "")
        ),
        measurement=f"average over {depth} layers: rank_τ {end:.3g}, stable rank {float(stable[-1]):.3g}",
        verdict=_soft_rank_verdict(end >= bound, bound, dropped),
        survived=None if dropped and end >= bound else end >= bound,
    )


def _soft_rank_verdict(above: bool, bound: float, dropped: str | None) -> str:
    if not above:
        return f"The bound fails{f': it needs {dropped}' if dropped else ' at this depth'}."
    if dropped:
        return f"The bound happens to hold, though the theorem promises nothing without {dropped}."
    if bound <= 1:
        return "The bound holds, but says nothing: batch normalization alone keeps rank_τ at one or more."
    return "The bound holds."


def _soft_rank_chart() -> alt.LayerChart:
    x = alt.X("depth:Q", title="layers averaged over", scale=alt.Scale(type="log"))
    y = alt.Y("average:Q", title="average over depth", scale=alt.Scale(domainMin=0))
    soft = alt.Chart(alt.NamedData("soft")).mark_line(point=True, color=COLORS["blue"]).encode(x, y)
    stable = alt.Chart(alt.NamedData("stable")).mark_line(color=COLORS["orange"]).encode(x, y)
    bound = alt.Chart(alt.NamedData("bound")).mark_rule(strokeDash=[6, 4], color=VEGA_INK).encode(y="average:Q")
    return vega_theme(alt.layer(stable, soft, bound).properties(width=520, height=240))


def soft_rank_and_bound() -> Explorable:
    """γ, width, depth, τ and the theorem's assumptions against the depth average of the soft rank and its bound."""
    return Explorable(
        name="soft-rank-and-bound",
        claim="rank_collapse.theorem2",
        task="Push the average soft rank (blue, with dots) below the dashed bound. Orange is the average stable rank. "
        "Drop an assumption where nothing else helps, and choose τ so that the bound says something.",
        controls=(
            Control("gamma", "residual strength γ", tuple(STRENGTHS), "1"),
            Control("d", "width d", (4, 8, 16, 32), 32),
            Control("depth", "depth", (10, 100, 1_000), 100, log=True),
            Control("tau", "threshold τ", (0.01, 0.1, 0.3, 0.5), 0.1),
            Control("setting", "setting", tuple(SETTINGS), "Gaussian inputs"),
        ),
        simulate=simulate_soft_rank,
        chart=_soft_rank_chart(),
    )


PANELS: dict[str, Callable[[], Explorable]] = {
    "dtype_and_tolerance": dtype_and_tolerance,
    "soft_rank_and_bound": soft_rank_and_bound,
}
