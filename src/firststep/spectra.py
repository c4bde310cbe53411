"""Ranks of matrices: numerical, soft and stable. Pure functions, batched over leading axes.

A floating-point matrix has no rank, only a number of singular values above a threshold. Every function
here therefore says which threshold it uses; :func:`rank_tolerance` spells out the ones that libraries use.
"""

import numpy as np
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
        checks.between("rtol", rtol, 0, 1, open_end=True)
    sigma = _singular_values(a)
    return (sigma > rtol * sigma[..., :1]).sum(-1)


def nearest_of_rank(a: Tensor, rank: int) -> Tensor:
    """The nearest matrix of at most this rank: the leading singular triplets, ``(..., m, n)``.

    Args:
        a: ``(..., m, n)``, real.
        rank: at least 0; from min(m, n) on the matrix comes back as it is, up to round-off.

    Raises:
        ValueError: ``a`` is not a batch of finite matrices, or ``rank`` is not a natural number.

    Source: Eckart & Young (1936).
    """
    checks.matrices("a", a)
    checks.natural("rank", rank)
    u, sigma, vh = torch.linalg.svd(a, full_matrices=False)
    return (u[..., :rank] * sigma[..., None, :rank]) @ vh[..., :rank, :]


def _singular_values(a: Tensor) -> Tensor:
    """Decreasing, ``(..., min(m, n))``, without a gradient, by the fastest of the equally accurate ways.

    MKL takes up to three times as long for wide matrices as for their transposes. For float64 the LAPACK of numpy is
    another 15 % faster on the CPU, but costs more for each matrix, which counts where they are small.
    """
    a = a.detach() if a.shape[-2] >= a.shape[-1] else a.detach().mT
    if a.device.type == "cpu" and a.dtype == torch.float64 and a.shape[-1] > 24:
        return torch.from_numpy(np.linalg.svd(a.numpy(), compute_uv=False))
    return torch.linalg.svdvals(a)


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
    checks.between("tau", tau, 0, 1)
    return (_singular_values(h).square() / h.shape[-1] >= tau).sum(-1)


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
    if not checks.every(largest > 0):
        raise ValueError("h must have a non-zero entry in every matrix, got a zero matrix")
    h = h / largest  # r is scale-free; the squares below must neither overflow nor vanish
    gram = h @ h.mT if h.shape[-2] <= h.shape[-1] else h.mT @ h
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)
    return trace.square() / gram.square().sum((-2, -1))


def regularity_terms(m: Tensor) -> tuple[Tensor, Tensor]:
    """The two traces whose ratio, each averaged over a law of M, is that law's regularity constant α.

    Args:
        m: second-moment matrices, ``(..., d, d)``, symmetric.

    Returns:
        ``Tr(diag(M²)²)`` and ``Tr(M³)``, each ``(...)``. Over a sample ``first.mean() / second.mean()``
        estimates α; the mean of the ratios does not.

    Raises:
        ValueError: ``m`` is not a batch of finite symmetric matrices.

    Source: Daneshmand et al. (2020), Definition 3, Eq. (46).
    """
    _symmetric("m", m)
    return _regularity_terms(m)


def _regularity_terms(m: Tensor) -> tuple[Tensor, Tensor]:
    rows = m.square().sum(-1)  # the diagonal of M², since M is symmetric
    return rows.square().sum(-1), ((m @ m) * m).sum((-2, -1))


def frobenius_change(m: Tensor) -> Tensor:
    """Leading coefficient δ_F of the change of ‖M‖²_F that one batch-normalized layer makes.

    With weights that are independent, symmetric and of unit variance, ``E‖M₊‖²_F - ‖M‖²_F = γ² δ_F(M)`` to
    leading order in the residual strength γ, where δ_F = 2d² - 2‖M‖²_F - 8 Tr(M³) + 8 Tr(diag(M²)²).

    Args:
        m: second-moment matrices of normalized representations, ``(..., d, d)``, symmetric, unit diagonal.

    Returns:
        ``(...)``, in the dtype of ``m``.

    Raises:
        ValueError: ``m`` is not a batch of finite symmetric matrices with a diagonal of ones.

    Source: Daneshmand et al. (2020), Lemma 7, Eq. (43).
    """
    _symmetric("m", m)
    errors = (m.diagonal(dim1=-2, dim2=-1) - 1).abs()
    if not checks.every(errors <= torch.finfo(m.dtype).eps ** 0.5):
        raise ValueError(
            f"m must have a diagonal of ones, got m with a diagonal entry off by {float(errors.max()):.3g}"
        )
    rows, cube = _regularity_terms(m)
    return 2 * m.shape[-1] ** 2 - 2 * m.square().sum((-2, -1)) - 8 * cube + 8 * rows


def _symmetric(name: str, m: Tensor) -> None:
    checks.matrices(name, m)
    if m.shape[-2] != m.shape[-1]:
        raise ValueError(f"{name} must be a batch of square matrices, got {name} of shape {tuple(m.shape)}")
    # Far above the rounding of H Hᵀ / N and far below any asymmetry that someone means.
    allowed = torch.finfo(m.dtype).eps ** 0.5 * m.abs().amax((-2, -1))
    if not checks.every((m - m.mT).abs().amax((-2, -1)) <= allowed):
        raise ValueError(f"{name} must be symmetric, got {name} that differs from its transpose")
