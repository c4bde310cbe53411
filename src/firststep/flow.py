"""Gradient flow: the limit of gradient descent for vanishing step size, integrated by ``scipy.integrate.solve_ivp``.

Gradient flow dW_l/dt = −∂L/∂W_l of a deep linear network exists for all times, because the loss is a polynomial that is
bounded below. So a run that ends early is the solver's doing; it is flagged, not hidden. scipy integrates numpy arrays
on the CPU; results come back on the device of the weights.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from firststep import checks, linear

# Dormand and Prince's pair of order 8: the flows here are smooth and wanted to many digits.
METHOD = "DOP853"


@dataclass(frozen=True)
class Flow:
    """A gradient flow at given times.

    Attributes:
        times: ``(T,)``.
        weights: ``[W_1, …, W_L]``, ``W_l: (T, runs..., d_l, d_{l-1})``; nan from where the solver gave up.
        failed: whether the solver gave up before the last time, ``(runs...)``.
        evaluations: how often the gradient was computed, ``(runs...)``.
    """

    times: Tensor
    weights: linear.Weights
    failed: Tensor
    evaluations: Tensor


def gradient_flow(
    weights: linear.Weights,
    moments: linear.Moments,
    times: Sequence[float] | Tensor,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-12,
) -> Flow:
    """Integrate dW_l/dt = −∂L/∂W_l from ``weights`` at time 0, all layers at once.

    Every run is integrated on its own, with its own adaptive steps, so that seed 3 of a batch equals seed 3 alone.

    Args:
        weights: the start, float64, ``W_l: (runs..., d_l, d_{l-1})``.
        moments: the data, broadcast over the runs.
        times: increasing, from 0 on; the first may be 0.
        rtol: relative tolerance of a step's local error, an entry of the weights at a time; at least 2.3e-14.
        atol: absolute tolerance of the same.

    Returns:
        A :class:`Flow` at ``times``.

    Raises:
        ValueError: shapes that do not chain or fit, entries that are not finite, another dtype than float64, times
            that do not increase or are negative, or a tolerance that is not positive.

    Source: Hairer, Nørsett & Wanner (1993), Section II.5, for the method; Min et al. (2021), Eq. (2), for the flow.
    """
    weights = checks.weights("weights", weights)
    start = linear.gradient(weights, moments)  # checks the moments against the shapes
    checks.require(all(w.dtype == torch.float64 for w in weights), "weights", weights[0].dtype, "of dtype float64")
    smallest = 100 * np.finfo(float).eps  # below it scipy would silently take a larger one
    checks.number("rtol", rtol, above=smallest, allowed="a number above 2.3e-14")
    checks.number("atol", atol, above=0, allowed="a positive number")
    times = _times(times)
    runs = torch.broadcast_shapes(*(g.shape[:-2] for g in start), *(w.shape[:-2] for w in weights))
    shapes = [w.shape[-2:] for w in weights]
    flat = [w.cpu().expand(*runs, *s).reshape(-1, *s) for w, s in zip(weights, shapes, strict=True)]
    paths, failed, evaluations = [], [], []
    for run, one in enumerate(_moments_of_runs(moments, runs)):
        path, complete, count = _integrate([w[run] for w in flat], one, times, rtol, atol)
        paths.append(path)
        failed.append(not complete)
        evaluations.append(count)
    device = weights[0].device
    stacked = (torch.stack(layer, 1) for layer in zip(*paths, strict=True))
    layers = [layer.reshape(len(times), *runs, *layer.shape[2:]).to(device) for layer in stacked]
    counts = (torch.tensor(values, device=device).reshape(runs) for values in (failed, evaluations))
    return Flow(times.to(device), layers, *counts)


def _integrate(
    weights: linear.Weights, moments: linear.Moments, times: Tensor, rtol: float, atol: float
) -> tuple[linear.Weights, bool, int]:
    """One run: the layers at all times, whether it came to the end, and the number of gradients."""
    sizes = [w.numel() for w in weights]

    def layers(state: np.ndarray) -> linear.Weights:
        parts = torch.from_numpy(np.ascontiguousarray(state)).split(sizes)
        return [part.reshape(w.shape) for part, w in zip(parts, weights, strict=True)]

    def velocity(_time: float, state: np.ndarray) -> np.ndarray:
        # The start was checked once; checking every trial state would cost more than the gradient.
        return -torch.cat([g.reshape(-1) for g in linear._gradient(layers(state), moments)]).numpy()

    start = torch.cat([w.reshape(-1) for w in weights]).numpy()
    if times[-1] == 0:
        return [w.unsqueeze(0) for w in weights], True, 0
    solution = solve_ivp(
        velocity, (0.0, float(times[-1])), start, method=METHOD, t_eval=times.numpy(), rtol=rtol, atol=atol
    )
    states = torch.full((len(times), len(start)), math.nan, dtype=torch.float64, device="cpu")
    states[: solution.y.shape[1]] = torch.from_numpy(solution.y.T.copy())
    path = [part.reshape(-1, *w.shape) for part, w in zip(states.split(sizes, 1), weights, strict=True)]
    return path, solution.success, solution.nfev


def _moments_of_runs(moments: linear.Moments, runs: torch.Size) -> list[linear.Moments]:
    """The moments of each run of a batch, in the order of the flattened runs, on the CPU."""

    def split(value: Tensor, trailing: int) -> list[Tensor]:
        shape = value.shape[value.ndim - trailing :]
        return list(torch.broadcast_to(value.cpu(), (*runs, *shape)).reshape(-1, *shape))

    yx, yy = split(moments.yx, 2), split(moments.yy, 0)
    xx = [None] * len(yx) if moments.xx is None else split(moments.xx, 2)
    return [linear.Moments(*one) for one in zip(xx, yx, yy, strict=True)]


def _times(times: Sequence[float] | Tensor) -> Tensor:
    allowed = "finite, increasing and non-negative"
    found = checks.reals("times", times, device="cpu", allowed=allowed)
    checks.require(found.ndim == 1 and bool((found.diff() > 0).all()), "times", found.tolist(), allowed)
    checks.require(bool(found[-1] <= checks.LARGEST), "times", found.tolist(), "at most 2^40")
    return found
