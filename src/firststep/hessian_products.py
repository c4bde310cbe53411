"""Products of a layer's Hessian block with vectors, by automatic differentiation, and what follows from them.

Nothing here knows the Kronecker structure that :mod:`firststep.curvature` uses: these are its oracles, and the way to
the norms that have no closed form. scipy's Lanczos iteration (ARPACK) works on numpy vectors, so vectors cross to the
CPU and back; the products themselves run where the network lives.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Generator, Tensor

from firststep import checks
from firststep.feedforward import (
    ACTIVATIONS,
    LOSSES,
    Pass,
    _affine,
    _check_layer,
    _check_pass,
    _hessian_root,
    _loss_value,
    _target_vectors,
)

Product = Callable[[Tensor], Tensor]


def layer_hessian_operator(run: Pass, target: Tensor, layer: int, *, loss: str = "squared") -> LinearOperator:
    """Exact products of one layer's Hessian block with vectors, for any activation, by automatic differentiation.

    A product costs about as much as a gradient from layer l up; the graph of the gradient is built once and kept.

    Args:
        run: a pass of one draw (:meth:`Pass.draw`); may have samples.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.

    Returns:
        A symmetric ``scipy.sparse.linalg.LinearOperator`` of side d_l · d_{l-1}, rows of the weights after one another.

    Raises:
        ValueError: the pass has leading axes; else as :func:`kronecker_factors`.

    Source: Pearlmutter (1994), *Fast exact multiplication by the Hessian*.
    """
    value, weight = _loss_in_layer(run, target, layer, loss), run.weights[layer - 1].detach().clone()
    weight.requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(value(weight), weight, create_graph=True)

    def product(v: Tensor) -> Tensor:
        v = v.reshape(weight.shape)
        return torch.autograd.grad(gradient, weight, v, retain_graph=True, materialize_grads=True)[0]

    return _operator(product, tuple(weight.shape), weight)


def _operator(product: Product, shape: tuple[int, int], like: Tensor) -> LinearOperator:
    """A function of flat tensors as an operator on numpy vectors."""

    def matvec(v: np.ndarray) -> np.ndarray:
        moved = torch.from_numpy(np.ascontiguousarray(v.reshape(-1))).to(like.device, like.dtype)
        return product(moved).detach().cpu().numpy().reshape(-1)

    side = shape[0] * shape[1]
    return LinearOperator((side, side), matvec=matvec, rmatvec=matvec, dtype=like.detach().cpu().numpy().dtype)


def lanczos_norm(
    run: Pass, target: Tensor, layer: int, *, loss: str = "squared", generator: Generator, tol: float = 1e-9
) -> float:
    """Spectral norm of one layer's Hessian block for any activation, by Lanczos iteration.

    Args:
        run: a pass of one draw; may have samples.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.
        generator: source of the start vector.
        tol: relative accuracy of the eigenvalue; 0, and anything below ε of the dtype, means ε.

    Raises:
        ValueError: ``tol`` is negative; else as :func:`layer_hessian_operator`.
        scipy.sparse.linalg.ArpackNoConvergence: not reached within scipy's limit of iterations.

    Source: ``scipy.sparse.linalg.eigsh`` on :func:`layer_hessian_operator`.
    """
    checks.generator("generator", generator)
    checks.between("tol", tol, 0)
    return _largest_eigenvalue(layer_hessian_operator(run, target, layer, loss=loss), generator, tol)


def _largest_eigenvalue(operator: LinearOperator, generator: Generator, tol: float) -> float:
    """Largest eigenvalue in modulus of a symmetric operator."""
    side = operator.shape[0]
    start = torch.randn(side, generator=generator, dtype=torch.float64, device=generator.device).cpu().numpy()
    start = start.astype(operator.dtype)
    image = operator.matvec(start)
    if side == 1 or not image.any():  # ARPACK takes neither a single row nor a zero operator
        return float(abs(image[0] / start[0]))
    tol = max(tol, float(np.finfo(operator.dtype).eps))
    # A start vector in the range leaves out the null space, which is most of the space.
    found = eigsh(operator, k=1, which="LM", v0=image, tol=tol, return_eigenvectors=False)
    return float(abs(found[0]))


def dense_layer_hessian(run: Pass, target: Tensor, layer: int, *, loss: str = "squared") -> Tensor:
    """One layer's whole Hessian block by automatic differentiation, ``(d_l·d_{l-1}, d_l·d_{l-1})``: the oracle.

    Time and memory grow with the square of the number of weights: for small layers only.

    Args:
        run: a pass of one draw; may have samples.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.

    Raises:
        ValueError: as :func:`layer_hessian_operator`.
    """
    value, weight = _loss_in_layer(run, target, layer, loss), run.weights[layer - 1].detach()
    return torch.func.jacrev(torch.func.grad(value))(weight).reshape(weight.numel(), weight.numel())


def _loss_in_layer(run: Pass, target: Tensor, layer: int, loss: str) -> Product:
    """The loss as a function of W_l alone, from that layer's input on."""
    _check_layer(run, layer)
    checks.require(
        not run.draws, "run", tuple(run.draws), "a pass of one draw, without leading axes: use run.draw(...)"
    )
    target = _target_vectors(target, run.z[-1], loss)
    inputs, later = run.z[layer - 1].detach(), range(layer, run.depth)

    def value(weight: Tensor) -> Tensor:
        z = inputs
        for index, current in [(layer - 1, weight), *((m, run.weights[m]) for m in later)]:
            bias = run.biases and run.biases[index]
            z = ACTIVATIONS[run.activations[index]].f(_affine(current, bias, z, run.samples))
        return _loss_value(z, target, loss).mean()

    return value


def gauss_newton_norm(run: Pass, *, loss: str = "squared", tol: float = 1e-6) -> float:
    """Largest eigenvalue of the Gauss–Newton matrix in all weights, for many samples, by Lanczos iteration.

    The iteration runs on the outputs of all samples, with products that go back and forth through the network: no
    matrix larger than a layer's states is built. Biases rest.

    Args:
        run: a pass of one draw with samples.
        loss: a key of ``LOSSES``.
        tol: relative accuracy of the eigenvalue.

    Raises:
        ValueError: the pass has leading axes or no samples, or an unknown loss.

    Source: Schraudolph (2002), *Fast curvature matrix-vector products for second-order gradient descent*.
    """
    _check_pass(run)
    checks.require(run.samples and not run.draws, "run", tuple(run.draws), "a pass of one draw, with samples")
    checks.one_of("loss", loss, LOSSES)
    checks.between("tol", tol, 0)
    root, shape = _hessian_root(run.z[-1], loss), run.z[-1].shape

    def product(v: Tensor) -> Tensor:
        back, gradients = root.mT @ v.reshape(*shape, 1), []
        back = back.squeeze(-1)
        for layer in range(run.depth, 0, -1):
            back = back * run.slope[layer - 1]
            gradients.append(back.mT @ run.z[layer - 1])
            back = back @ run.weights[layer - 1]
        ahead = torch.zeros_like(run.z[0])
        for layer in range(1, run.depth + 1):
            moved = run.z[layer - 1] @ gradients[-layer].mT + ahead @ run.weights[layer - 1].mT
            ahead = run.slope[layer - 1] * moved
        return (root @ ahead.unsqueeze(-1)).flatten() / shape[0]

    return _largest_eigenvalue(_operator(product, tuple(shape), run.z[-1]), Generator("cpu").manual_seed(0), tol)
