"""Initializers: one random matrix, and whole networks ``[W_1, …, W_L]``.

Randomness enters only through ``torch.Generator``. Where ``torch.nn.init`` has the draw, it does the drawing.
A network can be drawn for one generator or for a list of them; a list puts the seeds on a leading axis, and
seed 3 of a batch of 64 equals seed 3 alone.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor, nn

from firststep import checks, scale

Draw = Callable[[Tensor, Generator], object]


# Standard deviation of an entry, by fan-out and fan-in, of the schemes that draw entries independently.
_FAMILIES: dict[str, Callable[[int, int], float]] = {
    # Glorot & Bengio (2010), Eqs. (12) and (16): variance 2 / (fan_in + fan_out).
    "xavier": lambda rows, columns: math.sqrt(2 / (rows + columns)),
    # He et al. (2015), Eq. (10): variance 2 / fan_in.
    "he": lambda rows, columns: math.sqrt(2 / columns),
    # LeCun et al. (1998), Eq. (16): variance 1 / fan_in.
    "lecun": lambda rows, columns: 1 / math.sqrt(columns),
    # Skorski (2020), Eq. (8): spectral norm about 1.
    "curvature": lambda rows, columns: 1 / (math.sqrt(rows) + math.sqrt(columns)),
}
# A standard normal that is redrawn outside ±2 keeps the variance 1 − 4φ(2) / (2Φ(2) − 1).
_CUT = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))
_SIGMA = {
    **{f"{family}_{law}": std for family, std in _FAMILIES.items() for law in ("normal", "uniform")},
    "truncated_normal": lambda rows, columns: _CUT / math.sqrt(columns),
    "sign": lambda rows, columns: 1.0,
}


def sigma(name: str, rows: int, columns: int) -> float:
    """Standard deviation of an entry of a matrix with independent entries, in closed form.

    Args:
        name: a key of ``INITIALIZERS`` whose entries are independent.
        rows: fan-out.
        columns: fan-in.

    Raises:
        ValueError: the scheme's entries are dependent or its name is unknown, or a size is not a positive integer.

    Source: the papers named at ``INITIALIZERS``.
    """
    checks.one_of("name", name, _SIGMA)
    checks.positive_integer("rows", rows)
    checks.positive_integer("columns", columns)
    return _SIGMA[name](rows, columns)


def _normal(family: str) -> Draw:
    return lambda w, g: nn.init.normal_(w, 0.0, _FAMILIES[family](*w.shape), generator=g)


def _uniform(family: str) -> Draw:
    def draw(weight: Tensor, generator: Generator) -> None:
        end = math.sqrt(3) * _FAMILIES[family](*weight.shape)
        nn.init.uniform_(weight, -end, end, generator=generator)

    return draw


def _truncated_normal(weight: Tensor, generator: Generator) -> None:
    std = 1 / math.sqrt(weight.shape[1])
    nn.init.trunc_normal_(weight, 0.0, std, -2 * std, 2 * std, generator=generator)


def _sign(weight: Tensor, generator: Generator) -> None:
    weight.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)


INITIALIZERS: dict[str, Draw] = {
    # Glorot & Bengio (2010), Eqs. (12) and (16): variance 2 / (fan_in + fan_out).
    "xavier_normal": lambda w, g: nn.init.xavier_normal_(w, generator=g),
    "xavier_uniform": lambda w, g: nn.init.xavier_uniform_(w, generator=g),
    # He et al. (2015), Eq. (10): variance 2 / fan_in.
    "he_normal": lambda w, g: nn.init.kaiming_normal_(w, nonlinearity="relu", generator=g),
    "he_uniform": lambda w, g: nn.init.kaiming_uniform_(w, nonlinearity="relu", generator=g),
    # LeCun et al. (1998), Eq. (16): variance 1 / fan_in.
    "lecun_normal": _normal("lecun"),
    "lecun_uniform": _uniform("lecun"),
    # Skorski (2020), Eq. (8): standard deviation 1 / (√fan_in + √fan_out).
    "curvature_normal": _normal("curvature"),
    "curvature_uniform": _uniform("curvature"),
    # Normal of standard deviation 1/√fan_in, redrawn outside two of them.
    "truncated_normal": _truncated_normal,
    # Saxe et al. (2014): uniform over matrices with orthonormal rows or columns.
    "orthogonal": lambda w, g: nn.init.orthogonal_(w, generator=g),
    # Le, Jaitly & Hinton (2015): ones on the main diagonal.
    "identity": lambda w, g: nn.init.eye_(w),
    # Independent fair ±1: the discrete control, singular with positive probability.
    "sign": _sign,
}


def matrix(name: str, rows: int, columns: int, *, generator: Generator, dtype: torch.dtype = torch.float64) -> Tensor:
    """One random weight matrix.

    Args:
        name: a key of ``INITIALIZERS``.
        rows: fan-out.
        columns: fan-in.
        generator: source of randomness.
        dtype: floating-point type of the entries; the draw is made in this type.

    Returns:
        ``(rows, columns)``.

    Raises:
        ValueError: unknown name, a size that is not a positive integer, or no floating-point dtype.
    """
    checks.one_of("name", name, INITIALIZERS)
    checks.positive_integer("rows", rows)
    checks.positive_integer("columns", columns)
    checks.generator("generator", generator)
    return _matrix(name, rows, columns, generator, checks.floating("dtype", dtype))


def _matrix(name: str, rows: int, columns: int, generator: Generator, dtype: torch.dtype) -> Tensor:
    weight = torch.empty(rows, columns, dtype=dtype, device=generator.device)
    INITIALIZERS[name](weight, generator)
    return weight


def network(
    widths: Sequence[int],
    name: str,
    *,
    generator: Generator | Sequence[Generator],
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """All weights of a network from one initializer.

    Args:
        widths: ``(d_0, …, d_L)``.
        name: a key of ``INITIALIZERS``.
        generator: one generator, or one a seed.
        dtype: floating-point type of the weights.

    Returns:
        ``[W_1, …, W_L]``, ``W_l: (d_l, d_{l-1})``, or ``(seeds, d_l, d_{l-1})`` for a list of generators.

    Raises:
        ValueError: as :func:`matrix`; or fewer than two widths, or no generator.
    """
    widths = checks.widths("widths", widths)
    checks.one_of("name", name, INITIALIZERS)
    checks.floating("dtype", dtype)

    def one(g: Generator) -> list[Tensor]:
        shapes = zip(widths[1:], widths[:-1], strict=True)
        return [_matrix(name, rows, columns, g, dtype) for rows, columns in shapes]

    return _per_seed(one, generator)


def prescribed_rank(
    widths: Sequence[int],
    ranks: int | Sequence[int],
    *,
    aligned: bool,
    generator: Generator | Sequence[Generator],
    dtype: torch.dtype = torch.float64,
) -> list[Tensor]:
    """Factors of given ranks, with the mean squared entry of Xavier's initialization.

    ``W_l`` maps an ``r_l``-dimensional subspace of layer ``l-1`` to one of layer ``l``. *Aligned* factors read
    where their predecessor writes: row(W_{l+1}) and col(W_l) are nested. *Unaligned* ones are in general position,
    so that their sum has dimension min(d_l, r_l + r_{l+1}), with probability one.

    Args:
        widths: ``(d_0, …, d_L)``.
        ranks: ``(r_1, …, r_L)``, or one rank for all.
        aligned: whether subspaces of neighbours are nested.
        generator: one generator, or one a seed.
        dtype: floating-point type of the weights.

    Returns:
        ``[W_1, …, W_L]``, as :func:`network`.

    Raises:
        ValueError: a rank is negative or exceeds the smaller side of its matrix; else as :func:`network`.
    """
    widths = checks.widths("widths", widths)
    checks.floating("dtype", dtype)
    checks.flag("aligned", aligned)
    shapes = list(zip(widths[1:], widths[:-1], strict=True))
    ranks = checks.listed(ranks)
    ranks = ranks if isinstance(ranks, tuple) else (ranks,) * len(shapes)
    limits = tuple(min(shape) for shape in shapes)
    good = len(ranks) == len(shapes) and all(
        checks.is_integer(r) and 0 <= r <= limit for r, limit in zip(ranks, limits, strict=True)
    )
    checks.require(good, "ranks", ranks, f"one integer a layer between 0 and {limits}")

    def one(g: Generator) -> list[Tensor]:
        bases = [_orthonormal(d, g, dtype) for d in widths]
        weights = []
        for (rows, columns), r, reads, writes in zip(shapes, ranks, bases[:-1], bases[1:], strict=True):
            if not aligned:
                reads, writes = _orthonormal(columns, g, dtype), _orthonormal(rows, g, dtype)
            core = torch.randn(r, r, generator=g, dtype=dtype, device=g.device)
            weight = writes[:, :r] @ core @ reads[:, :r].mT
            size = weight.square().mean().sqrt()
            weights.append(weight * (math.sqrt(2 / (rows + columns)) / size if r else 1.0))
        return weights

    return _per_seed(one, generator)


def generator(seed: int, device: torch.device | str | None = None) -> Generator:
    """The generator of one seed; its device, by default :func:`firststep.scale.device`, is that of what it draws.

    Raises:
        ValueError: not an integer that fits in 63 bits.
    """
    checks.require(checks.is_integer(seed) and 0 <= seed < 2**63, "seed", seed, "an integer in [0, 2^63)")
    return Generator(scale.chosen(device)).manual_seed(int(seed))


def generators(seeds: Sequence[int] | int, device: torch.device | str | None = None) -> list[Generator]:
    """One :func:`generator` a seed; an integer ``n`` means seeds ``0 … n-1``.

    Raises:
        ValueError: neither a positive integer nor a non-empty list of integers that fit in 63 bits.
    """
    many = seeds if checks.is_integer(seeds) and seeds <= checks.LARGEST else 0
    found = checks.listed(range(many) if checks.is_integer(seeds) else seeds)
    found = found if isinstance(found, tuple) else ()
    good = len(found) > 0 and all(checks.is_integer(seed) and 0 <= seed < 2**63 for seed in found)
    checks.require(good, "seeds", seeds, "a positive integer, or a non-empty list of integers in [0, 2^63)")
    device = scale.chosen(device)
    return [generator(seed, device) for seed in found]


def _per_seed(one: Callable[[Generator], list[Tensor]], generator: Generator | Sequence[Generator]) -> list[Tensor]:
    """Draw a network for one generator, or for each of several with the seeds on a leading axis."""
    drawn = [one(g) for g in checks.generators("generator", generator)]
    return drawn[0] if isinstance(generator, Generator) else [torch.stack(layer) for layer in zip(*drawn, strict=True)]


def _orthonormal(size: int, generator: Generator, dtype: torch.dtype) -> Tensor:
    return _matrix("orthogonal", size, size, generator, dtype)
