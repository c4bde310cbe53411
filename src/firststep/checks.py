"""One sentence for every bad argument: its name, its value, and what is allowed."""

import itertools
import math
import sys
from collections.abc import Collection, Iterable, Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

# The types that LAPACK knows, and in which every threshold of the book is stated.
FLOATS = (torch.float32, torch.float64)


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ``ValueError`` that names the argument, its value and what is allowed, unless ``condition``."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {name}={value!r}")


def is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def positive_integer(name: str, value: object) -> int:
    require(is_integer(value) and value >= 1, name, value, "a positive integer")
    return value


def number(name: str, value: object, *, above: float = -math.inf, allowed: str = "a finite number") -> float:
    good = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    require(good and value > above, name, value, allowed)
    return float(value)


def one_of(name: str, value: object, options: Collection[str]) -> str:
    require(isinstance(value, str) and value in options, name, value, "one of " + ", ".join(sorted(options)))
    return value


def widths(name: str, value: Iterable[int]) -> tuple[int, ...]:
    """The widths ``(d_0, …, d_L)`` of a network with at least one layer."""
    value = tuple(value) if isinstance(value, Iterable) else value
    good = isinstance(value, tuple) and len(value) >= 2 and all(is_integer(d) and d >= 1 for d in value)
    require(good, name, value, "at least two positive integers (d_0, …, d_L)")
    return value


def floating(name: str, value: torch.dtype) -> torch.dtype:
    require(isinstance(value, torch.dtype) and value in FLOATS, name, value, "torch.float32 or torch.float64")
    return value


def matrices(name: str, value: Tensor) -> Tensor:
    """A batch of non-empty matrices with finite entries in float32 or float64."""
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {name} of type {type(value).__name__}")
    shape = tuple(value.shape)
    if value.ndim < 2 or 0 in shape:
        raise ValueError(f"{name} must be a batch of non-empty matrices (..., m, n), got {name} of shape {shape}")
    if value.dtype not in FLOATS:
        raise ValueError(f"{name} must have dtype torch.float32 or torch.float64, got {name} of dtype {value.dtype}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} must have finite entries only, got {name} with nan or inf")
    return value


def broadcast(name: str, *shapes: tuple[int, ...]) -> torch.Size:
    """The shape that all these leading axes broadcast to."""
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        found = [tuple(shape) for shape in shapes]
        raise ValueError(f"{name} must have leading axes that broadcast, got {name} with {found}") from None


def chain(name: str, weights: Sequence[Tensor]) -> list[Tensor]:
    """Weights ``[W_1, …, W_L]`` of one dtype, with ``W_l: (..., d_l, d_{l-1})`` that can be multiplied."""
    good = isinstance(weights, Sequence) and not isinstance(weights, str) and len(weights) > 0
    require(good, name, weights, "a non-empty list [W_1, …, W_L]")
    weights = list(weights)
    for index, weight in enumerate(weights, start=1):
        matrices(f"{name}[W_{index}]", weight)
    dtypes = [weight.dtype for weight in weights]
    if len(set(dtypes)) > 1:
        raise ValueError(f"{name} must have one dtype, got {name} of dtypes {dtypes}")
    shapes = [tuple(w.shape) for w in weights]
    good = all(after[-1] == before[-2] for before, after in itertools.pairwise(shapes))
    if not good:
        raise ValueError(f"{name} must chain, W_l of shape (..., d_l, d_(l-1)), got {name} of shapes {shapes}")
    broadcast(name, *(shape[:-2] for shape in shapes))
    return weights
