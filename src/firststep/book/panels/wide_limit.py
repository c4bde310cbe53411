"""The explorable of the wide limit: the spectrum of one chain on the predicted curve."""

import functools
import math

import torch
from torch import Tensor

from firststep import inits, scale, wide
from firststep.book.charts import axis, chart, line, theory
from firststep.book.explore import Control, Outcome, explorable
from firststep.chain import LAWS, Chain, batch_norm, depth_average

STRENGTHS = {"∞": math.inf, "1": 1.0, "0.1": 0.1, "1/(2√d)": None}  # the last depends on the width
SETTINGS = {"N = 3√d": (3.0, "rows"), "N = √d": (1.0, "rows"), "no batch norm": (3.0, "frobenius")}
WIDTHS = (16, 64, 128)
SEEDS = 2
BINS = 26  # of width 0.1, up to 2.6
NEAR = 2.0  # r may differ from its prediction by so much


@functools.cache
def spectrum(gamma: float, d: int, law: str, setting: str) -> tuple[Tensor, float]:
    """Density of the eigenvalues of M/√d over bins, averaged over stationary layers, and the mean of r."""
    samples, normalization = SETTINGS[setting]
    n = max(2, round(samples * math.sqrt(d)))
    generators = inits.generators(SEEDS)
    x = torch.stack([torch.randn(d, n, generator=g, dtype=torch.float64, device=g.device) for g in generators])
    slow = 1 / wide.rate(gamma, d)
    every = max(1, math.isqrt(d) // 3)
    levels = torch.arange(BINS + 1, dtype=torch.float64, device=x.device) / 10 * math.sqrt(d)
    levels[0] = 1e-9  # what is below is round-off of the d − N eigenvalues that vanish

    def reached(state):
        return (state.eigenvalues[:, None, :] >= levels[:, None]).sum(-1)

    measure = {"reached": reached, "r": lambda state: state.stable_rank()}
    layers = round(24 * math.sqrt(d) * slow / every) * every
    burn_in = round(10 * math.sqrt(d) * slow)
    layer = Chain(gamma, law, normalization)
    found = depth_average(
        layer,
        batch_norm(x),
        depth=layers,
        generator=generators,
        measure=measure,
        every=every,
        burn_in=burn_in,
        blocks=1,
    )
    above = found.mean("reached")
    return (above[:-1] - above[1:]) / (0.1 * math.sqrt(d)), float(found.mean("r"))


@explorable(
    claim="rank_collapse.wide_limit",
    task="Move the blue staircase away from the dashed curve: with another strength of the skip connection, other "
    "weights, a small width, fewer samples than the plateau holds, or without normalization.",
    chart=chart(
        axis("x", "eigenvalue of M, in units of √d", domain=[0, 2.6]),
        axis("density", "density", domain=[0, 2.5]),
        line("measured", "blue", steps=True),
        theory("law"),
    ),
    presets={
        "a weak branch": {"gamma": "1/(2√d)"},
        "few samples": {"setting": "N = √d"},
        "break it": {"setting": "no batch norm"},
    },
    gamma=Control("strength γ of the random branch", tuple(STRENGTHS), "∞"),
    d=Control("width d", WIDTHS, 128, low=4, high=128),
    law=Control("weights", tuple(LAWS), "gaussian"),
    setting=Control("setting", tuple(SETTINGS), "N = 3√d"),
)
def wide_limit(gamma: str, d: int, law: str, setting: str) -> Outcome:
    """The spectrum of M in units of √d, averaged over the layers of a chain, against the law of the wide limit."""
    samples, normalization = SETTINGS[setting]
    strength = STRENGTHS[gamma] or 0.5 / math.sqrt(d)
    heights, r = spectrum(strength, d, law, setting)
    a = wide.centre(samples)
    expected = math.sqrt(d) / a
    x = torch.linspace(0.02, 2.6, 130, dtype=torch.float64, device=scale.device())
    curve = wide.density(x, a)
    shown = curve.clamp_max(2.5)
    normal = normalization == "rows"
    near = abs(r - expected) <= NEAR
    if normal:
        verdict = f"r stays near {expected:.3g}." if near else f"r is more than {NEAR:g} away from {expected:.3g}."
    else:
        verdict = "Without batch normalization there is no such law: r goes to one."
    return Outcome(
        tables={
            "measured": {
                "x": [k / 10 for k in range(BINS + 1)],
                "density": [min(float(v), 2.5) for v in (*heights, heights[-1])],
            },
            "law": {"x": x.tolist(), "density": shown.tolist()},
        },
        prediction=f"in the wide limit the dashed law, and r = √d/{a:.3g} = {expected:.3g} up to a bounded correction",
        measurement=f"mean of r over the layers: {r:.3g}; eigenvalues above 2.2 √d: "
        f"{float(heights[22:].sum()) * 0.1 * math.sqrt(d):.2g} on average",
        verdict=verdict,
        survived=near if normal or near else None,
    )
