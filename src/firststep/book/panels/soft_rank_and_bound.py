"""The panel on the soft rank of deep chains against the bound of Theorem 2."""

import functools
import math

import torch
from torch import Tensor

from firststep import inits
from firststep.book.charts import axis, chart, level, line
from firststep.book.explore import Control, Outcome, explorable
from firststep.chain import Chain, State, batch_norm, follow

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


@explorable(
    claim="rank_collapse.theorem2",
    task="Push the average soft rank (blue, with dots) below the dashed bound. Orange is the average stable rank. "
    "Drop an assumption where nothing else helps, and choose τ so that the bound says something.",
    chart=chart(
        axis("depth", "layers averaged over", scale="log", form="d"),
        axis("average", "average over depth"),
        line("stable", "orange"),
        line("soft", "blue", dots=True),
        level("bound"),
    ),
    presets={"rank-one inputs": {"setting": "rank-one inputs"}, "no batch norm": {"setting": "no batch norm"}},
    gamma=Control("residual strength γ", tuple(STRENGTHS), "1"),
    d=Control("width d", (4, 8, 16, 32), 32, low=2, high=64),
    depth=Control("depth", (10, 100, 1_000), 100, log=True, low=1, high=LAYERS),
    tau=Control("threshold τ", (0.01, 0.1, 0.3, 0.5), 0.1, low=0, high=0.999),
    setting=Control("setting", tuple(SETTINGS), "Gaussian inputs"),
)
def soft_rank_and_bound(gamma: str, d: int, depth: int, tau: float, setting: str) -> Outcome:
    """One chain of width d: the soft rank, averaged over the layers so far, against the bound of Theorem 2.

    Args:
        gamma: residual strength, a key of ``STRENGTHS``.
        d: width, from 2 to 64, and number of samples.
        depth: layers averaged over, at most ``LAYERS``.
        tau: threshold of the soft rank, in [0, 1).
        setting: a key of ``SETTINGS``.
    """
    strength = STRENGTHS[gamma]
    inputs, normalization = SETTINGS[setting]
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
