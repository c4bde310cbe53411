"""Chains of a million layers and wide chains: the recorded runs of the chapter on rank collapse, and their averages."""

import math
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from firststep import chain, checks, inits, wide
from firststep.book import sweep

TAUS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
WIDTHS = (8, 16, 32, 64, 128, 256)
STRENGTHS = ("inf", 1.0, 0.1)  # γ; JSON has no infinity
MEASURES = {
    "soft_rank": lambda state: state.soft_rank(TAUS),
    "stable_rank": chain.State.stable_rank,
    "frobenius": chain.State.frobenius,
    "regularity_terms": chain.State.regularity_terms,
}


def depth_average(
    gamma: float | str, d: int, law: str, depth: int, burn_in: int, every: int, blocks: int, seed: int, dtype: str
) -> dict:
    """Depth averages of the normalized linear chain from Gaussian inputs with N = d.

    Args:
        gamma: γ, a number or ``"inf"``.
        d: width and number of samples.
        law: of the weights, a key of :data:`firststep.chain.LAWS`.
        depth: layers averaged over.
        burn_in: layers before them.
        every: layers between two measurements.
        blocks: parts of the average, for its error.
        seed: of inputs and weights.
        dtype: ``float32`` or ``float64``.

    Returns:
        ``taus``; block averages of each measure, ``(blocks,)`` or ``(blocks, …)``, as nested lists; and
        ``microseconds_per_layer``, measuring included.

    Raises:
        ValueError: as :func:`firststep.chain.depth_average`, or an unknown dtype.
    """
    kind = getattr(torch, checks.one_of("dtype", dtype, ("float32", "float64")))
    g = inits.generator(seed, device="cpu")  # recorded runs are the same on every machine
    x = torch.randn(d, d, generator=g, dtype=kind, device=g.device)
    started = time.perf_counter()
    found = chain.depth_average(
        chain.Chain(gamma=float(gamma), law=law),
        x,
        depth=depth,
        generator=g,
        measure=MEASURES,
        every=every,
        burn_in=burn_in,
        blocks=blocks,
    )
    spent = (time.perf_counter() - started) / (depth + burn_in)
    averages = {name: values[:, 0].tolist() for name, values in found.blocks.items()}
    return {"taus": list(TAUS), **averages, "microseconds_per_layer": round(spent * 1e6, 1)}


def wide_averages(
    gamma: float | str, d: int, samples: int, depth: int, burn_in: int, every: int, blocks: int, seed: int
) -> dict:
    """Stationary averages of the normalized chain with Gaussian weights, drawn from its exact law; float64.

    Args:
        gamma: γ, a number or ``"inf"``.
        d: width.
        samples: N.
        depth: layers averaged over.
        burn_in: layers before them.
        every: layers between two measurements.
        blocks: parts of the average, for its error.
        seed: of inputs and weights.

    Returns:
        Block averages of :func:`firststep.wide.summaries`, ``(blocks, …)`` as nested lists.

    Raises:
        ValueError: as :func:`firststep.wide.averages`.
    """
    g = inits.generators([seed], device="cpu")
    options = {"depth": depth, "burn_in": burn_in, "every": every, "blocks": blocks, "generator": g}
    found = wide.averages(wide.unit_rows(d, samples, g), gamma=float(gamma), **options)
    return {name: values[:, 0].tolist() for name, values in found.items()}


def wide_exponents(d: int, samples: int, count: int, depth: int, burn_in: int, blocks: int, seed: int) -> dict:
    """Lyapunov exponents of the chain without skip connections and Gaussian weights; float64.

    Args:
        d: width.
        samples: N.
        count: number of exponents.
        depth: layers averaged over.
        burn_in: layers before them.
        blocks: parts of the average, for its error.
        seed: of inputs and weights.

    Returns:
        ``exponents``: their block averages, ``(blocks, count)`` as nested lists.

    Raises:
        ValueError: as :func:`firststep.wide.exponents`.
    """
    g = inits.generators([seed], device="cpu")
    found = wide.exponents(d, samples, count, depth=depth, burn_in=burn_in, blocks=blocks, generator=g)
    return {"exponents": found[:, 0].tolist()}


# Figure 3a averages over 10⁶ layers from the first on, γ and widths as there; float32, which the page checks against
# float64. One layer in twenty is measured: neighbours hardly differ, and eigenvalues cost more than a layer.
FIG3A = sweep.grid(
    d=WIDTHS[::-1], gamma=STRENGTHS, law=["gaussian"], depth=[1_000_000], burn_in=[0], every=[20], blocks=[50],
    seed=[0], dtype=["float32"],
)  # fmt: skip
# Figures 8 and 9, Lemma 13 and Theorem 14 speak of the invariant law: 10⁵ layers after a burn-in. The theorem asks for
# weights of bounded support and small γ; γ = ∞ is in the runs above.
INVARIANT = sweep.grid(
    d=WIDTHS, gamma=[1.0, 0.1], law=["uniform"], depth=[100_000], burn_in=[5_000], every=[20], blocks=[20],
    seed=[0, 1, 2, 3, 4], dtype=["float64"],
)  # fmt: skip
# Lemmas 5 and 6, on which the proofs lean, ask for γ ≤ 1/(8Bd). There the chain forgets in √d/(γ²d) layers or so, 10³
# to 10⁴: five memories of burn-in, twenty to average over.
SMALL_GAMMA = [
    point
    for law, bound in (("sign", 1.0), ("uniform", 3**0.5))
    for d in (8, 16)
    for memory in [round(64 * bound**2 * d**1.5)]
    for point in sweep.grid(
        d=[d], gamma=[1 / (8 * bound * d)], law=[law], depth=[20 * (memory - memory % 100)],
        burn_in=[5 * memory], every=[20], blocks=[20], seed=list(range(16)), dtype=["float64"],
    )
]  # fmt: skip


def _wide(d: int, gamma: float | str, depth: int, samples: float = 3.0) -> dict:
    """A point of the wide sweep: N = samples · √d; burn-in and blocks are long against the memory, √d/κ layers."""
    slow = 1 / wide.rate(float(gamma), d)
    every, blocks = max(1, math.isqrt(d) // 4), 20
    long = round(depth * slow / (every * blocks)) * every * blocks
    return {
        "gamma": gamma, "d": d, "samples": round(samples * math.sqrt(d)), "depth": long,
        "burn_in": round(max(d, 20 * math.sqrt(d)) * slow), "every": every, "blocks": blocks, "seed": 0,
    }  # fmt: skip


WEAK = {d: 0.5 / math.sqrt(d) for d in (512, 1_024)}  # γ²d = ¼: the skip connection carries most of a layer
# Three samples for every √d are more than the plateau holds; one is less, and has a law of its own.
WIDE = [_wide(d, gamma, depth) for d, depth in ((2_048, 9_600), (512, 20_000), (1_024, 16_000)) for gamma in STRENGTHS]
WIDE += [_wide(d, "inf", 12_000, samples=1.0) for d in (512, 1_024, 2_048)]
WIDE += [_wide(d, gamma, 8_000) for d, gamma in WEAK.items()] + [_wide(4_096, "inf", 6_400)]
# Zeros are told from small exponents by their errors, 1/√(2·d·depth), which one seed does not bring down far enough.
WIDE_EXPONENTS = [
    {"d": d, "samples": n, "count": n, "depth": depth, "burn_in": 4 * d, "blocks": 20, "seed": seed}
    for seed in range(3)
    for d, n, depth in ((128, 28, 200_000), (256, 36, 60_000), (512, 50, 60_000), (1_024, 68, 50_000))
]
SWEEPS = {
    "rank_collapse/fig3a": (depth_average, FIG3A),
    "rank_collapse/invariant": (depth_average, INVARIANT),
    "rank_collapse/small_gamma": (depth_average, SMALL_GAMMA),
    "rank_collapse/wide_limit": (wide_averages, WIDE, "float64"),
    "rank_collapse/wide_counts": (wide_exponents, WIDE_EXPONENTS, "float64"),
}


def by_setting(table: pd.DataFrame, *names: str) -> dict[tuple, dict[str, np.ndarray]]:
    """Block averages of each measure by the columns named, γ and d if none is: ``(seeds, blocks, …)``."""
    groups = table.groupby(list(names) or ["gamma", "d"])
    return {key: {measure: np.array(rows[measure].tolist()) for measure in MEASURES} for key, rows in groups}


def fresh(
    step: chain.Chain,
    d: int,
    *,
    seeds: Sequence[int],
    depth: int,
    burn_in: int,
    measure=None,
    blocks: int = 5,
    every=10,
) -> dict[str, np.ndarray]:
    """Block averages as :func:`by_setting` has them, from a run of several seeds at once, Gaussian inputs, N = d."""
    generators = inits.generators(seeds)
    x = torch.stack([torch.randn(d, d, generator=g, dtype=torch.float64, device=g.device) for g in generators])
    options = {"measure": measure or MEASURES, "blocks": blocks, "every": every}
    found = chain.depth_average(step, x, generator=generators, depth=depth, burn_in=burn_in, **options)
    return {name: values.transpose(0, 1).cpu().numpy() for name, values in found.blocks.items()}


def average(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over seeds and blocks of ``(seeds, blocks, …)``, and its error, honest if blocks outlast the memory."""
    values = values.reshape(-1, *values.shape[2:])
    return values.mean(0), values.std(0, ddof=1) / math.sqrt(len(values))


def regularity_constant(terms: np.ndarray) -> tuple[float, float]:
    """α from block averages of both traces, ``(seeds, blocks, 2)``, and its standard error as of a ratio."""
    rows, cube = terms.reshape(-1, 2).T
    alpha = rows.mean() / cube.mean()
    return alpha, (rows - alpha * cube).std(ddof=1) / math.sqrt(len(rows)) / cube.mean()


def neighbour_correlation(values: np.ndarray) -> float:
    """Correlation between successive blocks of the same run, ``(seeds, blocks)``; without memory about -1/blocks."""
    centred = values - values.mean(1, keepdims=True)
    return float((centred[:, 1:] * centred[:, :-1]).sum() / (centred**2).sum())
