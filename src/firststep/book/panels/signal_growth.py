"""The panel on how signals grow with depth in residual networks, and where they leave a number format."""

import math

import torch

from firststep import inits, residual_growth
from firststep.book.charts import axis, chart, level, line, theory
from firststep.book.explore import Control, Outcome, explorable

WIDTH = 16
LARGEST = {name: math.log10(torch.finfo(getattr(torch, name)).max) for name in ("float32", "float64")}
BRANCHES = {
    "as they are": lambda depth: 1.0,
    "divided by √L": lambda depth: depth**-0.5,
    "divided by L": lambda depth: 1 / depth,
    "zero, as in mZAS": lambda depth: 0.0,
}


@explorable(
    claim="zero_asymmetric.fig4",
    task="Find the smallest depth at which a Xavier start leaves float32, for blocks of 1, 4 and 16 units. Then divide "
    "the branches by √L. Can you find a network that is not on its line?",
    chart=chart(
        axis("layer", "layer", whole=True),
        axis("size", "size of the signal, power of ten"),
        level("formats"),
        line("size", "blue"),
        theory("predicted"),
    ),
    presets={
        "ten thousand layers": {"depth": 10_000},
        "the same, divided by √L": {"depth": 10_000, "branches": "divided by √L"},
    },
    depth=Control("depth L", (20, 200, 1_000, 2_000, 10_000), 1_000, low=1, high=20_000),
    block=Control("units in a block, m", (1, 4, 16), 4, low=1, high=64),
    branches=Control("branches", tuple(BRANCHES), "as they are"),
)
def signal_growth(depth: int, block: int, branches: str) -> Outcome:
    """One random residual network of width 16: the size of its signal, and the line that was predicted.

    Args:
        depth: L.
        block: m, units in a block.
        branches: what a Xavier draw of the branches is multiplied by.
    """
    factor = BRANCHES[branches](depth)
    drift, noise = residual_growth.log_growth(WIDTH, block, factor)
    walk = residual_growth.log_norms(WIDTH, block, depth, factor, networks=1, generator=inits.generator(0))
    size = (walk[:, 0] / (2 * math.log(10))).tolist()
    end, spread = drift * depth / (2 * math.log(10)), noise * math.sqrt(depth) / (2 * math.log(10))
    shown = sorted({round(k * depth / 100) for k in range(101)})
    left = {name: next((k for k, s in enumerate(size) if s > top), None) for name, top in LARGEST.items()}
    formats = [top for name, top in LARGEST.items() if name == "float32" or max(size) > LARGEST["float64"] / 2]
    where = [f"leaves {name} at layer {k:,}" for name, k in left.items() if k is not None]
    kept = abs(size[-1] - end) <= 4 * spread + 1e-9
    return Outcome(
        tables={
            "size": {"layer": shown, "size": [size[k] for k in shown]},
            "predicted": {"layer": [0, depth], "size": [0.0, end]},
            "formats": {"size": formats},
        },
        prediction=f"a factor of {math.exp(drift / 2):.4g} a layer, so 10^{end:.1f} ± {spread:.1f} at the end",
        measurement=f"10^{size[-1]:.1f} at the end; {', '.join(where) or 'stays inside float32'}",
        verdict="The random walk holds." if kept else "The walk is off its line by more than four standard deviations.",
        survived=kept,
    )
