"""How many steps gradient descent takes: ZAS networks and scalar networks, whole grids of runs at once.

The counting loops work on numpy arrays on the CPU, whatever the device: their batches shrink as runs finish, and a
step is a handful of multiplications. Counts come back on the device of what they were asked for.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from firststep import checks, scale
from firststep.zas import _run_setting

# How often the counting loop looks for pairs that have settled, in steps.
_RETIRE_EVERY = 128


@dataclass(frozen=True)
class Count:
    """How many steps runs took.

    Attributes:
        steps: first iteration with R ≤ tolerance, ``(runs...)``, int64; −1 where there is none.
        diverged_at: first iteration at which R was not finite, ``(runs...)``, int64; −1 where it stayed finite.
    """

    steps: Tensor
    diverged_at: Tensor

    @property
    def converged(self) -> Tensor:
        """Whether each run reached the tolerance, ``(runs...)``."""
        return self.steps >= 0

    @property
    def diverged(self) -> Tensor:
        """Whether each run diverged, ``(runs...)``."""
        return self.diverged_at >= 0


def iterations(
    singular_values: Tensor,
    *,
    depth: int | Tensor,
    step_size: float | Tensor,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
    multiplicity: Tensor | None = None,
    race: bool = False,
) -> Count:
    """Count the iterations of ZAS gradient descent to R ≤ tolerance, for every run of a batch at once.

    A pair stays in the loop until it sits within 1e-14 of a fixed point that attracts it, and a run until it converges
    or diverges; so the cost follows the pairs that still move.

    Args:
        singular_values: s, ``(runs..., d)``.
        depth: L, broadcast over the runs.
        step_size: η > 0, broadcast over the runs.
        tolerance: of the loss R = ½ Σ e².
        max_steps: iterations after which a run is given up.
        multiplicity: how often each singular value counts, broadcast to ``singular_values``; by default once. The
            target −I of size 100 is one singular value of multiplicity 100.
        race: the last axis of the runs is a race, such as one over step sizes: when a run converges, the others on its
            axis that have not are stopped. The smallest count on the axis is then right, the others are −1.

    Returns:
        A :class:`Count`.

    Raises:
        ValueError: as :func:`recursion`; or a tolerance that is not positive, a multiplicity below 0, or no step.
    """
    device = scale.device_of(singular_values, depth, step_size)
    s, depth, eta, runs = _run_setting(singular_values, depth, step_size)
    checks.number("tolerance", tolerance, above=0, allowed="a positive number")
    checks.positive_integer("max_steps", max_steps)
    often = 1.0 if multiplicity is None else multiplicity
    times = checks.reals("multiplicity", often, device="cpu", allowed="finite and at least 0").numpy()
    checks.flag("race", race)
    checks.require(not race or len(runs) > 0, "race", race, "False for a single run")
    good = checks.broadcast("multiplicity", times.shape, (*runs, s.shape[-1])) == (*runs, s.shape[-1])
    checks.require(good, "multiplicity", times.shape, f"one number for each of {s.shape}")
    d = s.shape[-1]
    flat = [np.broadcast_to(a, (*runs, d)).reshape(-1, d) for a in (s, times / 2, depth[..., None], eta[..., None])]
    lane = runs[-1] if race else 1
    steps, diverged = _count(*flat, tolerance, max_steps, lane)
    return Count(*(torch.from_numpy(a).reshape(runs).to(device) for a in (steps, diverged)))


def _count(
    s: np.ndarray,
    half: np.ndarray,
    depth: np.ndarray,
    eta: np.ndarray,
    tolerance: float,
    max_steps: int,
    lane: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The loop behind :func:`iterations`, on ``(runs, d)`` arrays; lanes of ``lane`` runs race."""
    total = len(s)
    converged, diverged = np.full((2, total), -1, dtype=np.int64)
    run = np.repeat(np.arange(total), s.shape[1])
    hidden = (depth > 1).astype(float)
    pairs = [a.ravel() for a in (np.ones_like(s), np.zeros_like(s), s, half, depth - 2, eta, hidden)]
    open_runs = np.ones(total, dtype=bool)
    watched, place = np.flatnonzero(open_runs), run.copy()

    def keep(chosen: np.ndarray) -> None:
        """Drop the other pairs, and number the runs that are still open from 0."""
        nonlocal run, place, watched
        chosen = chosen & open_runs[run]
        pairs[:] = [a[chosen] for a in pairs]
        run, watched = run[chosen], np.flatnonzero(open_runs)
        place = np.searchsorted(watched, run)

    with np.errstate(all="ignore"):
        for t in range(max_steps + 1):
            u, v, s, half, power, eta, hidden = pairs
            below = u**power
            e = v * below * u - s
            loss = np.bincount(place, weights=half * e * e, minlength=len(watched))
            if not ((loss > tolerance) & (loss < np.inf)).all():
                good, bad = watched[loss <= tolerance], watched[~(loss < np.inf)]
                converged[good], diverged[bad] = t, t
                open_runs[good] = open_runs[bad] = False
                if lane > 1:
                    open_runs.reshape(-1, lane)[good // lane] = False
                if not open_runs.any():
                    break
                moving = np.ones(len(run), dtype=bool)
            elif t % _RETIRE_EVERY == _RETIRE_EVERY - 1:
                # Near a solution a step multiplies e by 1 − η·(curvature); the margin keeps round-off from deciding.
                attracts = np.abs(1 - eta * below**2 * (u**2 + hidden * (power + 1) * v**2)) < 0.99999
                moving = ~((np.abs(e) <= 1e-14 * np.maximum(1.0, s)) & attracts)
            else:
                moving = None
            pull = eta * e * below
            pairs[0], pairs[1] = u - hidden * pull * v, v - pull * u
            if moving is not None and not (moving & open_runs[run]).all():
                keep(moving)
    return converged, diverged


def scalar_iterations(
    weights: Tensor,
    *,
    target: float = -1.0,
    step_size: float | Tensor,
    tolerance: float = 1e-10,
    max_steps: int = 10_000,
) -> Count:
    """Count gradient descent steps on ½(w_L…w_1 − target)² from any start, for every run of a batch at once.

    Args:
        weights: the start, ``(runs..., L)``.
        target: any finite number.
        step_size: η > 0, broadcast over the runs.
        tolerance: of the loss.
        max_steps: iterations after which a run is given up.

    Returns:
        A :class:`Count`.

    Raises:
        ValueError: weights or target that are not finite, no layer, η ≤ 0, a tolerance that is not positive, or
            no step.
    """
    checks.tensor("weights", weights)
    checks.require(weights.ndim >= 1, "weights", weights, "a non-empty (..., L) of finite numbers")
    start = weights.detach().to("cpu", torch.float64)
    target = checks.number("target", target)
    _, _, eta, _ = _run_setting(torch.ones(1, device="cpu"), 1, step_size)
    checks.number("tolerance", tolerance, above=0, allowed="a positive number")
    checks.positive_integer("max_steps", max_steps)
    runs = tuple(checks.broadcast("weights and step_size", start.shape[:-1], eta.shape))
    layers = start.shape[-1]
    # Layers first: each is one contiguous row, and the products below run over rows.
    w = np.ascontiguousarray(np.broadcast_to(start.numpy(), (*runs, layers)).reshape(-1, layers).T)
    eta = np.broadcast_to(eta, runs).ravel()
    converged, diverged = np.full((2, w.shape[1]), -1, dtype=np.int64)
    run = np.arange(w.shape[1])
    with np.errstate(all="ignore"):
        for t in range(max_steps + 1):
            others = _products_of_others(w)
            e = others[0] * w[0] - target
            loss = 0.5 * e * e
            done, lost = loss <= tolerance, ~(loss < np.inf)
            if done.any() or lost.any():
                converged[run[done]], diverged[run[lost]] = t, t
                going = ~(done | lost)
                w, others, e, eta, run = w[:, going], others[:, going], e[going], eta[going], run[going]
                if not len(run):
                    break
            w = w - eta * e * others
    device = scale.device_of(weights, step_size)
    return Count(*(torch.from_numpy(a).reshape(runs).to(device) for a in (converged, diverged)))


def _products_of_others(w: np.ndarray) -> np.ndarray:
    """For every layer the product of all the others, without a division; ``(L, runs)``."""
    above, below = np.ones_like(w), np.ones_like(w)
    for layer in range(1, len(w)):
        below[layer] = below[layer - 1] * w[layer - 1]
        above[-1 - layer] = above[-layer] * w[-layer]
    return above * below


def step_sizes(low: float, high: float, ratio: float, *, device: torch.device | str | None = None) -> Tensor:
    """A logarithmic grid from ``high`` downwards, by the factor ``ratio`` > 1, to at least ``low``; increasing.

    It lives on ``device``, by default :func:`firststep.scale.device`.

    Raises:
        ValueError: not 0 < low < high, or a ratio of at most 1.
    """
    checks.number("low", low, above=0, allowed="a positive number")
    checks.number("high", high, above=low, allowed=f"a finite number above low={low}")
    checks.number("ratio", ratio, above=1, allowed="a finite number above 1")
    count = math.floor(math.log(high / low) / math.log(ratio) + 1e-9)
    device = scale.chosen(device)
    return high * ratio ** -torch.arange(count, -1, -1, dtype=torch.float64, device=device)
