"""Two-layer linear networks in the SVD coordinates of the data: reduction, imbalance, starts.

The paper writes ½‖Y − X U Vᵀ‖²_F with one *row* a sample. The book keeps one *column* a sample and the network
``[W_1, W_2]``, so U = W_1ᵀ and V = W_2, and the paper's X and Y are our ``x.mT`` and ``y.mT``.

Split W_1 by the left singular vectors Φ = [Φ_1 Φ_2] of ``x``, Φ_1 for the singular values that are not zero. The data
see U_1ᵀ = W_1 Φ_1 only; U_2ᵀ = W_1 Φ_2 never moves, but is part of the answer. What remains is a network ``[U_1ᵀ, V]``
on diagonal data, which :mod:`firststep.linear` and :mod:`firststep.flow` train as they are. Its hidden width never
needs to exceed r + m (:func:`compress`), so a width of 10,000 costs what a width of 101 costs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from firststep import checks, inits, linear
from firststep.spectra import numerical_rank

SIDES = ("inner", "outer")


@dataclass(frozen=True, eq=False)
class Split:
    """A two-layer network in the coordinates of the data.

    Attributes:
        inner: U_1ᵀ = W_1 Φ_1, ``(..., h, r)``.
        outer: V = W_2, ``(..., m, h)``.
        unseen: U_2ᵀ = W_1 Φ_2, ``(..., h, D − r)``, which training never moves.

    Raises:
        ValueError: not finite tensors of one dtype and these shapes; only ``unseen`` may be empty.
    """

    inner: Tensor
    outer: Tensor
    unseen: Tensor

    def __post_init__(self):
        checks.matrices("inner", self.inner)
        checks.matrices("outer", self.outer, self.inner.dtype)
        _unseen(self.unseen, self.inner)
        checks.weights("inner and outer", [self.inner, self.outer])

    @property
    def weights(self) -> linear.Weights:
        """The network that is trained, ``[U_1ᵀ, V]``."""
        return [self.inner, self.outer]


@dataclass(frozen=True, eq=False)
class Problem:
    """Least squares with two layers, in the SVD coordinates of its inputs ``x = Φ_1 diag(σ) Wᵀ``.

    Attributes:
        seen: Φ_1, ``(..., D, r)``, with r the rank of ``x``.
        unseen: Φ_2, ``(..., D, D − r)``.
        sigma: σ = the roots of the paper's Σ_x, decreasing, ``(..., r)``.
        moments: the loss as a function of the reduced network, with XXᵀ → diag(σ²) and YXᵀ → YXᵀΦ_1.
    """

    seen: Tensor
    unseen: Tensor
    sigma: Tensor
    moments: linear.Moments

    @classmethod
    def of(cls, x: Tensor, y: Tensor, rtol: float | None = None) -> "Problem":
        """The problem of inputs ``x: (..., D, n)`` and targets ``y: (..., m, n)``, one column a sample.

        Args:
            x: inputs; all of a batch must have the same rank.
            y: targets.
            rtol: singular values below ``rtol · σ_1`` count as zero, as :func:`firststep.spectra.numerical_rank`.

        Raises:
            ValueError: not finite matrices, different numbers of samples, ``x`` zero, or a batch with different ranks.

        Source: Min et al. (2021), Section 2.
        """
        moments = linear.Moments.of(x, y)
        ranks = numerical_rank(x, rtol).reshape(-1)
        checks.require(len(set(ranks.tolist())) == 1, "x", ranks.tolist(), "of one rank throughout the batch")
        r = int(ranks[0])
        checks.require(r > 0, "x", "0", "of positive rank")
        left, sigma, _ = torch.linalg.svd(x, full_matrices=True)
        seen, unseen, sigma = left[..., :r], left[..., r:], sigma[..., :r]
        return cls(seen, unseen, sigma, linear.Moments(torch.diag_embed(sigma.square()), moments.yx @ seen, moments.yy))

    @property
    def solution(self) -> Tensor:
        """The only least-squares solution of the reduced problem, ``(..., m, r)``."""
        return self.moments.yx / self.sigma.square().unsqueeze(-2)

    @property
    def best_loss(self) -> Tensor:
        """The least value L* of the loss, ``(...)``."""
        return 0.5 * (self.moments.yy - (self.solution * self.moments.yx).sum((-2, -1)))

    def split(self, weights: linear.Weights) -> Split:
        """The network ``[W_1, W_2]`` in the coordinates of the data.

        Raises:
            ValueError: not two layers that chain, or another number of inputs or outputs than the data have.
        """
        first, second = self._two_layers(weights)
        return Split(first @ self.seen, second, first @ self.unseen)

    def join(self, split: Split) -> linear.Weights:
        """The network ``[W_1, W_2]`` in its own coordinates: the inverse of :meth:`split`.

        Raises:
            ValueError: not a :class:`Split` of the shapes of this problem.
        """
        checks.instance("split", split, Split)
        self._reduced(split.weights)
        self._fitting(split.unseen)
        return [split.inner @ self.seen.mT + split.unseen @ self.unseen.mT, split.outer]

    def min_norm(self) -> Tensor:
        """The least-squares product of least norm, Y X⁺, ``(..., m, D)``."""
        return self.solution @ self.seen.mT

    def excess_loss(self, weights: linear.Weights) -> Tensor:
        """Loss of the reduced network ``[U_1ᵀ, V]`` above L*, ``(...)``: ½‖(V U_1ᵀ − solution) diag(σ)‖²_F.

        Raises:
            ValueError: not two layers that chain, or not of the shapes of the reduced problem.
        """
        weights = self._reduced(weights)
        error = (weights[1] @ weights[0] - self.solution) * self.sigma.unsqueeze(-2)
        return 0.5 * error.square().sum((-2, -1))

    def distance(self, weights: linear.Weights, unseen: Tensor) -> Tensor:
        """Spectral distance ‖W_2 W_1 − Y X⁺‖_2 of a reduced network to the min-norm solution, ``(...)``.

        Args:
            weights: the reduced network ``[U_1ᵀ, V]``.
            unseen: the part U_2ᵀ that belongs to it, ``(..., h, D − r)``.

        Raises:
            ValueError: as :meth:`excess_loss`, or an ``unseen`` that does not fit.
        """
        inner, outer = self._reduced(weights)
        _unseen(unseen, inner)
        self._fitting(unseen)
        gap = torch.cat([outer @ inner - self.solution, outer @ unseen], -1)
        return torch.linalg.matrix_norm(gap, ord=2)

    def _two_layers(self, weights: linear.Weights) -> linear.Weights:
        return self._sides(weights, self.seen.shape[-2])

    def _reduced(self, weights: linear.Weights) -> linear.Weights:
        return self._sides(weights, self.seen.shape[-1])

    def _sides(self, weights: linear.Weights, inputs: int) -> linear.Weights:
        weights = checks.weights("weights", weights)
        outputs, given = self.moments.yx.shape[-2], [tuple(w.shape) for w in weights]
        good = len(weights) == 2 and (given[0][-1], given[1][-2]) == (inputs, outputs)
        checks.require(good, "weights", given, f"[W_1, W_2] with {inputs} inputs and {outputs} outputs")
        dtype = self.sigma.dtype
        checks.require(weights[0].dtype == dtype, "weights", weights[0].dtype, f"of the dtype of the problem, {dtype}")
        checks.broadcast("weights", *(w.shape[:-2] for w in weights), self.seen.shape[:-2])
        return weights

    def _fitting(self, unseen: Tensor) -> None:
        columns = self.unseen.shape[-1]
        checks.require(unseen.shape[-1] == columns, "unseen", tuple(unseen.shape), f"of {columns} columns")


def imbalance(weights: linear.Weights) -> Tensor:
    """Λ = U_1ᵀU_1 − VᵀV of a reduced network ``[U_1ᵀ, V]``, ``(..., h, h)``.

    Raises:
        ValueError: not two layers that chain.

    Source: Min et al. (2021), Section 3.
    """
    inner, outer = _pair(weights)
    return inner @ inner.mT - outer.mT @ outer


def level(weights: linear.Weights) -> Tensor:
    """Level of imbalance c = [λ_r(Λ)]_+ + [λ_m(−Λ)]_+ of a reduced network, ``(...)``.

    λ_k is the k-th largest eigenvalue. Λ has rank at most r + m, and its other eigenvalues are found in that many
    dimensions, whatever the hidden width.

    Args:
        weights: ``[U_1ᵀ, V]``, of shapes ``(..., h, r)`` and ``(..., m, h)``.

    Raises:
        ValueError: not two layers that chain, or h below r or m, where λ_r or λ_m does not exist.

    Source: Min et al. (2021), Theorem 1.
    """
    inner, outer = _pair(weights)
    (h, r), m = inner.shape[-2:], outer.shape[-2]
    checks.require(h >= max(r, m), "weights", h, f"of a hidden width of at least max(r, m) = max({r}, {m})")
    both = torch.cat([inner, outer.mT], -1)
    if h > r + m:
        both = torch.linalg.qr(both, mode="r").R
    inner, outer = both[..., :r], both[..., r:]
    eigenvalues = torch.linalg.eigvalsh(inner @ inner.mT - outer @ outer.mT)  # increasing
    return eigenvalues[..., -r].clamp(min=0) + (-eigenvalues[..., m - 1]).clamp(min=0)


def compress(split: Split) -> Split:
    """The same network with hidden width min(h, r + m): same products, same imbalance, same training, step for step.

    The columns of U_1ᵀ and Vᵀ span at most r + m dimensions of the hidden layer, and every gradient is a combination of
    them, so training never leaves the span. In an orthonormal basis Q of it the network is ``[Qᵀ U_1ᵀ, V Q]``.

    Raises:
        ValueError: not a :class:`Split`.
    """
    checks.instance("split", split, Split)
    h, r, m = *split.inner.shape[-2:], split.outer.shape[-2]
    if h <= r + m:
        return split
    basis, both = torch.linalg.qr(torch.cat([split.inner, split.outer.mT], -1))
    return Split(both[..., :r], both[..., r:].mT, basis.mT @ split.unseen)


def gaussian_start(
    widths: Sequence[int],
    std_inner: float,
    std_outer: float,
    *,
    generator: Generator | Sequence[Generator],
    dtype: torch.dtype = torch.float64,
) -> linear.Weights:
    """Independent Gaussian entries, of standard deviation ``std_inner`` in W_1 and ``std_outer`` in W_2.

    Args:
        widths: (D, h, m).
        std_inner: the paper's σ_U > 0.
        std_outer: the paper's σ_V > 0.
        generator: one generator, or one a seed.
        dtype: floating-point type of the weights.

    Returns:
        ``[W_1, W_2]`` of shapes ``(..., h, D)`` and ``(..., m, h)``.

    Raises:
        ValueError: not three positive widths, or a deviation that is not positive.
    """
    widths = checks.widths("widths", widths)
    checks.require(len(widths) == 3, "widths", widths, "three positive integers (D, h, m)")
    checks.number("std_inner", std_inner, above=0, allowed="a positive number")
    checks.number("std_outer", std_outer, above=0, allowed="a positive number")
    checks.floating("dtype", dtype)
    inputs, hidden, outputs = widths

    def one(g: Generator) -> linear.Weights:
        first = torch.randn(hidden, inputs, generator=g, dtype=dtype, device=g.device)
        second = torch.randn(outputs, hidden, generator=g, dtype=dtype, device=g.device)
        return [std_inner * first, std_outer * second]

    return inits._per_seed(one, generator)


def start_of_level(
    product: Tensor, c: float, hidden: int, *, heavy: str = "outer", generator: Generator
) -> linear.Weights:
    """A reduced network ``[U_1ᵀ, V]`` with V U_1ᵀ = ``product`` and level of imbalance exactly ``c``.

    With the SVD ``product = Σ s_i a_i b_iᵀ`` and orthonormal hidden directions o_i, take V = Σ v_i a_i o_iᵀ and
    U_1ᵀ = Σ u_i o_i b_iᵀ with u_i v_i = s_i and v_i² − u_i² = c, so v_i² = (c + √(c² + 4 s_i²)) / 2. Then −Λ is c on
    the m directions o_i. ``heavy="inner"`` exchanges the roles of the layers. c = 0 is the balanced start.

    Args:
        product: end-to-end matrix, ``(m, r)``.
        c: level of imbalance, at least 0.
        hidden: width h, at least m and the rank of the product (``outer``), or at least r (``inner``).
        heavy: which layer is the larger one, ``inner`` or ``outer``.
        generator: draws the hidden directions.

    Returns:
        ``[(h, r), (m, h)]``.

    Raises:
        ValueError: ``product`` is not one finite matrix, c is negative, or the hidden layer too narrow.

    Source: derived for this book; c = 0 is the balanced start of Arora et al. (2019).
    """
    checks.matrices("product", product)
    checks.require(product.ndim == 2, "product", tuple(product.shape), "one matrix (m, r)")
    c = checks.between("c", c, 0)
    checks.generator("generator", generator)
    checks.positive_integer("hidden", hidden)
    if checks.one_of("heavy", heavy, SIDES) == "inner":
        inner, outer = start_of_level(product.mT, c, hidden, heavy="outer", generator=generator)
        return [outer.mT, inner.mT]
    m, r = product.shape
    checks.require(hidden >= m, "hidden", hidden, f"at least {m}, the number of sides of the heavier layer")
    a, s, bt = torch.linalg.svd(product, full_matrices=True)
    s = torch.cat([s, s.new_zeros(m - len(s))])  # the heavier layer is filled up to full rank
    v = ((c + (c * c + 4 * s.square()).sqrt()) / 2).sqrt()
    u = torch.where(v > 0, s / v.clamp(min=torch.finfo(s.dtype).tiny), 0.0)
    o = inits.matrix("orthogonal", hidden, m, generator=generator, dtype=product.dtype)
    used = min(m, r)
    return [o[:, :used] * u[:used] @ bt[:used], a * v @ o.mT]


def orthogonalize(split: Split, against: Sequence[str] = SIDES) -> Split:
    """Make the unseen part orthogonal to the layers named: U_1U_2ᵀ = 0 (``inner``), VU_2ᵀ = 0 (``outer``), or both.

    With both, training ends at the min-norm solution if it converges.

    Args:
        split: a network in the coordinates of the data.
        against: any of ``inner`` and ``outer``.

    Raises:
        ValueError: an unknown name, none, or a hidden layer so narrow that nothing of U_2 would be left.

    Source: Min et al. (2021), Proposition 1.
    """
    checks.instance("split", split, Split)
    against = tuple(against) if isinstance(against, Sequence) and not isinstance(against, str) else ()
    good = len(against) > 0 and all(side in SIDES for side in against)
    checks.require(good, "against", against, "a non-empty choice of inner and outer")
    columns = torch.cat([{"inner": split.inner, "outer": split.outer.mT}[side] for side in against], -1)
    h, k = columns.shape[-2:]
    checks.require(h > k, "split", h, f"of a hidden width above {k}, or U_2 = 0 is all that is left")
    return Split(split.inner, split.outer, _off(columns, split.unseen))


def outer_off_inner(split: Split) -> Split:
    """The recap slide's variant: V U_1ᵀ = 0 in place of V U_2ᵀ = 0, which is not what the proposition needs.

    Raises:
        ValueError: not a :class:`Split`, or the hidden layer is not wider than r.
    """
    checks.instance("split", split, Split)
    h, r = split.inner.shape[-2:]
    checks.require(h > r, "split", h, f"of a hidden width above {r}, or V = 0 is all that is left")
    return Split(split.inner, _off(split.inner, split.outer.mT).mT, split.unseen)


def _off(columns: Tensor, vectors: Tensor) -> Tensor:
    """The component of ``vectors`` orthogonal to the span of ``columns``; taken twice, for the digits."""
    basis = torch.linalg.qr(columns).Q
    for _ in range(2):
        vectors = vectors - basis @ (basis.mT @ vectors)
    return vectors


def _pair(weights: linear.Weights) -> linear.Weights:
    return checks.weights("weights", weights, count=2)


def _unseen(unseen: Tensor, inner: Tensor) -> None:
    """Of the hidden width and dtype of ``inner``; it may have no columns, where the inputs have full rank."""
    checks.is_tensor("unseen", unseen)
    good = unseen.ndim >= 2 and unseen.shape[-2] == inner.shape[-2] and unseen.dtype == inner.dtype
    checks.require(good, "unseen", (tuple(unseen.shape), unseen.dtype), f"of shape (..., {inner.shape[-2]}, D − r)")
    checks.finite("unseen", unseen)
    checks.broadcast("unseen", unseen.shape[:-2], inner.shape[:-2])
