"""One sentence for every bad argument: its name, its value, and what is allowed.

A check stands once, at the door: the public function that a page or a user calls. What is behind the door trusts it.
"""

import itertools
import math
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real

import torch
from torch import Generator, Tensor

# The types that LAPACK knows, and in which every threshold of the book is stated.
FLOATS = (torch.float32, torch.float64)
# No loop comes to the end of a larger count, and no machine stores a larger side.
LARGEST = 2**40


def require(condition: bool, name: str, value: object, allowed: str) -> None:
    """Raise ``ValueError`` that names the argument, its value and what is allowed, unless ``condition``."""
    if not condition:
        raise ValueError(f"{name} must be {allowed}, got {name}={value!r}")


def instance(name: str, value: object, kind: type, allowed: str | None = None) -> None:
    """``value`` is a ``kind``; ``allowed`` says it in other words."""
    require(isinstance(value, kind), name, value, allowed or f"a {kind.__name__}")


def flag(name: str, value: object) -> None:
    require(isinstance(value, bool), name, value, "True or False")


def is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def positive_integer(name: str, value: object) -> int:
    """A size or a count of at least 1, and at most ``LARGEST``."""
    require(is_integer(value) and value >= 1, name, value, "a positive integer")
    require(value <= LARGEST, name, value, "a positive integer of at most 2^40")
    return value


def natural(name: str, value: object) -> int:
    """A count of at least 0, and at most ``LARGEST``."""
    require(is_integer(value) and value >= 0, name, value, "a non-negative integer")
    require(value <= LARGEST, name, value, "a non-negative integer of at most 2^40")
    return value


def number(name: str, value: object, *, above: float = -math.inf, allowed: str = "a finite number") -> float:
    good = isinstance(value, Real) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
    require(good and value > above, name, value, allowed)
    return float(value)


def between(name: str, value: object, low: float, high: float = math.inf, *, open_end: bool = False) -> float:
    """A finite number in [low, high], or in [low, high) with ``open_end``."""
    interval = f"a number in [{low}, {high}{')' if open_end else ']'}"
    found = number(name, value, allowed=f"a finite number of at least {low}" if high == math.inf else interval)
    good = low <= found <= high and not (open_end and found == high)
    require(good, name, value, f"a number of at least {low}" if high == math.inf else interval)
    return found


def one_of(name: str, value: object, options: Collection[str]) -> str:
    require(isinstance(value, str) and value in options, name, value, "one of " + ", ".join(sorted(options)))
    return value


def listed(value: object) -> object:
    """What can be gone through as a tuple, and anything else as it is."""
    try:
        return tuple(value)
    except TypeError:  # a tensor without axes says that it can, and cannot
        return value


def functions(name: str, value: Mapping[str, Callable] | None) -> None:
    good = isinstance(value, Mapping) and all(isinstance(k, str) and callable(f) for k, f in value.items())
    require(good, name, value, "functions by their names")


def widths(name: str, value: Iterable[int]) -> tuple[int, ...]:
    """The widths ``(d_0, …, d_L)`` of a network with at least one layer."""
    value = listed(value)
    good = isinstance(value, tuple) and len(value) >= 2 and all(is_integer(d) and 1 <= d <= LARGEST for d in value)
    require(good, name, value, "at least two positive integers (d_0, …, d_L)")
    return value


def generators(name: str, value: Generator | Sequence[Generator]) -> list[Generator]:
    """One generator, or one a seed: different ones, since the second draw of one would depend on its first."""
    found = [value] if isinstance(value, Generator) else value
    good = isinstance(found, Sequence) and len(found) > 0 and all(isinstance(g, Generator) for g in found)
    good = good and len({id(g) for g in found}) == len(found) and len({g.device for g in found}) == 1
    require(good, name, value, "a torch.Generator or a non-empty list of different ones on one device")
    return list(found)


def generator(name: str, value: Generator) -> None:
    instance(name, value, Generator, "a torch.Generator")


def floating(name: str, value: torch.dtype) -> torch.dtype:
    require(isinstance(value, torch.dtype) and value in FLOATS, name, value, "torch.float32 or torch.float64")
    return value


def every(condition: Tensor) -> bool:
    """Whether a condition holds for all entries; a tensor on torch's ``meta`` device has none, and passes."""
    return condition.is_meta or bool(condition.all())


def finite(name: str, value: Tensor) -> None:
    """No entry is nan or inf. One of them makes the sum such, which costs a third of looking at every entry."""
    if not (every(value.detach().sum().isfinite()) or every(value.isfinite())):
        raise ValueError(f"{name} must have finite entries only, got {name} with nan or inf")


def is_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {name} of type {type(value).__name__}")


def tensor(name: str, value: Tensor, dtype: torch.dtype | None = None) -> None:
    """A non-empty tensor in float32 or float64, or in one dtype, with finite entries."""
    is_tensor(name, value)
    if value.numel() == 0:
        raise ValueError(f"{name} must not be empty, got {name} of shape {tuple(value.shape)}")
    if dtype is not None and value.dtype != dtype:
        raise ValueError(f"{name} must have the dtype of its partners, {dtype}, got {name} of dtype {value.dtype}")
    if value.dtype not in FLOATS:
        raise ValueError(f"{name} must have dtype torch.float32 or torch.float64, got {name} of dtype {value.dtype}")
    finite(name, value)


def matrices(name: str, value: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """A batch of non-empty matrices with finite entries in float32 or float64, or in one dtype."""
    if isinstance(value, Tensor) and (value.ndim < 2 or value.numel() == 0):
        shape = tuple(value.shape)
        raise ValueError(f"{name} must be a batch of non-empty matrices (..., m, n), got {name} of shape {shape}")
    tensor(name, value, dtype)
    return value


def reals(name: str, value: object, *, device: torch.device | str, allowed: str, positive: bool = False) -> Tensor:
    """Numbers or a tensor as float64 on a device: not empty, finite, and at least 0 or above it."""
    typed = isinstance(value, Tensor)
    good = not isinstance(value, str | bool) and not (typed and (value.is_complex() or value.dtype == torch.bool))
    try:
        found = torch.as_tensor(value if good else [], dtype=torch.float64, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = torch.empty(0, device=device)
    require(found.numel() > 0, name, value, allowed)
    require(every(found.isfinite() & ((found > 0) if positive else (found >= 0))), name, value, allowed)
    return found


def broadcast(name: str, *shapes: tuple[int, ...]) -> torch.Size:
    """The shape that all these leading axes broadcast to."""
    try:
        return torch.broadcast_shapes(*shapes)
    except RuntimeError:
        found = [tuple(shape) for shape in shapes]
        raise ValueError(f"{name} must have leading axes that broadcast, got {name} with {found}") from None


def weights(name: str, value: Sequence[Tensor], count: int | None = None) -> list[Tensor]:
    """Weights ``[W_1, …, W_L]`` of one dtype, on one device, with ``W_l: (..., d_l, d_{l-1})`` that can be multiplied.

    ``count`` asks for that many layers.
    """
    good = isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 0
    require(good, name, value, "a non-empty list [W_1, …, W_L]")
    layers = list(value)
    for index, weight in enumerate(layers, start=1):
        matrices(f"{name}[W_{index}]", weight)
    require(count in (None, len(layers)), name, len(layers), f"{count} layers")
    for what, kinds in (("dtype", {w.dtype for w in layers}), ("device", {w.device for w in layers})):
        if len(kinds) > 1:
            raise ValueError(f"{name} must have one {what}, got {name} of {what}s {[getattr(w, what) for w in layers]}")
    shapes = [tuple(w.shape) for w in layers]
    good = all(after[-1] == before[-2] for before, after in itertools.pairwise(shapes))
    if not good:
        raise ValueError(f"{name} must chain, W_l of shape (..., d_l, d_(l-1)), got {name} of shapes {shapes}")
    broadcast(name, *(shape[:-2] for shape in shapes))
    return layers
