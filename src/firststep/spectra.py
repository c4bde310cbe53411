"""Ranks of matrices: numerical, soft and stable. Pure functions, batched over leading axes.

A floating-point matrix has no rank, only a number of singular values above a threshold. Every function
here therefore says which threshold it uses; :func:`rank_tolerance` spells out the ones that libraries use.
"""

import torch
from torch import Tensor

from firststep import checks

CONVENTIONS = ("torch", "numpy", "rank_collapse")


def rank_tolerance(a: Tensor, convention: str = "torch") -> Tensor:
    """Threshold below which a library's ``matrix_rank`` regards a singular value as zero.

    With σ_1 the largest singular value of the ``m × n`` matrix and ε the spacing of its dtype at 1
    (1.2e-7 in float32, 2.2e-16 in float64):

    =================  ========================  ==========================================
    convention         threshold                 used by
    =================  ========================  ==========================================
    ``torch``          σ_1 · max(m, n) · ε       ``torch.linalg.matrix_rank``
    ``numpy``          σ_1 · max(m, n) · ε       ``numpy.linalg.matrix_rank``, as in MATLAB
    ``rank_collapse``  σ_1 · max(m, n) · 1e-7    Daneshmand et al. (2020), footnote 2
    =================  ========================  ==========================================

    Args:
        a: ``(..., m, n)``, real.
        convention: one of the three above.

    Returns:
        ``(...)``, in the dtype of ``a``.

    Raises:
        ValueError: ``a`` is not a batch of finite matrices, or the convention is unknown.
    """
    checks.matrices("a", a)
    checks.one_of("convention", convention, CONVENTIONS)
    eps = 1e-7 if convention == "rank_collapse" else torch.finfo(a.dtype).eps
    return torch.linalg.matrix_norm(a, ord=2) * max(a.shape[-2:]) * eps


def numerical_rank(a: Tensor, rtol: float | None = None) -> Tensor:
    """Number of singular values above ``rtol · σ_1``.

    Args:
        a: ``(..., m, n)``, real. Its dtype decides the default threshold.
        rtol: relative threshold in ``[0, 1)``; by default ``max(m, n) · ε`` of the dtype, which is what
            both torch and numpy use (:func:`rank_tolerance`).

    Returns:
        ``(...)``, int64. The zero matrix has rank 0.

    Raises:
        ValueError: ``a`` is not a batch of finite matrices, or ``rtol`` lies outside ``[0, 1)``.
    """
    checks.matrices("a", a)
    if rtol is None:
        rtol = max(a.shape[-2:]) * torch.finfo(a.dtype).eps
    else:
        good = isinstance(rtol, int | float) and 0 <= rtol < 1
        checks.require(good, "rtol", rtol, "a number in [0, 1)")
    sigma = torch.linalg.svdvals(a)
    return (sigma > rtol * sigma[..., :1]).sum(-1)


def soft_rank(h: Tensor, tau: float) -> Tensor:
    """Number of squared singular values, per sample, of at least ``tau``: #{i : σ_i² / N ≥ τ}.

    Args:
        h: representations, ``(..., d, N)``, one column a sample.
        tau: threshold in ``[0, 1]``. An absolute one: batch normalization fixes the scale of ``h``.

    Returns:
        ``(...)``, int64, between 0 and ``min(d, N)``.

    Raises:
        ValueError: ``h`` is not a batch of finite matrices, or ``tau`` lies outside ``[0, 1]``.

    Source: Daneshmand et al. (2020), Eq. (3).
    """
    checks.matrices("h", h)
    checks.require(isinstance(tau, int | float) and 0 <= tau <= 1, "tau", tau, "a number in [0, 1]")
    return (torch.linalg.svdvals(h).square() / h.shape[-1] >= tau).sum(-1)


def stable_rank(h: Tensor) -> Tensor:
    """Lower bound on the rank that is smooth in ``h``: r(H) = Tr(M)² / ‖M‖²_F with M = H Hᵀ / N.

    Args:
        h: representations, ``(..., d, N)``, one column a sample.

    Returns:
        ``(...)``, between 1 and ``min(d, N)``; invariant to the scale of ``h``.

    Raises:
        ValueError: ``h`` is not a batch of finite matrices, or one of them is zero.

    Source: Daneshmand et al. (2020), Eq. (4).
    """
    checks.matrices("h", h)
    largest = h.abs().amax((-2, -1), keepdim=True)
    if (largest == 0).any():
        raise ValueError("h must have a non-zero entry in every matrix, got a zero matrix")
    h = h / largest  # r is scale-free; the squares below must neither overflow nor vanish
    gram = h @ h.mT if h.shape[-2] <= h.shape[-1] else h.mT @ h
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / gram.square().sum((-2, -1))
