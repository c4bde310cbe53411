"""What pages report of several measurements: slopes of power laws, rank correlations, means and their errors.

Each comes with an interval, so that a number on a page says how far it can be trusted.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri, stdtrit

from firststep import checks


class Estimate(NamedTuple):
    """A number with its standard error and the ends of a two-sided interval."""

    value: float
    error: float
    low: float
    high: float


def mean(values: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Mean of independent draws, with Student's interval.

    Args:
        values: ``(n,)``, at least two; seeds, usually.
        level: of the interval.

    Raises:
        ValueError: fewer than two values, or a level outside (0, 1).
    """
    x = _numbers("values", values, 2)
    error = float(x.std(ddof=1)) / math.sqrt(x.size)
    return _estimate(float(x.mean()), error, x.size - 1, level)


def loglog_slope(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Exponent p of ``y ∝ x^p`` by least squares on logarithms, with Student's interval over the residuals.

    Args:
        x: ``(n,)``, positive, at least two different values.
        y: ``(n,)``, positive.
        level: of the interval, which with two points is unbounded: they leave no residual.

    Raises:
        ValueError: lengths differ, too few points, or something is not positive.
    """
    x, y = _numbers("x", x, 2), _numbers("y", y, 2)
    checks.require(x.shape == y.shape, "y", y.shape, f"as long as x, {x.shape}")
    for name, values in (("x", x), ("y", y)):
        checks.require(bool((values > 0).all()), name, values.tolist(), "positive")
    return slope(np.log(x), np.log(y), level=level)


def slope(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Slope of the least-squares line, with Student's interval over the residuals.

    Args:
        x: ``(n,)``, at least two different values.
        y: ``(n,)``.
        level: of the interval.

    Raises:
        ValueError: lengths differ, or all ``x`` are the same.
    """
    x, y = _numbers("x", x, 2), _numbers("y", y, 2)
    checks.require(x.shape == y.shape, "y", y.shape, f"as long as x, {x.shape}")
    spread = x - x.mean()
    checks.require(bool(spread.any()), "x", x.tolist(), "at least two different values")
    value = float(spread @ y / (spread @ spread))
    residual = y - y.mean() - value * spread
    free = x.size - 2
    error = math.sqrt(float(residual @ residual) / free / float(spread @ spread)) if free else math.inf
    return _estimate(value, error, max(free, 1), level)


def intercept(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Value at x = 0 of the least-squares line, with Student's interval over the residuals: an extrapolation.

    Args:
        x: ``(n,)``, at least two different values.
        y: ``(n,)``.
        level: of the interval; it knows of scatter about a line, not of a curve where a line was assumed.

    Raises:
        ValueError: lengths differ, or all ``x`` are the same.
    """
    rise = slope(x, y, level=level)
    x, y = _numbers("x", x, 2), _numbers("y", y, 2)
    value = float(y.mean()) - rise.value * float(x.mean())
    # The variance of the slope, times Σ(x − x̄)², is that of one residual.
    error = rise.error * math.sqrt(float(x @ x) / x.size)
    return _estimate(value, error, max(x.size - 2, 1), level)


def rank_correlation(x: ArrayLike, y: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Spearman's rank correlation, ties averaged, with Fisher's interval and the variance of Bonett and Wright (2000).

    Args:
        x: ``(n,)``, at least four values, not all the same.
        y: ``(n,)``, likewise.
        level: of the interval.

    Raises:
        ValueError: lengths differ, too few values, or one side is constant.
    """
    x, y = _numbers("x", x, 4), _numbers("y", y, 4)
    checks.require(x.shape == y.shape, "y", y.shape, f"as long as x, {x.shape}")
    for name, values in (("x", x), ("y", y)):
        checks.require(bool((values != values[0]).any()), name, values.tolist(), "not constant")
    rho = float(np.clip(np.corrcoef(_ranks(x), _ranks(y))[0, 1], -1, 1))
    return _fisher(rho, x.size - 3, level)


def partial_rank_correlation(x: ArrayLike, y: ArrayLike, given: ArrayLike, *, level: float = 0.95) -> Estimate:
    """Spearman's rank correlation of ``x`` and ``y`` with ``given`` held fixed: what ``x`` says beyond ``given``.

    The correlation of the ranks' residuals after a line through the ranks of ``given``, with Fisher's interval at one
    degree of freedom less than :func:`rank_correlation`.

    Args:
        x: ``(n,)``, at least five values, not all the same, and not in the order of ``given`` throughout.
        y: ``(n,)``, likewise.
        given: ``(n,)``, not all the same.
        level: of the interval.

    Raises:
        ValueError: lengths differ, too few values, or a side is constant or has nothing left beyond ``given``.
    """
    x, y, z = _numbers("x", x, 5), _numbers("y", y, 5), _numbers("given", given, 5)
    for name, values in (("y", y), ("given", z)):
        checks.require(x.shape == values.shape, name, values.shape, f"as long as x, {x.shape}")
    ranks = [_ranks(values) for values in (x, y, z)]
    for name, of in zip(("x", "y", "given"), ranks, strict=True):
        checks.require(bool((of != of[0]).any()), name, of.tolist(), "not constant")
    fixed = ranks[2] - ranks[2].mean()
    left = [of - of.mean() - fixed * (fixed @ of) / (fixed @ fixed) for of in ranks[:2]]
    for name, of in zip(("x", "y"), left, strict=True):
        checks.require(float(np.abs(of).max()) > 1e-9 * x.size, name, "the order of given", "more than that order")
    rho = float(np.clip(np.corrcoef(*left)[0, 1], -1, 1))
    return _fisher(rho, x.size - 4, level)


def _fisher(rho: float, free: int, level: float) -> Estimate:
    error = math.sqrt((1 + rho**2 / 2) / free)  # of arctanh(rho)
    middle = math.atanh(min(max(rho, -1 + 1e-15), 1 - 1e-15))
    half = float(ndtri((1 + _level(level)) / 2)) * error
    return Estimate(rho, error * (1 - rho**2), math.tanh(middle - half), math.tanh(middle + half))


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, times = np.unique(values, return_inverse=True, return_counts=True)
    last = times.cumsum()
    return (last - (times - 1) / 2)[place]


def _estimate(value: float, error: float, free: int, level: float) -> Estimate:
    half = float(stdtrit(free, (1 + _level(level)) / 2)) * error
    return Estimate(value, error, value - half, value + half)


def _level(level: float) -> float:
    checks.require(0 < checks.number("level", level) < 1, "level", level, "a number between 0 and 1")
    return level


def _numbers(name: str, values: ArrayLike, least: int) -> np.ndarray:
    if hasattr(values, "detach"):
        values = values.detach().cpu()
    try:
        x = np.asarray(values)
        checks.require(x.dtype.kind in "iuf", name, x.dtype, "real numbers")
        x = x.astype(float)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{name} must be numbers, got {values!r}") from error
    good = x.ndim == 1 and x.size >= least and bool(np.isfinite(x).all())
    checks.require(good, name, x.shape if x.ndim != 1 else x.tolist(), f"at least {least} finite numbers in a row")
    return x
