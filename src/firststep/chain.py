"""Chains of random layers, with and without batch normalization, followed to any depth.

The hidden representations of N samples in a network of equal widths form a Markov chain,

    H_{l+1} = φ(BN(H_l + γ W_l H_l)),      H_0 = X: (d, N),

with fresh weights W_l of independent symmetric entries of variance one. BN divides every row by its root mean square
and subtracts nothing; γ = ∞ stands for a network without skip connections, BN(W_l H_l). Daneshmand et al. (2020),
Eqs. (1), (2) and Definition 1. Leading axes are seeds, one generator each; seed 3 of a batch equals seed 3 alone
up to round-off, and the first 100 layers of a long run are the same layers as those of a run of depth 100.

Nothing here stores the history: :func:`follow` keeps what is measured at the depths asked for, :func:`depth_average`
keeps running sums, and :func:`lyapunov_exponents` keeps growth rates.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Generator, Tensor

from firststep import checks, spectra

NORMALIZATIONS = ("rows", "frobenius", "none")
ACTIVATIONS = ("linear", "relu")
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
    if (largest == 0).any():
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
        good = isinstance(self.gamma, int | float) and not isinstance(self.gamma, bool) and self.gamma >= 0
        checks.require(good, "gamma", self.gamma, "a number of at least 0, or infinity")
        checks.one_of("law", self.law, LAWS)
        checks.one_of("normalization", self.normalization, NORMALIZATIONS)
        checks.one_of("activation", self.activation, ACTIVATIONS)

    def branch(self, weight: Tensor, h: Tensor) -> Tensor:
        """H + γ W H, or W H for γ = ∞; ``weight: (seeds, d, d)``, ``h: (seeds, d, N)``."""
        return weight @ h if math.isinf(self.gamma) else torch.baddbmm(h, weight, h, alpha=self.gamma)

    def layer(self, weight: Tensor, h: Tensor) -> Tensor:
        """The representation after one layer; shapes as in :meth:`branch`."""
        h = self.branch(weight, h)
        if self.normalization == "rows":
            h = _unit_rows(h)
        elif self.normalization == "frobenius":
            h = h * h.square().mean((-2, -1), keepdim=True).rsqrt()
        return h.relu() if self.activation == "relu" else h


class State:
    """A representation, and what several measures of it share.

    Attributes:
        h: ``(seeds, d, N)``.
    """

    def __init__(self, h: Tensor):
        self.h = h

    @cached_property
    def m(self) -> Tensor:
        """M = HHᵀ/N, ``(seeds, d, d)``."""
        return self.h @ self.h.mT / self.h.shape[-1]

    @cached_property
    def eigenvalues(self) -> Tensor:
        """Eigenvalues of M in ascending order, ``(seeds, d)``: the squared singular values of H, divided by N.

        Those below ε·λ_max are round-off; the numerical rank needs :func:`torch.linalg.svdvals` of ``h``.
        """
        return torch.linalg.eigvalsh(self.m)


Measure = Callable[[State], Tensor]


def soft_rank(tau: float | Sequence[float]) -> Measure:
    """The measure rank_τ(H) = #{i : σ_i²/N ≥ τ}: ``(seeds,)``, or ``(seeds, τ)`` for several thresholds.

    Raises:
        ValueError: a τ outside [0, 1].
    """
    thresholds = list(tau) if isinstance(tau, Iterable) else [tau]
    good = len(thresholds) > 0 and all(isinstance(t, int | float) and 0 <= t <= 1 for t in thresholds)
    checks.require(good, "tau", tau, "a number in [0, 1], or several")

    def measure(state: State) -> Tensor:
        levels = state.eigenvalues.new_tensor(thresholds)
        eigenvalues = state.eigenvalues.clamp_min(0)  # round-off makes some of the vanishing ones negative
        counts = (eigenvalues[..., None, :] >= levels[:, None]).sum(-1)
        return counts if isinstance(tau, Iterable) else counts[..., 0]

    return measure


def frobenius(state: State) -> Tensor:
    """‖M‖²_F, ``(seeds,)``."""
    return state.m.square().sum((-2, -1))


def stable_rank(state: State) -> Tensor:
    """r(H) = Tr(M)²/‖M‖²_F, ``(seeds,)``; Eq. (4)."""
    return state.m.diagonal(dim1=-2, dim2=-1).sum(-1).square() / frobenius(state)


def regularity_terms(state: State) -> Tensor:
    """Tr(diag(M²)²) and Tr(M³), ``(seeds, 2)``; the ratio of their averages is the regularity constant α, Eq. (46)."""
    return torch.stack(spectra.regularity_terms(state.m), -1)


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
        """Average over depth, blocks and seeds."""
        return self.blocks[name].flatten(0, 1).mean(0)

    def standard_error(self, name: str) -> Tensor:
        """Standard error of :meth:`mean` from the spread of blocks, honest if a block is longer than the memory."""
        values = self.blocks[name].flatten(0, 1)
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
    h, generators = _start(x, generator)
    wanted = set(at) if isinstance(at, Iterable) else set()
    good = len(wanted) > 0 and all(checks.is_integer(depth) and depth >= 0 for depth in wanted)
    checks.require(good, "at", at, "a non-empty list of depths of at least 0")
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
    h, generators = _start(x, generator)
    for name, value in (("depth", depth), ("every", every), ("blocks", blocks)):
        checks.positive_integer(name, value)
    checks.require(checks.is_integer(burn_in) and burn_in >= 0, "burn_in", burn_in, "an integer of at least 0")
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


def lyapunov_exponents(
    chain: Chain,
    x: Tensor,
    *,
    depth: int,
    generator: Generator | Sequence[Generator],
    burn_in: int = 0,
    blocks: int = 20,
    qr_every: int = 4,
    count: int | None = None,
) -> Tensor:
    """Growth rates per layer of the product of the chain's linear maps, by QR.

    A layer of a linear chain multiplies by A_l = D_l (I + γ W_l), where D_l is the diagonal that normalizes (the
    identity for ``normalization="none"``). An orthonormal frame Q is carried along: A Q = Q' R, and the exponents are
    the averages of ``log |R_ii|`` over depth (Benettin et al. 1980).
    The frame starts with the columns of X, so the first
    min(d, N) exponents are those of the singular values of H_l.

    With N < d samples the state never leaves the matrices of rank N, and the other d − N exponents are *transversal*:
    those of the product modulo col(H_l). A small further sample that is orthogonal to the rows of H_l leaves D_l
    unchanged to first order, so they are the rates at which it lifts the (N+1)-th and later singular values.

    Args:
        chain: a linear one.
        x: inputs, as in :func:`follow`; they decide D_l.
        depth: layers averaged over, a multiple of ``blocks · qr_every``.
        generator: one generator a seed.
        burn_in: layers before the first that counts, a multiple of ``qr_every``; the frame turns into place meanwhile.
        blocks: number of parts whose spread gives a standard error.
        qr_every: layers between factorizations. Round-off is ε·exp(qr_every · spread of the exponents).
        count: how many exponents, from min(d, N) to ``d`` = all; a narrow frame is much cheaper where d is large.

    Returns:
        ``(blocks, seeds, count)``, float64: the exponents of each block. Once the frame is in place the first
        min(d, N) fall, and so do the transversal ones after them.

    Raises:
        ValueError: as :func:`follow`; the chain is not linear; ``depth``, ``burn_in`` or ``count`` is not as
            described above; or a layer is singular, which makes an exponent infinite.
    """
    checks.require(chain.activation == "linear", "chain.activation", chain.activation, "'linear'")
    x, generators = _start(x, generator)
    for name, value in (("depth", depth), ("blocks", blocks), ("qr_every", qr_every)):
        checks.positive_integer(name, value)
    checks.require(depth % (blocks * qr_every) == 0, "depth", depth, f"a multiple of {blocks * qr_every}")
    good = checks.is_integer(burn_in) and burn_in >= 0 and burn_in % qr_every == 0
    checks.require(good, "burn_in", burn_in, f"a non-negative multiple of qr_every={qr_every}")
    d, rank = x.shape[-2], min(x.shape[-2:])
    count = d if count is None else count
    good = checks.is_integer(count) and rank <= count <= d
    checks.require(good, "count", count, f"an integer from min(d, N)={rank} to d={d}")
    length, axes = depth // blocks, -1 if chain.normalization == "rows" else (-2, -1)
    # H = Q R with Q the first columns of the frame: so round-off cannot leave the matrices of rank N.
    frame, coordinates = torch.linalg.qr(x, mode="complete")
    frame, coordinates = frame[..., :count], coordinates[..., :rank, :]
    found = torch.zeros(blocks, len(generators), count, dtype=torch.float64, device=x.device)
    for index, weight in enumerate(_weights(chain.law, d, generators, x.dtype, burn_in + depth), start=1):
        frame = chain.branch(weight, frame)
        if chain.normalization != "none":
            h = frame[..., :rank] @ coordinates
            frame = frame * h.square().mean(axes, keepdim=True).rsqrt()
        if index % qr_every == 0:
            frame, triangle = torch.linalg.qr(frame)
            if chain.normalization != "none":
                coordinates = _flushed(triangle[..., :rank, :rank] @ coordinates)
            if index > burn_in:
                growth = triangle.diagonal(dim1=-2, dim2=-1).abs().log().double()
                found[(index - burn_in - 1) // length] += growth / length
    _no_zero_row(found, burn_in + depth)
    return found


def _flushed(a: Tensor) -> Tensor:
    """Entries that can no longer be seen beside the largest become zero; numbers near underflow are slow."""
    return torch.where(a.abs() > torch.finfo(a.dtype).tiny ** 0.5, a, 0)


def gaussian_exponents(d: int) -> Tensor:
    """Lyapunov exponents of products of independent d × d matrices of standard Gaussian entries, in closed form.

    λ_i = ½(log 2 + ψ((d − i + 1)/2)) with the digamma function ψ, since the i-th growth factor is a χ with
    d − i + 1 degrees of freedom.

    Returns:
        ``(d,)``, float64, from the largest down.

    Raises:
        ValueError: ``d`` is no positive integer.

    Source: Newman (1986), Eq. (2.7).
    """
    freedom = torch.arange(checks.positive_integer("d", d), 0, -1, dtype=torch.float64)
    return 0.5 * (math.log(2) + torch.digamma(freedom / 2))


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
    checks.require(checks.number("spread", spread) >= 0, "spread", spread, "a number of at least 0")

    def one(g: Generator) -> Tensor:
        direction, line, noise = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((d, 1), (1, n), (d, n)))
        return _unit_rows(direction.sign() * line + spread * noise)

    if isinstance(generator, Generator):
        return one(generator)
    return torch.stack([one(g) for g in generator])


def _start(x: Tensor, generator: Generator | Sequence[Generator]) -> tuple[Tensor, list[Generator]]:
    """Inputs with a leading axis of seeds, and a generator a seed."""
    checks.matrices("x", x)
    generators = [generator] if isinstance(generator, Generator) else generator
    good = isinstance(generators, Sequence) and len(generators) > 0
    good = good and all(isinstance(g, Generator) for g in generators)
    good = good and len({id(g) for g in generators}) == len(generators)
    checks.require(good, "generator", generator, "a torch.Generator, or a non-empty list of different ones")
    good = x.ndim == 2 or (x.ndim == 3 and x.shape[0] == len(generators))
    checks.require(good, "x", tuple(x.shape), f"of shape (d, N) or (seeds, d, N) with seeds={len(generators)}")
    return x.expand(len(generators), *x.shape[-2:]), generators


def _weights(
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
    for index, weight in enumerate(_weights(chain.law, h.shape[-2], generators, h.dtype, depth), start=1):
        h = chain.layer(weight, h)
        if index % check == 0 or index == depth:
            _no_zero_row(h, index)
        yield h


def _no_zero_row(h: Tensor, depth: int) -> None:
    """A zero row divided by its size is not a number, and spreads."""
    if not torch.isfinite(h).all():
        raise ValueError(
            f"h must keep finite rows different from zero, got a row that vanished or overflowed by layer {depth}: "
            "batch normalization is undefined there, and without normalization deep products leave the number range"
        )
