"""The panel on nearly collinear inputs."""

import functools
import math

import altair as alt
import torch
from torch import Tensor

from firststep import checks, inits
from firststep.book.charts import Axis, Layer, axis, chart, encoded, theory
from firststep.book.explore import Control, Outcome, explorable
from firststep.book.figures import COLORS
from firststep.book.panels.soft_rank_and_bound import STRENGTHS
from firststep.chain import Chain, collinear_inputs, follow
from firststep.lyapunov import lyapunov_exponents

SPREADS = ("0", "1e-12", "1e-6", "1e-3", "1")
COLLINEAR_DEPTH = 40
COLLINEAR_SEEDS = 5
DRAWN = 6  # singular values


@functools.cache
def transversal_exponent(gamma: float, d: int) -> float:
    """Growth rate λ₁ per layer of a small deviation from a rank-one state of the normalized chain.

    Args:
        gamma: γ, at least 0, or infinity.
        d: width, at least 2.

    Returns:
        From 2,000 layers by QR, Gaussian weights; for γ = ∞ its mean is ½ 𝔼 log(Σ(κᵢ − κ̄)² / d) with Cauchy κᵢ.

    Raises:
        ValueError: γ is negative, or d is no such width.
    """
    checks.require(checks.is_integer(d) and d >= 2, "d", d, "an integer of at least 2")
    g = inits.generators(4)
    x = collinear_inputs(d, 1, 0.0, generator=g)
    found = lyapunov_exponents(Chain(gamma), x, depth=500, generator=g, burn_in=40, blocks=5, qr_every=4, count=2)
    return float(found[..., 1].mean())


def _spectrum(table: str) -> Layer:
    """The largest singular values, each in a colour of its own."""
    names = [f"σ{k}" for k in range(1, DRAWN + 1)]
    color = alt.Color("index:N", title=None, scale=alt.Scale(domain=names, range=list(COLORS.values())))

    def layer(x: Axis, y: Axis) -> alt.Chart:
        return encoded(alt.Chart(alt.NamedData(table)).mark_line(clip=True), x, y, color=color)

    return layer


@explorable(
    claim="rank_collapse.fig3b",
    task="Start nearly collinear inputs so that the second singular value does not grow along the dashed line. "
    "Then start them exactly on a line (spread 0) and see what round-off does.",
    chart=chart(
        axis("depth", "depth", domain=(0, COLLINEAR_DEPTH)),
        axis("sigma", "singular value / √N", scale="log", domain=(1e-18, 10), ticks=(1e-16, 1e-12, 1e-8, 1e-4, 1)),
        _spectrum("sigma"),
        theory("growth"),
        height=280,
    ),
    presets={"exactly on a line": {"spread": "0"}, "two neurons": {"d": 2}, "no batch norm": {"normalization": "none"}},
    spread=Control("spread of the inputs", SPREADS, "1e-6"),
    d=Control("width d", (2, 3, 8, 16, 32), 16, low=2, high=64),
    gamma=Control("residual strength γ", tuple(STRENGTHS), "∞"),
    normalization=Control("normalization", ("batch norm", "none"), "batch norm"),
)
def collinearity(spread: str, d: int, gamma: str, normalization: str) -> Outcome:
    """Singular values over 40 layers from inputs near one line, the median over five seeds.

    Args:
        spread: size of the noise relative to the line, one of ``SPREADS``.
        d: width, from 2 to 64, and number of samples.
        gamma: residual strength, a key of ``STRENGTHS``.
        normalization: ``batch norm`` or ``none``, where only the total size of H is kept.
    """
    strength = STRENGTHS[gamma]
    g = inits.generators(COLLINEAR_SEEDS)
    x = collinear_inputs(d, d, float(spread), generator=g)
    layers = Chain(strength, normalization="rows" if normalization == "batch norm" else "frobenius")
    measure = {"sigma": lambda state: torch.linalg.svdvals(state.h)[..., :DRAWN] / d**0.5}
    sigma = follow(layers, x, generator=g, measure=measure, at=range(COLLINEAR_DEPTH + 1))["sigma"]
    sigma = sigma.median(1).values  # (depths, drawn)
    first, second = sigma[[0, -1], :2].T.tolist()
    rate = transversal_exponent(strength, d)
    grew = second[1] > 2 * second[0]
    dropped = "batch normalization" if normalization == "none" else "a random branch" if strength == 0 else None
    return Outcome(
        tables={"sigma": _sigma_table(sigma), "growth": _growth_table(float(spread) or 2.0**-52, rate)},
        prediction=_collinearity_prediction(spread, rate, d, strength),
        measurement=f"σ₁/√N from {first[0]:.3g} to {first[1]:.3g}, σ₂/√N from {second[0]:.2g} to {second[1]:.2g}",
        verdict=_collinearity_verdict(spread, grew, dropped),
        survived=None if spread in ("0", "1") else grew,
    )


def _collinearity_prediction(spread: str, rate: float, d: int, strength: float) -> str:
    if spread == "1":
        return "nothing about growth: these inputs are not nearly collinear"
    start = "in exact arithmetic the line is never left; round-off" if spread == "0" else "with batch norm σ₂"
    size = float(spread) or 2.0**-52
    if d == 2 and math.isinf(strength):
        return f"{start} is neutral: two rows without skip connections have λ₁ = 0"
    if rate < 1e-6:
        return f"{start} stays: without a random branch nothing moves"
    return f"{start} grows as e^({rate:.2g} ℓ) and reaches one near layer {math.log(1 / size) / rate:.0f}"


def _collinearity_verdict(spread: str, grew: bool, dropped: str | None) -> str:
    if spread == "1":
        return "No test of the claim."
    if spread == "0":
        return "No test of the claim, which asks for full rank: what grows here is round-off." if grew else (
            "The samples stay on their line, up to round-off."
        )  # fmt: skip
    if grew:
        return "The small singular values grow."
    return f"No growth: the claim needs {dropped}." if dropped else "No growth within 40 layers: λ₁ is too small here."


def _sigma_table(sigma: Tensor) -> dict[str, list]:
    """Singular values above 1e-18 of every second layer, in long form."""
    table: dict[str, list] = {"depth": [], "sigma": [], "index": []}
    for depth in range(0, len(sigma), 2):
        for index, value in enumerate(sigma[depth].tolist(), start=1):
            if value > 1e-18:
                table["depth"].append(depth)
                table["sigma"].append(value)
                table["index"].append(f"σ{index}")
    return table


def _growth_table(size: float, rate: float) -> dict[str, list]:
    """The line size · e^(rate · depth), until it reaches one or the last layer."""
    reach = math.log(1 / size) / rate if rate > 1e-6 else math.inf
    last = min(float(COLLINEAR_DEPTH), max(0.0, reach))
    return {"depth": [0.0, last], "sigma": [size, size * math.exp(rate * last)]}
