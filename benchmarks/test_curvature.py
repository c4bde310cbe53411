"""Spectral norm of one layer's Hessian in a relu network: from its structure, by Lanczos, and from the whole block."""

import functools

import pytest
import torch

from firststep import curvature, feedforward, hessian_products, inits

WIDTHS = (128, 128, 128, 128, 10)
MIDDLE, READ_OUT = 2, 4  # whole blocks: 16,384² entries, 2 GB, for the middle layer; 1,280² for the read-out


@functools.cache
def one_sample():
    generator = torch.Generator().manual_seed(0)
    weights = inits.network(WIDTHS, "he_normal", generator=generator)
    x = torch.randn(WIDTHS[0], generator=generator, dtype=torch.float64)
    return feedforward.forward(weights, x, activation=("relu",) * 3 + ("linear",)), torch.tensor(3)


def structure(layer):
    return float(curvature.layer_hessian_norm(*one_sample(), layer, loss="cross_entropy"))


def lanczos(layer):
    generator = torch.Generator().manual_seed(1)
    return hessian_products.lanczos_norm(*one_sample(), layer, loss="cross_entropy", generator=generator)


def dense(layer):
    block = hessian_products.dense_layer_hessian(*one_sample(), layer, loss="cross_entropy")
    return float(torch.linalg.eigvalsh(block).abs().max())


METHODS = {
    "firststep": structure,
    "scipy's Lanczos on Hessian-vector products": lanczos,
    "dense autograd and all its eigenvalues": dense,
}


@pytest.mark.parametrize("label", list(METHODS)[:2])
def test_norm_of_a_middle_layer(timed, label):
    name = "Hessian norm of a 128 × 128 layer"
    norm = timed(lambda: METHODS[label](MIDDLE), group=name, label=label, rounds=10)
    assert norm == pytest.approx(structure(MIDDLE), rel=1e-8)


@pytest.mark.parametrize("label", METHODS)
def test_norm_of_the_read_out(timed, label):
    name = "Hessian norm of a 10 × 128 layer"
    rounds = 2 if METHODS[label] is dense else 10
    norm = timed(lambda: METHODS[label](READ_OUT), group=name, label=label, rounds=rounds)
    assert norm == pytest.approx(structure(READ_OUT), rel=1e-8)
