"""What one batch-normalized layer does to the second-moment matrix M = HHᵀ/N, exactly and in expectation.

With weights W a layer maps a unit-diagonal M to M₊ = D^{-1/2} (I + γW) M (I + γW)ᵀ D^{-1/2}, where D is the diagonal of
the matrix in the middle (Daneshmand et al. 2020, Eq. 42). Expanded in γ, ‖M₊‖²_F = ‖M‖²_F + γ f₁(W) + γ² f₂(W) + …, and
E f₂ = δ_F(M), see :func:`firststep.spectra.frobenius_change`. :func:`changes` estimates the expected change with three
devices that leave its mean alone: antithetic pairs ±W, a control of mean zero, and the same draws at every γ.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from firststep import chain, checks, scale, spectra


def moved(m: Tensor, gamma: float, weight: Tensor) -> Tensor:
    """M₊ after one layer.

    Args:
        m: ``(d, d)``, symmetric, with a diagonal of ones.
        gamma: strength of the random branch; a negative one turns the weights.
        weight: ``(..., d, d)``.

    Returns:
        ``(..., d, d)``, with a diagonal of ones.

    Raises:
        ValueError: shapes or dtypes differ, M is not as described, or a row vanishes or leaves the range of numbers.
    """
    _partners(m, weight)
    after = _moved(m, checks.between("gamma", gamma, -(2.0**100), 2.0**100), weight)
    if not checks.every(after.isfinite()):
        raise ValueError("gamma and weight must leave every row different from zero and finite, got a row that is not")
    return after


def second_order(m: Tensor, weight: Tensor) -> Tensor:
    """f₂(W), the coefficient of γ² in ‖M₊‖²_F before any expectation.

    Args:
        m: ``(d, d)``, symmetric, with a diagonal of ones.
        weight: ``(..., d, d)``.

    Returns:
        ``(...)``.

    Raises:
        ValueError: as :func:`moved`.
    """
    _partners(m, weight)
    return _second_order(m, weight)


def squares(m: Tensor) -> Tensor:
    """Coefficients of W_kl² in f₂, ``(d, d)``: its values at the matrices with a single one. Their sum is E f₂.

    Raises:
        ValueError: M is not symmetric with a diagonal of ones.
    """
    _unit(m)
    return _squares(m)


def changes(m: Tensor, gammas: Sequence[float], law: str, count: int, generator: Generator) -> Tensor:
    """Draws of the change of ‖M‖²_F in one layer, averaged over the pair W and -W.

    Args:
        m: ``(d, d)``, symmetric, with a diagonal of ones.
        gammas: strengths γ, which see the same weights.
        law: of the weights, a key of :data:`firststep.chain.LAWS`.
        count: number of pairs.
        generator: where the weights come from.

    Returns:
        ``(len(gammas) + 2, count)``: the change at each γ; f₂(W); and Z = f₂(W) - Σ_kl f₂(E_kl) W_kl², whose mean is
        zero because the entries of W are independent, so that subtracting γ² Z changes no mean.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    _unit(m)
    strengths = checks.listed(gammas)
    checks.require(isinstance(strengths, tuple) and len(strengths) > 0, "gammas", gammas, "a list of numbers")
    for gamma in strengths:
        checks.between("gammas", gamma, -(2.0**100), 2.0**100)
    checks.one_of("law", law, chain.LAWS)
    checks.require(checks.positive_integer("count", count) <= 10**9, "count", count, "at most 10⁹")
    checks.generator("generator", generator)
    before, single, found = m.square().sum(), _squares(m), []
    for w in _draws(law, len(m), count, generator, m.dtype):
        after = [(_norm_after(m, gamma, w) + _norm_after(m, -gamma, w)) / 2 - before for gamma in strengths]
        second = _second_order(m, w)
        found.append(torch.stack([*after, second, second - (single * w.square()).sum((-2, -1))]))
    result = torch.cat(found, 1)
    if not checks.every(result.isfinite()):
        raise ValueError("gammas must keep every row different from zero and finite, got a row that is not")
    return result


def nearly_collinear(d: int, eps: float, *, device: torch.device | str | None = None) -> Tensor:
    """M = ε I + (1 - ε) 11ᵀ: one eigenvalue d - ε(d - 1), all others ε; Example 9.

    Args:
        d: side.
        eps: ε, from 0 (rank one) to 1 (whitened).
        device: of the result; by default :func:`firststep.scale.device`.

    Returns:
        ``(d, d)``, float64.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    checks.require(checks.positive_integer("d", d) <= 2**14, "d", d, "at most 16384")
    checks.between("eps", eps, 0, 1)
    kind = {"dtype": torch.float64, "device": scale.chosen(device)}
    return eps * torch.eye(d, **kind) + (1 - eps) * torch.ones(d, d, **kind)


def _moved(m: Tensor, gamma: float, weight: Tensor) -> Tensor:
    step = torch.eye(m.shape[-1], dtype=m.dtype, device=m.device) + gamma * weight
    after = step @ m @ step.mT
    inverse = after.diagonal(dim1=-2, dim2=-1).rsqrt()
    return after * (inverse[..., :, None] * inverse[..., None, :])


def _norm_after(m: Tensor, gamma: float, weight: Tensor) -> Tensor:
    return _moved(m, gamma, weight).square().sum((-2, -1))


def _second_order(m: Tensor, w: Tensor) -> Tensor:
    """The sum over pairs may include i = j, where the terms cancel."""
    half, y = w @ m, w @ m @ w.mT
    x, rows = half + half.mT, m.square().sum(-1)
    dx, dy = (a.diagonal(dim1=-2, dim2=-1) for a in (x, y))
    pairs = (x.square() + 2 * m * y).sum((-2, -1))
    return pairs + (-4 * dx * (m * x).sum(-1) + 2 * (dx.square() - dy) * rows + dx * (dx @ m.square())).sum(-1)


def _squares(m: Tensor) -> Tensor:
    d = m.shape[-1]
    return _second_order(m, torch.eye(d * d, dtype=m.dtype, device=m.device).reshape(d * d, d, d)).reshape(d, d)


def _draws(law: str, d: int, count: int, generator: Generator, dtype: torch.dtype):
    """Batches of weights that fit into the cache; a GPU wants larger ones."""
    size = max(1, scale.pick(smoke=2**17, cpu=2**17, gpu=2**23) // d**2)
    for begin in range(0, count, size):
        shape = min(size, count - begin), d, d
        yield chain.LAWS[law](torch.empty(shape, dtype=dtype, device=generator.device), generator)


def _unit(m: Tensor) -> None:
    checks.matrices("m", m)
    checks.require(m.ndim == 2, "m", tuple(m.shape), "one matrix (d, d)")
    spectra.frobenius_change(m)  # checks symmetry and the diagonal


def _partners(m: Tensor, weight: Tensor) -> None:
    _unit(m)
    checks.matrices("weight", weight, m.dtype)
    good = weight.shape[-2:] == m.shape
    checks.require(good, "weight", tuple(weight.shape), f"of shape (..., d, d) with d={len(m)}")
