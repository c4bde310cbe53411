"""Chains of random layers, with and without batch normalization, followed to any depth.

The hidden representations of N samples in a network of equal widths form a Markov chain,

    H_{l+1} = φ(BN(H_l + γ W_l H_l)),      H_0 = X: (d, N),

with fresh weights W_l of independent symmetric entries of variance one. BN divides every row by its root mean square
and subtracts nothing; γ = ∞ stands for a network without skip connections, BN(W_l H_l). Daneshmand et al. (2020),
Eqs. (1), (2) and Definition 1. Leading axes are seeds, one generator each; seed 3 of a batch equals seed 3 alone
up to round-off, and the first 100 layers of a long run are the same layers as those of a run of depth 100.

Nothing here stores the history: :func:`follow` keeps what is measured at the depths asked for, :func:`depth_average`
keeps running sums, and :func:`firststep.lyapunov.lyapunov_exponents` keeps growth rates.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from firststep import checks
from firststep.states import State

NORMALIZATIONS = ("rows", "frobenius", "none")
NONLINEARITIES = ("linear", "relu")
_CHUNK = 2**18  # entries of weights drawn at once, per seed


def _sign(weight: Tensor, generator: Generator) -> Tensor:
    return weight.uniform_(-1, 1, generator=generator).sign_().add_(0.5).sign_()  # 0 counts as +1


# Laws of the entries of W_l: symmetric, mean zero, variance one.
LAWS: dict[str, Callable[[Tensor, Generator], Tensor]] = {
    "gaussian": lambda w, g: w.normal_(generator=g),
    "uniform": lambda w, g: w.uniform_(-math.sqrt(3), math.sqrt(3), generator=g),
    "sign": _sign,
}


def batch_norm(h: Tensor) -> Tensor:
    """Divide every row by its root mean square; the mean stays.

    Args:
        h: ``(..., d, N)``, one column a sample.

    Returns:
        ``(..., d, N)``, every row of norm √N.

    Raises:
        ValueError: ``h`` is not a batch of finite matrices, or has a row of zeros, where the map is undefined.

    Source: Daneshmand et al. (2020), Eq. (2) with α = 0, β = 1.
    """
    checks.matrices("h", h)
    largest = h.abs().amax(-1, keepdim=True)
    if not checks.every(largest > 0):
        raise ValueError("h must have no row of zeros: batch normalization divides a row by its size, got a zero row")
    return _unit_rows(h / largest)  # squares of the entries must neither overflow nor vanish


def _unit_rows(h: Tensor) -> Tensor:
    return h * h.square().mean(-1, keepdim=True).rsqrt()


@dataclass(frozen=True)
class Chain:
    """What one layer does.

    Attributes:
        gamma: strength γ of the random branch, at least 0; ``math.inf`` drops the skip connection.
        law: a key of ``LAWS``.
        normalization: ``rows`` (batch normalization), ``frobenius`` (the chain without normalization up to a scalar
            factor: Tr(HHᵀ/N) is brought back to d, which changes no direction and no ratio), or ``none``.
        activation: ``linear`` or ``relu``, applied after the normalization.

    Raises:
        ValueError: γ is negative or no number, or an unknown word.
    """

    gamma: float = math.inf
    law: str = "gaussian"
    normalization: str = "rows"
    activation: str = "linear"

    def __post_init__(self):
        endless = isinstance(self.gamma, float) and self.gamma == math.inf
        if not endless:
            checks.between("gamma", self.gamma, 0)
        checks.one_of("law", self.law, LAWS)
        checks.one_of("normalization", self.normalization, NORMALIZATIONS)
        checks.one_of("activation", self.activation, NONLINEARITIES)

    def branch(self, weight: Tensor, h: Tensor) -> Tensor:
        """H + γ W H, or W H for γ = ∞; ``weight: (seeds, d, d)``, ``h: (seeds, d, N)``.

        Raises:
            ValueError: not finite, other shapes, or two dtypes.
        """
        _layer_shapes(weight, h)
        return self._branch(weight, h)

    def _branch(self, weight: Tensor, h: Tensor) -> Tensor:
        return weight @ h if math.isinf(self.gamma) else torch.baddbmm(h, weight, h, alpha=self.gamma)

    def layer(self, weight: Tensor, h: Tensor) -> Tensor:
        """The representation after one layer; shapes and errors as :meth:`branch`, or a row became zero."""
        _layer_shapes(weight, h)
        h = self._layer(weight, h)
        _no_zero_row(h, 1)
        return h

    def _layer(self, weight: Tensor, h: Tensor) -> Tensor:
        h = self._branch(weight, h)
        if self.normalization == "rows":
            h = _unit_rows(h)
        elif self.normalization == "frobenius":
            h = h * h.square().mean((-2, -1), keepdim=True).rsqrt()
        return h.relu() if self.activation == "relu" else h


def _layer_shapes(weight: Tensor, h: Tensor) -> None:
    checks.matrices("weight", weight)
    checks.matrices("h", h, weight.dtype)
    shapes = tuple(weight.shape), tuple(h.shape)
    good = weight.ndim == h.ndim == 3 and weight.shape == (len(h), h.shape[1], h.shape[1])
    checks.require(good, "weight and h", shapes, "of shapes (seeds, d, d) and (seeds, d, N)")


# What follow() and depth_average() measure; a method of State, such as State.stable_rank, is one.
Measure = Callable[[State], Tensor]


@dataclass(frozen=True)
class DepthAverage:
    """Averages over depth, kept as averages over blocks of successive layers.

    Attributes:
        blocks: for each measure the block averages, ``(blocks, seeds, …)``, float64.
        h: the last representation, ``(seeds, d, N)``.
    """

    blocks: dict[str, Tensor]
    h: Tensor

    def mean(self, name: str) -> Tensor:
        """Average over depth, blocks and seeds.

        Raises:
            ValueError: nothing of that name was measured.
        """
        return self.blocks[checks.one_of("name", name, self.blocks)].flatten(0, 1).mean(0)

    def standard_error(self, name: str) -> Tensor:
        """Standard error of :meth:`mean` from the spread of blocks, honest if a block is longer than the memory."""
        values = self.blocks[checks.one_of("name", name, self.blocks)].flatten(0, 1)
        return values.std(0) / math.sqrt(len(values))


def follow(
    chain: Chain,
    x: Tensor,
    *,
    generator: Generator | Sequence[Generator],
    measure: Mapping[str, Measure],
    at: Iterable[int],
) -> dict[str, Tensor]:
    """Run a chain and measure it at given depths.

    Args:
        chain: what a layer does.
        x: inputs ``(d, N)``, or ``(seeds, d, N)``; H_0, which batch normalization does not touch.
        generator: one generator a seed; a single one means one seed.
        measure: functions of a :class:`State` that return ``(seeds, …)``.
        at: depths, 0 being the input; the run ends at the largest.

    Returns:
        For each measure ``(depths, seeds, …)``, in increasing order of depth.

    Raises:
        ValueError: ``x`` is not a matrix a seed, no generator, a negative depth, or a row that became zero.
    """
    h, generators = _seeded_start(x, generator)
    _measures(chain, measure)
    depths = checks.listed(at)
    good = isinstance(depths, tuple) and len(depths) > 0 and all(map(_is_depth, depths))
    checks.require(good, "at", at, "a non-empty list of depths of at least 0")
    wanted = frozenset(depths)
    found: dict[str, list[Tensor]] = {name: [] for name in measure}
    for depth, state in enumerate(_states(chain, h, generators, max(wanted))):
        if depth in wanted:
            current = State(state)
            for name, function in measure.items():
                found[name].append(function(current))
    return {name: torch.stack(values) for name, values in found.items()}


def depth_average(
    chain: Chain,
    x: Tensor,
    *,
    depth: int,
    generator: Generator | Sequence[Generator],
    measure: Mapping[str, Measure],
    every: int = 1,
    burn_in: int = 0,
    blocks: int = 20,
) -> DepthAverage:
    """Average measures over the layers ``burn_in + 1 … burn_in + depth`` without storing them.

    Args:
        chain: what a layer does.
        x: inputs, as in :func:`follow`.
        depth: number of layers averaged over; cut into ``blocks`` equal parts, so a multiple of ``blocks · every``.
        generator: one generator a seed.
        measure: as in :func:`follow`.
        every: measure only every so many layers; neighbours are nearly equal and measuring may cost more than a layer.
        burn_in: layers before the first that counts.
        blocks: number of parts whose spread gives the standard error.

    Raises:
        ValueError: as :func:`follow`; or ``depth`` is no positive multiple of ``blocks · every``.
    """
    h, generators = _seeded_start(x, generator)
    _measures(chain, measure)
    for name, value in (("depth", depth), ("every", every), ("blocks", blocks)):
        checks.positive_integer(name, value)
    checks.natural("burn_in", burn_in)
    checks.require(depth % (blocks * every) == 0, "depth", depth, f"a multiple of blocks · every = {blocks * every}")
    samples = depth // blocks // every
    sums: dict[str, list[Tensor]] = {name: [] for name in measure}
    for index, state in enumerate(_states(chain, h, generators, burn_in + depth)):
        h = state
        counted = index - burn_in
        if counted > 0 and counted % every == 0:
            current = State(state)
            new_block = (counted // every - 1) % samples == 0
            for name, function in measure.items():
                value = function(current).double()
                if new_block:
                    sums[name].append(value.clone())
                else:
                    sums[name][-1] += value
    return DepthAverage(blocks={name: torch.stack(parts) / samples for name, parts in sums.items()}, h=h)


def collinear_inputs(d: int, n: int, spread: float, *, generator: Generator | Sequence[Generator]) -> Tensor:
    """Inputs near one line: every sample is a multiple of one direction plus ``spread`` times Gaussian noise.

    The rows are normalized, so that H_0 is a state of the chain. ``spread`` 0 makes them exactly collinear, of rank
    one, with the entries of M of modulus one.

    Args:
        d: width, the number of rows.
        n: number of samples.
        spread: size of the noise relative to the line, at least 0.
        generator: one generator, or one a seed.

    Returns:
        ``(d, n)``, or ``(seeds, d, n)``, float64.

    Raises:
        ValueError: a size is no positive integer, or ``spread`` is negative.
    """
    checks.positive_integer("d", d)
    checks.positive_integer("n", n)
    checks.between("spread", spread, 0)

    def one(g: Generator) -> Tensor:
        direction, line, noise = (
            torch.randn(shape, generator=g, dtype=torch.float64, device=g.device) for shape in ((d, 1), (1, n), (d, n))
        )
        return _unit_rows(direction.sign() * line + spread * noise)

    drawn = [one(g) for g in checks.generators("generator", generator)]
    return drawn[0] if isinstance(generator, Generator) else torch.stack(drawn)


def _is_depth(value: object) -> bool:
    return checks.is_integer(value) and 0 <= value <= checks.LARGEST


def _measures(chain: Chain, measure: Mapping[str, Measure]) -> None:
    checks.instance("chain", chain, Chain)
    checks.functions("measure", measure)


def _seeded_start(x: Tensor, generator: Generator | Sequence[Generator]) -> tuple[Tensor, list[Generator]]:
    """Inputs with a leading axis of seeds, and a generator a seed."""
    checks.matrices("x", x)
    generators = checks.generators("generator", generator)
    good = x.ndim == 2 or (x.ndim == 3 and x.shape[0] == len(generators))
    checks.require(good, "x", tuple(x.shape), f"of shape (d, N) or (seeds, d, N) with seeds={len(generators)}")
    return x.expand(len(generators), *x.shape[-2:]), generators


def draw_weights(
    law: str, d: int, generator: Generator | Sequence[Generator], dtype: torch.dtype, depth: int
) -> Iterator[Tensor]:
    """Weights of ``depth`` layers one after another, ``(seeds, d, d)`` each: those that :func:`follow` draws.

    Args:
        law: a key of ``LAWS``.
        d: width.
        generator: one generator a seed.
        dtype: floating-point type of the weights.
        depth: number of layers.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    checks.one_of("law", law, LAWS)
    checks.positive_integer("d", d)
    checks.natural("depth", depth)
    generators = checks.generators("generator", generator)
    return _draw_weights(law, d, generators, checks.floating("dtype", dtype), depth)


def _draw_weights(
    law: str, d: int, generators: Sequence[Generator], dtype: torch.dtype, depth: int
) -> Iterator[Tensor]:
    """Weights of ``depth`` layers, ``(seeds, d, d)`` each, drawn in chunks whose size depends on ``d`` only."""
    chunk = max(1, _CHUNK // d**2)
    for first in range(0, depth, chunk):
        drawn = [LAWS[law](torch.empty(chunk, d, d, dtype=dtype, device=g.device), g) for g in generators]
        yield from torch.stack(drawn, 1)[: depth - first]


def _states(chain: Chain, h: Tensor, generators: Sequence[Generator], depth: int) -> Iterator[Tensor]:
    """The input, then the representation after each layer."""
    yield h
    check = max(1, _CHUNK // h.shape[-2] ** 2)
    for index, weight in enumerate(_draw_weights(chain.law, h.shape[-2], generators, h.dtype, depth), start=1):
        h = chain._layer(weight, h)
        if index % check == 0 or index == depth:
            _no_zero_row(h, index)
        yield h


def _no_zero_row(h: Tensor, depth: int) -> None:
    """A zero row divided by its size is not a number, and spreads."""
    if not checks.every(torch.isfinite(h)):
        raise ValueError(
            f"h must keep finite rows different from zero, got a row that vanished or overflowed by layer {depth}: "
            "batch normalization is undefined there, and without normalization deep products leave the number range"
        )
