"""Image classifiers at constant steps: the recorded runs of the chapter on curvature.

Step sizes come from one grid, 10^(j/8) for whole j; it is walked in half decades and refined by halving around the
edge of training.
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from firststep import checks, constant_step, feedforward, inits, nets, wide_kernel
from firststep.constant_step import Trained

PER_DECADE = 8
COARSE = tuple(range(-3 * PER_DECADE, 2 * PER_DECADE + 1, PER_DECADE // 2))  # 10^-3 to 100 in half decades


def experiment(
    scheme: str, activation: str, loss: str, width: int, depth: int, images: int, batch: int, updates: int, seeds: int
) -> dict:
    """Everything about one start: its curvature, predicted and measured, and its training at every step of the grid.

    Args:
        scheme, activation, width, depth: as :func:`firststep.constant_step.classifier`.
        loss, batch, updates: as :func:`firststep.constant_step.train`.
        images: how many are trained on, as :func:`firststep.constant_step.pixels`; curvature is of 500 of them at most.
        seeds: starts 0, 1, ….

    Returns:
        ``input``, the largest eigenvalue of the inputs' second moment; ``predicted``, that of the Gauss–Newton matrix;
        and ``runs``, a list over seeds of ``measured``, ``grid`` (j, first, last, largest, accuracy) and ``named``:
        step and the same for ``rule`` = 1/(‖H_z‖ · input), ``unit`` = 1, ``predicted`` = 2/λ, ``half`` = 1/λ and, with
        full batches, ``beyond`` = 4/λ of the measured λ. Infinite and undefined numbers are ``None``.

    Raises:
        ValueError: as the functions that it calls.
    """
    checks.positive_integer("seeds", seeds)
    x, y = constant_step.pixels(images, device="cpu")  # recorded runs are the same on every machine
    test = constant_step.pixels(1_000, split="test", device="cpu")
    few = constant_step.pixels(min(images, 500), dtype=torch.float64, device="cpu")[0]
    widths = (784,) + (width,) * (depth - 1) + (constant_step.CLASSES,)
    moment = float(torch.linalg.matrix_norm(few / math.sqrt(len(few)), 2)) ** 2
    predicted = wide_kernel.largest_eigenvalue(few, widths, scheme, activation, loss=loss)
    steps = {"rule": constant_step.rule_step(moment, loss), "unit": 1.0}
    steps |= {"predicted": 2 / predicted, "half": 1 / predicted}
    options = {"loss": loss, "updates": updates, "batch": batch, "test": test}
    found = []
    for seed in range(seeds):

        def drawn(seed: int = seed) -> nets.MLP:
            return constant_step.classifier(scheme, activation, width, depth, seed, device="cpu")

        def at(size: float, seed: int = seed, drawn: Callable[[], nets.MLP] = drawn) -> Trained:
            g = inits.generator(seed, "cpu")
            return constant_step.train(drawn(), x, y, step_size=size, generator=g, **options)

        top = constant_step.measured(drawn(), few, activation, loss)
        grid = _walk(lambda j, at=at: at(step(j)))
        named = steps if batch else steps | {"beyond": 4 / top}
        found.append({
            "measured": top,
            "grid": [[j, *_row(outcome)] for j, outcome in grid.items()],
            "named": {name: [size, *_row(at(size))] for name, size in named.items()},
        })  # fmt: skip
    return {"input": moment, "predicted": predicted, "runs": found}


def digest(run: dict, loss: str) -> dict:
    """What one of the ``runs`` of :func:`experiment` says, in numbers.

    Args:
        run: as there.
        loss: as there.

    Returns:
        ``measured`` and ``first`` as there; ``silent``; ``edge`` and ``descent``, the largest steps that train and that
        descend, nan if none; ``best``, the lowest loss on the grid, with its step ``best_step``, its ``accuracy``, and
        whether that is ``inside``, not an end of the grid; whether any step ``trains``; and for each named step
        ``last_…`` and ``trains_…``. The loss of a run that diverged is infinite.

    Raises:
        ValueError: not what :func:`experiment` returns, or an unknown loss.
    """
    checks.one_of("loss", loss, feedforward.LOSSES)
    try:
        found = {j: _outcome(values, loss) for j, *values in run["grid"]}
        named = {name: _outcome(values, loss) for name, (_, *values) in run["named"].items()}
        top = float(run["measured"])
        best = min(found, key=lambda j: found[j].last)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        raise ValueError(f"run must be one that experiment() returns, got {run!r}") from error
    edges = {what: largest_step(found, what) for what in ("trains", "descends")}
    sizes = {what: math.nan if j is None else step(j) for what, j in edges.items()}
    return {
        "measured": top,
        "first": found[best].first,
        "silent": constant_step.SILENCE[loss],
        "edge": sizes["trains"],
        "descent": sizes["descends"],
        "best": found[best].last,
        "best_step": step(best),
        "accuracy": found[best].accuracy,
        "trains": edges["trains"] is not None,
        "inside": COARSE[0] < best < COARSE[-1],
        **{f"last_{name}": outcome.last for name, outcome in named.items()},
        **{f"trains_{name}": outcome.trains for name, outcome in named.items()},
    }


def _walk(run: Callable[[int], Trained], coarse: tuple[int, ...] = COARSE) -> dict[int, Trained]:
    """Outcomes of a grid of step sizes 10^(j/8) by j, from below, refined by halving around the edge of training.

    Two coarse steps in a row that do not train, after one that does, end the walk.
    """
    found: dict[int, Trained] = {}
    for place, j in enumerate(coarse):
        found[j] = run(j)
        before = [found[i].trains for i in coarse[: place + 1]]
        if any(before) and not any(before[-2:]):
            break
    low = largest_step(found, "trains")
    high = min((j for j in found if low is not None and j > low), default=None)
    while high is not None and high - low > 1:
        middle = (low + high) // 2
        found[middle] = run(middle)
        low, high = (middle, high) if found[middle].trains else (low, middle)
    return dict(sorted(found.items()))


def largest_step(found: dict[int, Trained], what: str) -> int | None:
    """The largest j that trains, or that descends as all smaller ones do; ``None`` if there is none.

    Far beyond the edge relu networks may die in one step, and a network whose outputs are zero goes up no more.

    Args:
        found: outcomes by j.
        what: ``trains`` or ``descends``.

    Raises:
        ValueError: ``found`` holds something else, or an unknown word.
    """
    good = isinstance(found, dict) and all(isinstance(outcome, Trained) for outcome in found.values())
    checks.require(good, "found", found, "outcomes by j")
    checks.one_of("what", what, ("trains", "descends"))
    kept = [(j, getattr(found[j], what)) for j in sorted(found)]
    if what == "descends":
        kept = list(itertools.takewhile(lambda pair: pair[1], kept))
    return max((j for j, fine in kept if fine), default=None)


def step(j: float) -> float:
    """10^(j/8).

    Raises:
        ValueError: not a number between -800 and 800.
    """
    return 10 ** (checks.between("j", j, -800, 800) / PER_DECADE)


def _outcome(values: list, loss: str) -> Trained:
    first, last, largest, accuracy = values
    kept = (math.inf if last is None else last, math.inf if largest is None else largest)
    return Trained(first, *kept, math.nan if accuracy is None else accuracy, constant_step.SILENCE[loss])


def _row(outcome: Trained) -> list[float | None]:
    values = (outcome.first, outcome.last, outcome.largest, outcome.accuracy)
    return [float(f"{v:.5g}") if math.isfinite(v) else None for v in values]


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
WIDER = [point for width in (256, 512) for point in _points(5, width, (FULL,))]  # for the trend in width alone
SWEEPS = {
    "curvature/constant_step": (experiment, CONSTANT_STEP, "float32"),
    "curvature/constant_step_wider": (experiment, WIDER, "float32"),
}
