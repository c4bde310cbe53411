"""Rank of many matrices: batched, in a loop, and without round-off."""

import functools

import numpy as np
import pytest
import torch

from firststep import finite_field, inits, spectra


@functools.cache
def products():
    """256 products of rank 10 of the size of a small network's."""
    left, right = inits.prescribed_rank((75, 60, 50), 10, aligned=True, generator=inits.generators(256))
    return right @ left


LOOP = {
    "firststep": lambda: spectra.numerical_rank(products()),
    "torch.linalg.matrix_rank, batched": lambda: torch.linalg.matrix_rank(products()),
    "torch.linalg.matrix_rank, in a loop": lambda: torch.stack([torch.linalg.matrix_rank(a) for a in products()]),
    "numpy.linalg.matrix_rank, batched": lambda: torch.from_numpy(np.linalg.matrix_rank(products().numpy())),
}


@pytest.mark.parametrize("label", LOOP)
def test_numerical_rank_of_many_matrices(timed, label):
    ranks = timed(LOOP[label], group="numerical rank of 256 matrices 50 × 75", label=label, rounds=8)
    assert (ranks == 10).all()


@functools.cache
def modular():
    return finite_field.random_matrix(200, 200, np.random.default_rng(0), rank=150)


@functools.cache
def real():
    return inits.prescribed_rank((200, 200), 150, aligned=True, generator=torch.Generator().manual_seed(0))[0]


EXACT = {
    "firststep": lambda: finite_field.rank(modular()),
    "float64 singular values, not exact": lambda: int(torch.linalg.matrix_rank(real(), rtol=1e-10)),
}


@pytest.mark.parametrize("label", EXACT)
def test_exact_rank_against_singular_values(timed, label):
    assert timed(EXACT[label], group="rank of one matrix 200 × 200, exact", label=label, rounds=12) == 150
