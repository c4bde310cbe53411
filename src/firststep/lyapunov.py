"""Lyapunov exponents of the normalized chain: growth rates per layer of the product of its linear maps."""

import math
from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from firststep import checks, scale
from firststep.chain import Chain, _draw_weights, _no_zero_row, _seeded_start


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
    checks.instance("chain", chain, Chain)
    checks.require(chain.activation == "linear", "chain.activation", chain.activation, "'linear'")
    x, generators = _seeded_start(x, generator)
    for name, value in (("depth", depth), ("blocks", blocks), ("qr_every", qr_every)):
        checks.positive_integer(name, value)
    checks.require(depth % (blocks * qr_every) == 0, "depth", depth, f"a multiple of {blocks * qr_every}")
    good = checks.natural("burn_in", burn_in) % qr_every == 0
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
    for index, weight in enumerate(_draw_weights(chain.law, d, generators, x.dtype, burn_in + depth), start=1):
        frame = chain._branch(weight, frame)
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


def gaussian_exponents(d: int, *, device: torch.device | str | None = None) -> Tensor:
    """Lyapunov exponents of products of independent d × d matrices of standard Gaussian entries, in closed form.

    λ_i = ½(log 2 + ψ((d − i + 1)/2)) with the digamma function ψ, since the i-th growth factor is a χ with
    d − i + 1 degrees of freedom.

    Args:
        d: side of the matrices.
        device: of the result; by default :func:`firststep.scale.device`.

    Returns:
        ``(d,)``, float64, from the largest down.

    Raises:
        ValueError: ``d`` is no positive integer.

    Source: Newman (1986), Eq. (2.7).
    """
    device = scale.chosen(device)
    freedom = torch.arange(checks.positive_integer("d", d), 0, -1, dtype=torch.float64, device=device)
    return 0.5 * (math.log(2) + torch.digamma(freedom / 2))
