"""Synthetic linear tasks with exact moments.

Samples are columns, ``x: (..., d_0, n)``; the moments XXᵀ, YXᵀ and ‖Y‖²_F are all that training a linear network needs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from firststep import checks
from firststep.linear import Moments


@dataclass(frozen=True, eq=False)
class LinearTask:
    """A linear regression task and its exact moments; leading axes are seeds.

    Attributes:
        x: inputs, ``(..., d_0, n)``, one column a sample.
        y: targets, ``(..., d_L, n)``.
        moments: XXᵀ, YXᵀ and ‖Y‖²_F. When the task is whitened XXᵀ is the identity, entry for entry, and without noise
            YXᵀ is then the teacher.
        teacher: the planted map A in Y = A X + noise, ``(..., d_L, d_0)``, or None if none was planted.
    """

    x: Tensor
    y: Tensor
    moments: Moments
    teacher: Tensor | None


def linear_task(
    d_in: int,
    d_out: int,
    n: int,
    *,
    generator: torch.Generator | Sequence[torch.Generator],
    whitened: bool = False,
    teacher: Literal["gaussian", "none"] | Tensor = "gaussian",
    noise: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> LinearTask:
    """Draw a linear task Y = A X + σE.

    All parts are scaled so that the moments stay of order one however many samples there are: X and E have
    independent N(0, 1/n) entries, so XXᵀ tends to the identity as n grows (at finite n its eigenvalues spread
    over [(1 − √(d_0/n))², (1 + √(d_0/n))²], the Marchenko–Pastur law). A Gaussian teacher has N(0, 1/d_0)
    entries, which gives the entries of A X the variance of those of X.

    Args:
        d_in: input dimension d_0.
        d_out: output dimension d_L.
        n: number of samples. Fewer than ``d_in`` makes XXᵀ singular.
        generator: one generator, or one for each seed of a batch. Seed 3 of a batch equals seed 3 alone, bit
            for bit. Tensors are drawn on the generator's device in the order inputs, teacher, noise, so
            changing a later part leaves the earlier ones as they were.
        whitened: make the rows of X orthonormal (uniformly distributed), so that XXᵀ is the identity: to
            round-off in ``x``, exactly in ``moments.xx``. Needs ``n >= d_in``.
        teacher: ``"gaussian"`` draws A; a tensor ``(d_out, d_in)``, or ``(seeds, d_out, d_in)`` with a
            sequence of generators, is A; ``"none"`` makes Y = E, targets independent of the inputs, for which
            YXᵀ has the full rank min(d_in, d_out, n) almost surely.
        noise: σ, so that Y − A X has N(0, σ²/n) entries. Must be 0 without a teacher.
        dtype: ``torch.float64`` or ``torch.float32``.

    Returns:
        The task; its tensors have a leading axis exactly if ``generator`` is a sequence.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    for name, value in (("d_in", d_in), ("d_out", d_out), ("n", n)):
        checks.positive_integer(name, value)
    checks.floating("dtype", dtype)
    checks.flag("whitened", whitened)
    if whitened and n < d_in:
        raise ValueError(f"whitened data need n >= d_in, got n={n}, d_in={d_in}")
    generators = checks.generators("generator", generator)
    single = isinstance(generator, torch.Generator)
    teachers = _teachers(teacher, (d_out, d_in), None if single else len(generators), dtype)
    noise = _noise(noise, teacher)

    # One seed after the other: the same operations on the same shapes give the same bits as one seed alone.
    tasks = [
        _draw_task((d_in, d_out, n), seed, planted, whitened=whitened, noise=noise, dtype=dtype)
        for seed, planted in zip(generators, teachers, strict=True)
    ]
    return tasks[0] if single else _stack(tasks)


def _draw_task(
    sizes: tuple[int, int, int],
    generator: torch.Generator,
    teacher: str | Tensor,
    *,
    whitened: bool,
    noise: float,
    dtype: torch.dtype,
) -> LinearTask:
    """Draw one seed of a task whose arguments have been checked; ``sizes`` is ``(d_0, d_L, n)``."""
    d_in, d_out, n = sizes

    def gaussian(rows: int, columns: int, *, variance: float) -> Tensor:
        draw = torch.randn(rows, columns, generator=generator, dtype=dtype, device=generator.device)
        return draw * math.sqrt(variance)

    if whitened:
        rows = torch.empty(d_in, n, dtype=dtype, device=generator.device)
        x = torch.nn.init.orthogonal_(rows, generator=generator)
        xx = torch.eye(d_in, dtype=dtype, device=generator.device)
    else:
        x = gaussian(d_in, n, variance=1 / n)
        xx = x @ x.mT

    if isinstance(teacher, str) and teacher == "none":
        planted, y = None, gaussian(d_out, n, variance=1 / n)
        yx = y @ x.mT
    else:
        drawn = isinstance(teacher, str)
        planted = gaussian(d_out, d_in, variance=1 / d_in) if drawn else teacher.to(generator.device)
        # YXᵀ = A XXᵀ + σEXᵀ, summed this way, is A itself for whitened data without noise.
        y, yx = planted @ x, planted @ xx
        if noise > 0:
            errors = noise * gaussian(d_out, n, variance=1 / n)
            y, yx = y + errors, yx + errors @ x.mT
    return LinearTask(x=x, y=y, moments=Moments(xx, yx, y.square().sum()), teacher=planted)


def _stack(tasks: list[LinearTask]) -> LinearTask:
    """Stack tasks along a new leading axis of seeds."""
    x, y = (torch.stack([getattr(task, name) for task in tasks]) for name in ("x", "y"))
    moments = [torch.stack([getattr(task.moments, name) for task in tasks]) for name in ("xx", "yx", "yy")]
    planted = None if tasks[0].teacher is None else torch.stack([task.teacher for task in tasks])
    return LinearTask(x, y, Moments(*moments), planted)


def _teachers(
    teacher: str | Tensor, shape: tuple[int, int], seeds: int | None, dtype: torch.dtype
) -> list[str] | list[Tensor]:
    """One teacher for each seed (``seeds`` is None for a task without a batch axis), or a ValueError."""
    count = seeds or 1
    if isinstance(teacher, str) and teacher in ("gaussian", "none"):
        return [teacher] * count
    good = isinstance(teacher, Tensor) and teacher.is_floating_point()
    checks.require(good, "teacher", teacher, "'gaussian', 'none' or a floating-point tensor")
    # A copy, so that a task does not change when the caller's tensor does.
    planted = checks.matrices("teacher", teacher.detach().to(dtype, copy=True))
    found, allowed = tuple(teacher.shape), [shape] if seeds is None else [shape, (seeds, *shape)]
    if found not in allowed:
        shapes = " or ".join(map(str, allowed))
        raise ValueError(f"teacher must have shape {shapes}, got teacher of shape {found}")
    return list(planted.expand(count, *shape))


def _noise(noise: float, teacher: str | Tensor) -> float:
    """The noise level as a float, or a ValueError."""
    level = checks.between("noise", noise, 0)
    planted = not isinstance(teacher, str) or teacher != "none"
    checks.require(level == 0 or planted, "noise", noise, "0 when teacher='none' makes all of Y noise")
    return level
