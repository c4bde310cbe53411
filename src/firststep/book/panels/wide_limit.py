"""The explorable of the wide limit: the spectrum of one chain on the predicted curve."""

import functools
import math
from collections.abc import Callable

import altair as alt
import torch
from torch import Tensor

from firststep import checks, inits, scale, wide
from firststep.book.explore import Control, Explorable, Outcome, vega_theme
from firststep.book.figures import COLORS, VEGA_INK
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
    chain = Chain(gamma, law, normalization)
    found = depth_average(
        chain,
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


def simulate_wide_limit(gamma: str, d: int, law: str, setting: str) -> Outcome:
    """The spectrum of M in units of √d, averaged over the layers of a chain, against the law of the wide limit.

    Args:
        gamma: residual strength, a key of ``STRENGTHS``.
        d: width, from 4 to 128.
        law: of the weights, a key of :data:`firststep.chain.LAWS`.
        setting: a key of ``SETTINGS``.

    Raises:
        ValueError: an unknown word, or a width outside its range.
    """
    checks.one_of("gamma", gamma, STRENGTHS)
    checks.one_of("law", law, LAWS)
    samples, normalization = SETTINGS[checks.one_of("setting", setting, SETTINGS)]
    checks.require(checks.is_integer(d) and 4 <= d <= 128, "d", d, "an integer between 4 and 128")
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
            "bars": {
                "left": [k / 10 for k in range(BINS)],
                "right": [(k + 1) / 10 for k in range(BINS)],
                "density": [min(float(v), 2.5) for v in heights],
            },
            "law": {"x": x.tolist(), "density": shown.tolist()},
        },
        prediction=f"in the wide limit the dashed law, and r = √d/{a:.3g} = {expected:.3g} up to a bounded correction",
        measurement=f"mean of r over the layers: {r:.3g}; eigenvalues above 2.2 √d: "
        f"{float(heights[22:].sum()) * 0.1 * math.sqrt(d):.2g} on average",
        verdict=verdict,
        survived=near if normal or near else None,
    )


def _chart() -> alt.LayerChart:
    x = alt.X("left:Q", title="eigenvalue of M, in units of √d", scale=alt.Scale(domain=[0, 2.6], nice=False))
    y = alt.Y("density:Q", title="density", scale=alt.Scale(domain=[0, 2.5], nice=False))
    bars = (
        alt.Chart(alt.NamedData("bars")).mark_rect(color=COLORS["blue"], opacity=0.6).encode(
            x, alt.X2("right:Q"), y, alt.Y2(datum=0)
        )
    )  # fmt: skip
    line = alt.Chart(alt.NamedData("law")).mark_line(strokeDash=[6, 4], color=VEGA_INK).encode(alt.X("x:Q"), y)
    return vega_theme(alt.layer(bars, line).properties(width=520, height=240))


def wide_limit() -> Explorable:
    """γ, width, law of the weights and number of samples against the predicted law of the spectrum."""
    return Explorable(
        name="wide-limit",
        claim="rank_collapse.wide_limit",
        task="Move the bars away from the dashed curve: with another strength of the skip connection, other weights, a "
        "small width, fewer samples than the plateau holds, or without normalization.",
        controls=(
            Control("gamma", "strength γ of the random branch", tuple(STRENGTHS), "∞"),
            Control("d", "width d", WIDTHS, 128),
            Control("law", "weights", tuple(LAWS), "gaussian"),
            Control("setting", "setting", tuple(SETTINGS), "N = 3√d"),
        ),
        simulate=simulate_wide_limit,
        chart=_chart(),
        presets={
            "a weak branch": {"gamma": "1/(2√d)"},
            "few samples": {"setting": "N = √d"},
            "break it": {"setting": "no batch norm"},
        },
    )


PANELS: dict[str, Callable[[], Explorable]] = {"wide_limit": wide_limit}
