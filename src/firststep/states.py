"""A representation of a chain of layers, and its measures, which share what they compute."""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from firststep import checks, spectra


class State:
    """A representation, and what several measures of it share; made by :func:`firststep.chain.follow`, which checks it.

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

    def soft_rank(self, tau: float | Sequence[float]) -> Tensor:
        """rank_τ(H) = #{i : σ_i²/N ≥ τ}: ``(seeds,)``, or ``(seeds, τ)`` for several thresholds; Eq. (3).

        Raises:
            ValueError: a τ outside [0, 1].
        """
        several = checks.listed(tau)
        thresholds = list(several) if isinstance(several, tuple) else [tau]
        good = len(thresholds) > 0 and all(isinstance(t, int | float) and 0 <= t <= 1 for t in thresholds)
        good = good and not any(isinstance(t, bool) for t in thresholds)
        checks.require(good, "tau", tau, "a number in [0, 1], or several")
        levels = self.eigenvalues.new_tensor(thresholds)
        eigenvalues = self.eigenvalues.clamp_min(0)  # round-off makes some of the vanishing ones negative
        counts = (eigenvalues[..., None, :] >= levels[:, None]).sum(-1)
        return counts if isinstance(several, tuple) else counts[..., 0]

    def frobenius(self) -> Tensor:
        """‖M‖²_F, ``(seeds,)``."""
        return self.m.square().sum((-2, -1))

    def stable_rank(self) -> Tensor:
        """r(H) = Tr(M)²/‖M‖²_F, ``(seeds,)``; Eq. (4)."""
        return self.m.diagonal(dim1=-2, dim2=-1).sum(-1).square() / self.frobenius()

    def regularity_terms(self) -> Tensor:
        """Tr(diag(M²)²) and Tr(M³), ``(seeds, 2)``; the ratio of their averages is α, Eq. (46)."""
        return torch.stack(spectra.regularity_terms(self.m), -1)
