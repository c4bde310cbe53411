"""The search for the step sizes of deep residual networks on 1,000 images, and its grid of runs."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firststep import checks, images, inits, residual

SIZES = {"width": 16, "block": 4}  # D and m, which the paper does not state
CLASSES = 10
EVERY = 5  # steps between two values of a recorded curve


def thousand_images(
    dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """The first 100 training images of each class, as columns ``(784, 1000)``, and their labels ``(1000,)``.

    Raises:
        ValueError: as :func:`firststep.images.fashion_mnist`.
    """
    found = images.fashion_mnist(dtype=dtype, device=device)
    rows = torch.cat([(found.y == label).nonzero()[:100, 0] for label in range(CLASSES)])
    return found.x[rows].T.contiguous(), found.y[rows]


def train(
    x: Tensor,
    y: Tensor,
    *,
    depth: int,
    start: str,
    seeds: int,
    rates: Sequence[float],
    steps: int,
    warm_up: int = 0,
) -> residual.Descent:
    """Every step size with every seed, from 0, side by side; the runs of one step size are neighbours.

    Raises:
        ValueError: as :func:`firststep.residual.start_` and :func:`firststep.residual.descend`.
    """
    options = {"runs": len(rates) * seeds, "dtype": x.dtype, "device": x.device}
    net = residual.ResidualMLP(len(x), **SIZES, depth=depth, d_out=CLASSES, **options)
    residual.start_(net, start, generator=inits.generators(list(range(seeds)) * len(rates), device=x.device))
    step_size = [rate for rate in rates for _ in range(seeds)]
    return residual.descend(net, x, y, step_size=step_size, steps=steps, warm_up=warm_up)


def residual_search(
    depth: int, start: str, seeds: int, steps: int, warm_up: int, patience: int, batch: int, first: int, dtype: str
) -> dict:
    """Train with ever smaller steps, until smaller ones are worse.

    The step sizes are 10^(−k/2) from k = ``first`` on, ``batch`` at a time. The best has the highest final accuracy,
    averaged over the seeds, and of several the lowest loss; a seed that diverges counts as accuracy 0. The search ends
    when at least ``patience`` smaller steps were no better, and at once if every seed diverges before its first step,
    where no step size matters.

    Args:
        depth: L.
        start: a key of :data:`firststep.residual.STARTS`.
        seeds: how many, from 0.
        steps: of gradient descent.
        warm_up: steps over which the step size rises.
        patience: see above.
        batch: see above.
        first: see above.
        dtype: ``float32`` or ``float64``.

    Returns:
        For each of the ``rates`` tried ``accuracy`` (final), ``loss`` (final) and ``diverged`` (the step), a list over
        seeds each; the index ``best``, ``None`` if every seed always diverged; its accuracy at every fifth step,
        ``curve``, a list over seeds each; and ``microseconds`` a layer, step and run.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    kind = getattr(torch, checks.one_of("dtype", dtype, ("float32", "float64")))
    for name, value in (("seeds", seeds), ("patience", patience), ("batch", batch)):
        checks.positive_integer(name, value)
    checks.natural("first", first)
    x, y = thousand_images(kind, "cpu")  # recorded runs are the same on every machine
    found = {"rates": [], "accuracy": [], "loss": [], "diverged": [], "best": None, "curve": None}
    began, taken, top = time.perf_counter(), 0, (0.0, -math.inf)
    while found["best"] is None or len(found["rates"]) - 1 - found["best"] < patience:
        tried = len(found["rates"])
        rates = [10 ** (-(first + tried + k) / 2) for k in range(batch)]
        if rates[-1] < 10 * torch.finfo(kind).tiny:
            break
        run = train(x, y, depth=depth, start=start, seeds=seeds, rates=rates, steps=steps, warm_up=warm_up)
        taken += max(1, int(run.loss.isfinite().any(1).sum()))
        for k, rate in enumerate(rates):
            own = slice(k * seeds, (k + 1) * seeds)
            last = {"accuracy": _listed(run.accuracy[-1, own]), "loss": _listed(run.loss[-1, own])}
            for name, values in {"rates": rate, "diverged": run.diverged[own], **last}.items():
                found[name].append(values)
            score = (sum(a or 0.0 for a in last["accuracy"]), -sum(math.inf if a is None else a for a in last["loss"]))
            if score > top:
                top, found["best"] = score, tried + k
                found["curve"] = [_listed(one) for one in run.accuracy[::EVERY, own].T]
        if all(step == 0 for step in run.diverged):
            break
    found["microseconds"] = round(1e6 * (time.perf_counter() - began) / (taken * depth * seeds * batch), 1)
    return found


def residual_run(depth: int, start: str, seeds: int, steps: int, k: int, dtype: str) -> dict:
    """Train with one step size, 10^(−k/2), as :func:`residual_search` does, for longer.

    Returns:
        ``rate``; ``accuracy`` and ``loss`` at every fifth step, a list over steps for each seed; ``diverged``, the
        step, a seed each; and ``microseconds`` a layer, step and run.

    Raises:
        ValueError: as :func:`residual_search`.
    """
    x, y = thousand_images(getattr(torch, checks.one_of("dtype", dtype, ("float32", "float64"))), "cpu")
    began, rate = time.perf_counter(), 10 ** (-k / 2)
    run = train(x, y, depth=depth, start=start, seeds=seeds, rates=[rate], steps=steps)
    spent = (time.perf_counter() - began) / (int(run.loss.isfinite().any(1).sum()) * depth * seeds)
    curves = {
        name: [_listed(one) for one in values[::EVERY].T] for name, values in vars(run).items() if name != "diverged"
    }
    return {"rate": rate, **curves, "diverged": run.diverged, "microseconds": round(1e6 * spent, 1)}


@dataclass(frozen=True)
class Best:
    """The best step size of a recorded search: fewest seeds that diverge, then lowest final loss.

    The search itself looks at the accuracy, by which a network that has hardly moved may look best.

    Attributes:
        rate: the best step size; nan if every run diverged.
        accuracy: at the end, a seed each; 0 for a seed that diverged.
        curve: accuracy at every fifth step, ``(steps / 5 + 1, seeds)``; empty if it is not recorded.
        inside: whether larger and smaller step sizes were tried.
        finite: runs, over seeds and step sizes, whose outputs were finite at the start.
    """

    rate: float
    accuracy: np.ndarray
    curve: np.ndarray
    inside: bool
    finite: int

    @classmethod
    def of(cls, found: Mapping) -> "Best":
        """From what :func:`residual_search` returned, or its row in a table."""
        finite = sum(step != 0 for steps in found["diverged"] for step in steps)
        if found["curve"] is None:
            return cls(math.nan, np.zeros(len(found["diverged"][0])), np.empty((0, 0)), False, finite)
        order = [(one.count(None), sum(loss or 0.0 for loss in one)) for one in found["loss"]]
        best = order.index(min(order))
        accuracy = np.array([a or 0.0 for a in found["accuracy"][best]])
        curve = np.array(found["curve"], dtype=float).T if best == int(found["best"]) else np.empty((0, 0))
        return cls(found["rates"][best], accuracy, curve, 0 < best < len(order) - 1, finite)


def _listed(values: Tensor) -> list[float | None]:
    """Numbers for JSON, which knows no nan."""
    return [float(f"{value:.6g}") if math.isfinite(value) else None for value in values.tolist()]


# 10 and 20 layers calibrate a prediction. Both starts have the same images, steps, seeds, grid and patience at a depth.
# What lies between the starts is run at 2,000 layers, where they differ most.
PLANS = {  # seeds, steps, patience, batch
    10: (3, 100, 4, 4),
    20: (3, 100, 4, 4),
    100: (5, 200, 4, 4),
    200: (3, 200, 4, 4),
    2_000: (3, 60, 2, 2),
    10_000: (1, 60, 2, 4),
}


def _point(depth: int, start: str, *, warm_up: int = 0, first: int = 0, dtype: str = "float32", **other) -> dict:
    plan = dict(zip(("seeds", "steps", "patience", "batch"), PLANS[depth], strict=True))
    return {"depth": depth, "start": start, "warm_up": warm_up, "first": first, "dtype": dtype} | plan | other


DEEP_RESIDUAL = [_point(depth, start) for depth in PLANS for start in ("xavier", "mzas")]
DEEP_RESIDUAL += [_point(depth, "xavier", seeds=3, warm_up=50) for depth in (100, 2_000)]
# In float64 signals of 2,000 layers are finite, about 10^98, and the step that suits them is about 10^(−101).
DEEP_RESIDUAL += [_point(2_000, "xavier", seeds=1, steps=40, patience=3, batch=4, first=170, dtype="float64")]
BETWEEN = [start for start in residual.STARTS if start not in ("xavier", "mzas")]
DEEP_RESIDUAL += [_point(2_000, start, seeds=1, batch=3) for start in BETWEEN]
DEEP_RESIDUAL += [_point(10_000, "branches / depth", steps=30, patience=1)]
# The searches at 2,000 and 10,000 layers are short; their best steps are run on.
DEEP_RESIDUAL_LONG = [
    {"depth": 2_000, "start": "mzas", "seeds": 3, "steps": 200, "k": 5, "dtype": "float32"},
    {"depth": 10_000, "start": "mzas", "seeds": 3, "steps": 400, "k": 6, "dtype": "float32"},
]
SWEEPS = {
    "zero_asymmetric/deep_residual": (residual_search, DEEP_RESIDUAL),
    "zero_asymmetric/deep_residual_long": (residual_run, DEEP_RESIDUAL_LONG),
}
