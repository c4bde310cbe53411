"""Image classifiers at constant steps: the recorded runs of the chapter on curvature."""

from collections.abc import Sequence

from firststep import constant_step

STARTS = ("curvature_normal", "xavier_normal", "he_normal", "lecun_normal", "orthogonal")
# All images at once show the edge of stability without noise, minibatches what one would do; at one size both losses.
FULL, MINI = ("squared", 200, 0), ("cross_entropy", 2_000, 100)
CROSSED = (("cross_entropy", 200, 0), ("squared", 2_000, 100))


def _points(depth: int, width: int, arms: Sequence[tuple[str, int, int]]) -> list[dict]:
    """Every activation and start of some arms, which are loss, images and minibatch."""
    return [
        {
            "scheme": scheme, "activation": activation, "loss": loss, "width": width, "depth": depth,
            "images": images, "batch": batch, "updates": 100, "seeds": 3,
        }
        for loss, images, batch in arms for activation in ("tanh", "relu") for scheme in STARTS
    ]  # fmt: skip


SIZES = ((2, 32), (5, 32), (10, 32), (30, 32), (5, 128), (2, 128), (10, 128))  # depth and width
CONSTANT_STEP = [*(p for size in SIZES for p in _points(*size, (FULL, MINI))), *_points(5, 32, CROSSED)]
SWEEPS = {"curvature/constant_step": (constant_step.experiment, CONSTANT_STEP, "float32")}
