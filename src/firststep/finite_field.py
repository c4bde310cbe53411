"""Gradient descent and rank without round-off: the same algebra over the integers modulo a prime.

Whether a matrix is singular, and whether one subspace lies in another, are polynomial conditions. They can be
checked exactly in the field GF(p): a polynomial identity over the integers holds there too, and a non-zero
polynomial of degree k vanishes at a uniform random point with probability at most k/p (Schwartz 1980, Zippel
1979). So a rank bound that gradient descent obeys for algebraic reasons can never be exceeded in GF(p), and a rank that
is reached here is reached by almost all real matrices. The converse holds for random entries but for a chance of order
1e-7 as long as k is far below p; after many steps of gradient descent k is not, and the chance is small by experience
only. No tolerance is involved.

Entries are int64 in ``[0, p)``, in numpy arrays on the CPU. Products of two entries are below 2^52, so sums over 2,048
terms are exact.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from firststep import checks

Matrix = NDArray[np.int64]
PRIME = 67_108_859  # the largest prime below 2^26
_LARGEST_SUM = 2**11


def random_matrix(rows: int, columns: int, generator: np.random.Generator, *, rank: int | None = None) -> Matrix:
    """Uniform random matrix over GF(p), or the product of two such of inner size ``rank``.

    Raises:
        ValueError: a size is not a positive integer, ``rank`` exceeds the smaller one, or no numpy generator.
    """
    _generator(generator)
    checks.positive_integer("rows", rows)
    checks.positive_integer("columns", columns)
    if rank is None:
        return generator.integers(0, PRIME, (rows, columns))
    good = checks.is_integer(rank) and 0 <= rank <= min(rows, columns)
    checks.require(good, "rank", rank, f"an integer between 0 and min(rows, columns)={min(rows, columns)}")
    left = generator.integers(0, PRIME, (rows, rank))
    return multiply(left, generator.integers(0, PRIME, (rank, columns)))


def multiply(*factors: Matrix) -> Matrix:
    """Product modulo p, from left to right.

    Raises:
        ValueError: no factors, entries outside the field, or inner sizes that differ or exceed what int64 sums hold
            exactly.
    """
    checks.require(len(factors) > 0, "factors", factors, "at least one matrix")
    result = _field("factors", *factors)[0]
    for factor in factors[1:]:
        good = result.shape[1] == factor.shape[0] <= _LARGEST_SUM
        checks.require(good, "shapes", (result.shape, factor.shape), f"chained, inner size at most {_LARGEST_SUM}")
        result = result @ factor % PRIME
    return result


def column_basis(a: Matrix) -> Matrix:
    """The columns of ``a`` that do not depend on the ones to their left: a basis of its column space.

    Raises:
        ValueError: entries outside the field.
    """
    reduced, pivots = _field("a", a)[0].copy(), []
    for column in range(a.shape[1]):
        found = len(pivots)
        candidates = np.flatnonzero(reduced[found:, column])
        if candidates.size == 0:
            continue
        pivot = found + candidates[0]
        reduced[[found, pivot]] = reduced[[pivot, found]]
        reduced[found] = reduced[found] * pow(int(reduced[found, column]), -1, PRIME) % PRIME
        below = reduced[found + 1 :]
        below -= below[:, column, None] * reduced[found] % PRIME
        below %= PRIME
        pivots.append(column)
        if len(pivots) == a.shape[0]:
            break
    return a[:, pivots]


def rank(a: Matrix) -> int:
    """Rank over GF(p) by Gaussian elimination: exact.

    Raises:
        ValueError: as :func:`column_basis`.
    """
    return column_basis(a).shape[1]


def gradient_step(weights: list[Matrix], xx: Matrix, yx: Matrix, step_size: int) -> list[Matrix]:
    """One step of gradient descent on ½‖W_L…W_1 X − Y‖² over GF(p), from the moments XXᵀ and YXᵀ.

    Args:
        weights: ``[W_1, …, W_L]``, ``W_l: (d_l, d_{l-1})``.
        xx: ``(d_0, d_0)``.
        yx: ``(d_L, d_0)``.
        step_size: η, any integer; it counts modulo p.

    Raises:
        ValueError: entries outside the field, shapes that do not chain, moments that do not fit, or no integer step.
    """
    _check_moments(_chain(weights), xx, yx)
    checks.require(checks.is_integer(step_size), "step_size", step_size, "an integer")
    step_size = int(step_size) % PRIME
    prefix = [np.eye(xx.shape[0], dtype=np.int64)]  # prefix[l] = W_l … W_1
    for weight in weights:
        prefix.append(multiply(weight, prefix[-1]))
    backward = (multiply(prefix[-1], xx) - yx) % PRIME  # W_{l+1}ᵀ … W_Lᵀ (W_L…W_1 XXᵀ − YXᵀ)
    stepped = []
    for layer in reversed(range(len(weights))):
        gradient = multiply(backward, prefix[layer].T)
        stepped.append((weights[layer] - step_size * gradient) % PRIME)
        backward = multiply(weights[layer].T, backward)
    return stepped[::-1]


def prescribed_rank(
    widths: Sequence[int], ranks: Sequence[int], *, aligned: bool, generator: np.random.Generator
) -> list[Matrix]:
    """Factors of given ranks over GF(p): the exact twin of :func:`firststep.inits.prescribed_rank`.

    Args:
        widths: ``(d_0, …, d_L)``.
        ranks: ``(r_1, …, r_L)``.
        aligned: whether row(W_{l+1}) and col(W_l) are nested; else the factors are in general position.
        generator: source of randomness.

    Raises:
        ValueError: bad widths, a rank that is negative or exceeds the smaller side of its matrix, or not one a layer.
    """
    widths = checks.widths("widths", widths)
    limits = [min(pair) for pair in itertools.pairwise(widths)]
    good = isinstance(ranks, Sequence) and len(ranks) == len(limits) and all(checks.is_integer(r) for r in ranks)
    good = good and all(0 <= r <= limit for r, limit in zip(ranks, limits, strict=True))
    checks.require(good, "ranks", ranks, f"one integer a layer between 0 and {tuple(limits)}")
    checks.flag("aligned", aligned)
    _generator(generator)
    bases = [random_matrix(d, d, generator) for d in widths]
    weights = []
    for layer, r in enumerate(ranks):
        if aligned:
            core = random_matrix(max(r, 1), max(r, 1), generator)[:r, :r]
            weights.append(multiply(bases[layer + 1][:, :r], core, bases[layer][:, :r].T))
        else:
            weights.append(random_matrix(widths[layer + 1], widths[layer], generator, rank=r))
    return weights


def reachable_rank(weights: list[Matrix]) -> int:
    """Largest rank the product can ever have under gradient descent, for any data, exactly.

    The twin of :func:`firststep.linear.reachable_rank`.

    Raises:
        ValueError: entries outside the field, or shapes that do not chain.
    """
    _chain(weights)
    spaces = [rank(np.concatenate([w, v.T], axis=1)) for w, v in itertools.pairwise(weights)]
    return min(weights[0].shape[1], weights[-1].shape[0], *spaces)


def active_spaces(weights: list[Matrix], xx: Matrix, yx: Matrix) -> list[Matrix]:
    """Bases of the subspaces T_0, …, T_L in which gradient descent can change a network on these data.

    They are the smallest with T_0 = col(XXᵀ), T_L ⊇ col(YXᵀ) + W_L T_{L-1} and T_i = W_i T_{i-1} + W_{i+1}ᵀ T_{i+1} in
    between, for the factors of the start. Then W_i(t) − W_i(0) has its columns in T_i and its rows in T_{i-1}, for
    all t and any step sizes; the chapter on full rank proves it.

    Raises:
        ValueError: entries outside the field, shapes that do not chain, or moments that do not fit.
    """
    _check_moments(_chain(weights), xx, yx)
    empty = [np.zeros((weight.shape[0], 0), dtype=np.int64) for weight in weights[:-1]]
    spaces = [column_basis(xx), *empty, column_basis(yx)]
    while True:
        sizes = [space.shape[1] for space in spaces]
        for i, weight in enumerate(weights, start=1):
            parts = [spaces[i], multiply(weight, spaces[i - 1])]
            if i < len(weights):
                parts.append(multiply(weights[i].T, spaces[i + 1]))
            spaces[i] = column_basis(np.concatenate(parts, axis=1))
        if [space.shape[1] for space in spaces] == sizes:
            return spaces


def data_ceiling(weights: list[Matrix], xx: Matrix, yx: Matrix, generator: np.random.Generator) -> int:
    """Largest rank of any product that gradient descent could make of this start on these data.

    That is the rank of Π (W_i + T_i C_i T_{i-1}ᵀ) for generic C_i, with the active spaces T_i of the start; random C_i
    over GF(p) give it, but for a chance of order 1e-7.

    Raises:
        ValueError: as :func:`active_spaces`; or no numpy generator.
    """
    _generator(generator)
    spaces = active_spaces(weights, xx, yx)
    moved = []
    for weight, reads, writes in zip(weights, spaces, spaces[1:], strict=False):
        core = generator.integers(0, PRIME, (writes.shape[1], reads.shape[1]))
        moved.append((weight + multiply(writes, core, reads.T)) % PRIME)
    return rank(multiply(*reversed(moved)))


def _generator(generator: np.random.Generator) -> None:
    checks.instance("generator", generator, np.random.Generator, "a numpy.random.Generator")


def _field(name: str, *arrays: Matrix) -> tuple[Matrix, ...]:
    """Matrices over GF(p), or a ValueError: sums of products of anything else could be wrong without a sign of it."""
    for a in arrays:
        if not isinstance(a, np.ndarray) or a.ndim != 2 or a.dtype != np.int64:
            kind = f"{a.dtype} array of shape {a.shape}" if isinstance(a, np.ndarray) else type(a).__name__
            raise ValueError(f"{name} must be a matrix of int64, got {name}: {kind}")
        if a.size and not (a.min() >= 0 and a.max() < PRIME):
            raise ValueError(f"{name} must have entries in [0, {PRIME}), got {name} from {a.min()} to {a.max()}")
    return arrays


def _chain(weights: list[Matrix]) -> list[Matrix]:
    checks.require(isinstance(weights, list | tuple) and len(weights) > 0, "weights", weights, "a non-empty list")
    shapes = [w.shape for w in _field("weights", *weights)]
    good = all(before[0] == after[1] for before, after in itertools.pairwise(shapes))
    if not good:
        raise ValueError(f"weights must chain, W_l of shape (d_l, d_(l-1)), got weights of shapes {shapes}")
    return weights


def _check_moments(weights: list[Matrix], xx: Matrix, yx: Matrix) -> None:
    d_in, d_out = weights[0].shape[1], weights[-1].shape[0]
    for name, value, shape in (("xx", xx, (d_in, d_in)), ("yx", yx, (d_out, d_in))):
        _field(name, value)
        if value.shape != shape:
            raise ValueError(f"{name} must be of shape {shape} to fit the weights, got {name} of shape {value.shape}")
