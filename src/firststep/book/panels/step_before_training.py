"""The panel on the largest step that the curvature at the start allows, predicted before a weight is drawn."""

import functools
import statistics

import torch

from firststep import constant_step, feedforward, hessian_products, inits, wide_kernel
from firststep.book.charts import axis, chart, points, theory
from firststep.book.explore import Control, Outcome, explorable

SCHEMES = {
    "Eq. (8)": "curvature_normal", "Glorot": "xavier_normal", "He": "he_normal", "LeCun": "lecun_normal",
    "orthogonal": "orthogonal",
}  # fmt: skip
DEPTHS, IMAGES, DRAWS = (1, 2, 4, 8, 12), 20, 3
FACTOR = 2.0


@functools.cache
def _images() -> torch.Tensor:
    return constant_step.pixels(IMAGES, dtype=torch.float64)[0]


@explorable(
    claim="curvature.predicted_step",
    task="The dashed line knows width, depth and start, but no weights. Move the drawn networks away from it, "
    "by more than a factor of two.",
    chart=chart(
        axis("depth", "layers L", domain=(0.5, 12.5), ticks=DEPTHS),
        axis("step", "largest step 2/λ", scale="log"),
        theory("predicted"),
        points("drawn", "vermilion", size=45),
        height=230,
    ),
    presets={"the paper's rule": {"scheme": "Eq. (8)"}, "narrow and deep": {"width": 8, "scheme": "He"}},
    scheme=Control("start", tuple(SCHEMES), "Glorot"),
    activation=Control("activation", ("tanh", "relu"), "tanh"),
    width=Control("width d", (8, 32, 128), 128, low=1, high=256),
)
def step_before_training(scheme: str, activation: str, width: int) -> Outcome:
    """The largest step 2/λ_max of networks 784·d·…·d·10 on images, squared loss: predicted, and of drawn weights.

    Args:
        scheme: Eq. (8), Glorot, He, LeCun or orthogonal.
        activation: of the hidden layers.
        width: d, 1 to 256.
    """
    name, x = SCHEMES[scheme], _images()
    expected, drawn = [], []
    for depth in DEPTHS:
        widths = (784,) + (width,) * (depth - 1) + (10,)
        names = (activation,) * (depth - 1) + ("linear",)
        expected.append(2 / wide_kernel.largest_eigenvalue(x, widths, name, activation))
        for g in inits.generators(DRAWS):
            run = feedforward.forward(inits.network(widths, name, generator=g), x, activation=names, samples=True)
            top = hessian_products.gauss_newton_norm(run, tol=1e-3)
            drawn.append((depth, 2 / top if top > 0 else float("inf")))
    finite = [(depth, size) for depth, size in drawn if size < 1e300]
    off = [
        statistics.median(size for depth, size in drawn if depth == layers) / size_
        for layers, size_ in zip(DEPTHS, expected, strict=True)
    ]
    worst = max(range(len(off)), key=lambda i: max(off[i], 1 / off[i]))
    survived = max(off[worst], 1 / off[worst]) <= FACTOR
    return Outcome(
        tables={
            "predicted": {"depth": list(DEPTHS), "step": expected},
            "drawn": {"depth": [d for d, _ in finite], "step": [s for _, s in finite]},
        },
        prediction=f"largest step at 12 layers: {expected[-1]:.2g}, from the wide kernel of {IMAGES} images",
        measurement=f"median over {DRAWS} draws: {off[-1]:.2g} times that; farthest off at {DEPTHS[worst]} layers, "
        f"{off[worst]:.2g} times",
        verdict=(
            "The drawn networks stay within a factor of two of the prediction."
            if survived
            else f"At {DEPTHS[worst]} layers of width {width} the prediction is off by more than a factor of two."
        ),
        survived=survived,
    )
