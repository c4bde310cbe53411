"""Rank of many matrices: batched, in a loop, and without round-off."""

import functools

import numpy as np
import pytest
import torch

from firststep import finite_field, inits, spectra


@functools.cache
def products(count, rows, columns, rank):
    """Products of a small network: ``count`` of them, of one rank."""
    generator = inits.generators(count, device="cpu")
    left, right = inits.prescribed_rank((columns, rows, rows), rank, aligned=True, generator=generator)
    return right @ left


LOOP = {
    "firststep": spectra.numerical_rank,
    "torch.linalg.matrix_rank, batched": torch.linalg.matrix_rank,
    "torch.linalg.matrix_rank, in a loop": lambda batch: torch.stack([torch.linalg.matrix_rank(a) for a in batch]),
    "numpy.linalg.matrix_rank, batched": lambda batch: torch.from_numpy(np.linalg.matrix_rank(batch.numpy())),
}
SIZES = [(1024, 10, 20, 3), (256, 50, 75, 10), (256, 10, 1000, 3), (64, 100, 100, 10), (16, 250, 500, 50)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("label", LOOP)
def test_numerical_rank_of_many_matrices(timed, label, size):
    count, rows, columns, rank = size
    batch = products(*size)
    group = f"numerical rank of {count} matrices {rows} × {columns}"
    ranks = timed(lambda: LOOP[label](batch), group=group, label=label, rounds=4)
    assert (ranks == rank).all()


@functools.cache
def modular():
    return finite_field.random_matrix(200, 200, np.random.default_rng(0), rank=150)


@functools.cache
def real():
    return inits.prescribed_rank((200, 200), 150, aligned=True, generator=inits.generator(0, device="cpu"))[0]


EXACT = {
    "firststep": lambda: finite_field.rank(modular()),
    "float64 singular values, not exact": lambda: int(torch.linalg.matrix_rank(real(), rtol=1e-10)),
}


@pytest.mark.parametrize("label", EXACT)
def test_exact_rank_against_singular_values(timed, label):
    assert timed(EXACT[label], group="rank of one matrix 200 × 200, exact", label=label, rounds=12) == 150
