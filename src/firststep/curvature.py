"""Second derivatives of the loss in one layer's weights: exact, kept and neglected parts, and their norms.

In the notation of :mod:`firststep.feedforward`, along a direction G in the weights of layer l the second derivative of
the loss has two parts,

    L″ = vᵀ H_z v  +  Σ_{m ≥ l} Σ_i (D_{zᵐ} L)_i f_m″(uᵐ_i) (dᵐ_i)²,    v = B_l A_l G zˡ⁻¹,

with dᵐ the derivative of uᵐ along G. The first part is *kept* by Theorem 1 of Skorski (2020), the second is
*neglected*; without curvature in the activations it is zero. Either way G enters through G zˡ⁻¹ alone, so the whole
Hessian block of one sample is a Kronecker product, ``left ⊗ right rightᵀ``: with the left factor of
:func:`kronecker_factors` for the kept part, with that of :func:`preactivation_hessian` for the exact block. Every
spectral question is two small ones.

Skorski counts layers from 0: his w^k, b^k, A^k and J^k are our W_{k+1}, b_{k+1}, A_{k+1} and J_{k+1}; his n is our L.
Activations z^k and output derivatives B^k carry the same number in both.

How to use it: run :func:`firststep.feedforward.forward` once, and give its ``Pass`` to everything else::

    run = forward(weights, x, biases=biases, activation=("tanh", "tanh", "linear"))
    layer_hessian_norm(run, target, 2, loss="cross_entropy")

A direction, or a row of a block, is the matrix ``(d_l, d_{l-1})`` read row by row; ``layer`` counts from 1 to L.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from firststep import checks
from firststep.feedforward import (
    ACTIVATIONS,
    LOSSES,
    Pass,
    _affine,
    _check_layer,
    _hessian_root,
    _per_sample,
    _target_vectors,
    loss_gradient,
    output_jacobians,
)
from firststep.hessian_products import _largest_eigenvalue, _operator


def layer_gradient(run: Pass, target: Tensor, layer: int, *, loss: str = "squared") -> Tensor:
    """Gradient of the loss in W_l, (A_l B_lᵀ D_z L) (zˡ⁻¹)ᵀ, ``(..., d_l, d_{l-1})``; with samples, their mean.

    Args:
        run: a pass.
        target: as :func:`loss_value`, for the outputs ``run.z[-1]``.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.

    Raises:
        ValueError: no such layer, or as :func:`loss_value`.
    """
    _check_layer(run, layer)
    error = loss_gradient(run.z[-1], target, loss).unsqueeze(-1)
    pulled = (_pull_back(run, layer).mT @ error).squeeze(-1)
    if not run.samples:
        return pulled.unsqueeze(-1) * run.z[layer - 1].unsqueeze(-2)
    return pulled.mT @ run.z[layer - 1] / pulled.shape[-2]


def kronecker_factors(run: Pass, target: Tensor, layer: int, *, loss: str = "squared") -> tuple[Tensor, Tensor]:
    """The two factors of the kept part of a layer's Hessian, for each sample: left ⊗ right rightᵀ.

    The kept block is ``torch.kron(left, torch.outer(right, right))`` in row-by-row order; with samples it is the mean
    of them. Neglected is the curvature of the activations; linear and relu networks have none, and this is all.

    Args:
        run: a pass.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.

    Returns:
        ``left`` = (B_l A_l)ᵀ H_z (B_l A_l), ``(..., d_l, d_l)``, and ``right`` = zˡ⁻¹, ``(..., d_{l-1})``; with
        samples, one of each a sample.

    Raises:
        ValueError: no such layer, or as :func:`loss_value`.

    Source: Skorski (2020), Theorem 1, Eq. (4), with B^{k+1} for the printed B^k.
    """
    root = _rooted(run, target, layer, loss)
    right = run.z[layer - 1]
    return root.mT @ root, right.expand(*root.shape[:-2], right.shape[-1])


def kept_form(run: Pass, target: Tensor, layer: int, g: Tensor, *, loss: str = "squared") -> Tensor:
    """vᵀ H_z v with v = B_l A_l g zˡ⁻¹, ``(...)``: what Theorem 1 keeps along g. Never negative.

    Args:
        run: a pass.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        g: directions, ``(..., d_l, d_{l-1})``; leading axes broadcast with the draws.
        loss: a key of ``LOSSES``.

    Raises:
        ValueError: no such layer, a direction of another shape, or as :func:`loss_value`.

    Source: Skorski (2020), Theorem 1, Eq. (4), with B^{k+1} for the printed B^k.
    """
    _, v = _velocities(run, layer, g)
    _target_vectors(target, run.z[-1], loss)
    rooted = (_hessian_root(run.z[-1], loss) @ v.unsqueeze(-1)).squeeze(-1)
    return _mean(rooted.square().sum(-1), run)


def neglected_terms(run: Pass, target: Tensor, layer: int, g: Tensor, *, loss: str = "squared") -> Tensor:
    """What Theorem 1 leaves out of the second derivative along g, split by the layer m whose activation bends.

    The term of layer m is Σ_i (D_{zᵐ} L)_i f_m″(uᵐ_i) (dᵐ_i)², with dᵐ the derivative of uᵐ along g and
    D_{zᵐ} L = B_mᵀ D_z L the backpropagated gradient. Of either sign.

    Args:
        run: a pass.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        g: directions, as :func:`kept_form`.
        loss: a key of ``LOSSES``.

    Returns:
        ``(..., L - l + 1)``, for m = l, …, L.

    Raises:
        ValueError: as :func:`kept_form`.

    Source: the second term of Skorski (2020), Eq. (10), in closed form.
    """
    rates, _ = _velocities(run, layer, g)
    error = loss_gradient(run.z[-1], target, loss).unsqueeze(-1)
    terms = []
    for m, (rate, b) in enumerate(zip(rates, output_jacobians(run)[layer - 1 :], strict=True), start=layer):
        terms.append(_mean(((b.mT @ error).squeeze(-1) * _second(run, m) * rate.square()).sum(-1), run))
    return torch.stack(terms, -1)


def exact_form(run: Pass, target: Tensor, layer: int, g: Tensor, *, loss: str = "squared") -> Tensor:
    """The exact second derivative of the loss along g in the weights of one layer, ``(...)``.

    :func:`kept_form` plus all of :func:`neglected_terms`; arguments and errors as there.

    Source: Skorski (2020), Eq. (10), both terms.
    """
    return kept_form(run, target, layer, g, loss=loss) + neglected_terms(run, target, layer, g, loss=loss).sum(-1)


def _velocities(run: Pass, layer: int, g: Tensor) -> tuple[list[Tensor], Tensor]:
    """Derivatives of uˡ, …, uᴸ and of zᴸ when W_l moves along g."""
    _check_layer(run, layer)
    _direction(g, run, layer)
    rates = [_affine(g, None, run.z[layer - 1], run.samples)]
    for m in range(layer, run.depth):
        rates.append(_affine(run.weights[m], None, run.slope[m - 1] * rates[-1], run.samples))
    return rates, run.slope[-1] * rates[-1]


def preactivation_hessian(run: Pass, target: Tensor, layer: int, *, loss: str = "squared") -> Tensor:
    """D²_{uˡ} L, the exact Hessian of the loss in the pre-activations of a layer, for any activation.

    Weights act through uˡ = W_l zˡ⁻¹ + b_l alone, and linearly. So the exact Hessian block of one sample is the
    Kronecker product of this matrix with zˡ⁻¹ (zˡ⁻¹)ᵀ, whatever the activations; without curvature it is the left
    factor of :func:`kronecker_factors`. The rest is Σ_m Tᵀ diag(D_{zᵐ} L ⊙ f_m″(uᵐ)) T with T = D_{uˡ} uᵐ.

    Args:
        run: a pass.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.

    Returns:
        ``(..., d_l, d_l)``, symmetric and of either sign; with samples, one a sample.

    Raises:
        ValueError: no such layer, or as :func:`loss_value`.

    Source: both terms of Skorski (2020), Eq. (10), in closed form.
    """
    total, _ = kronecker_factors(run, target, layer, loss=loss)
    error = loss_gradient(run.z[-1], target, loss).unsqueeze(-1)
    above = output_jacobians(run)
    tangent = torch.eye(total.shape[-1], dtype=total.dtype, device=total.device)
    for m in range(layer, run.depth + 1):
        if m > layer:
            tangent = _per_sample(run.weights[m - 1], run) @ (run.slope[m - 2].unsqueeze(-1) * tangent)
        bend = (above[m - 1].mT @ error).squeeze(-1) * _second(run, m)
        total = total + tangent.mT @ (bend.unsqueeze(-1) * tangent)
    return total


def layer_hessian_norm(run: Pass, target: Tensor, layer: int, *, loss: str = "squared", kept: bool = False) -> Tensor:
    """Spectral norm of one layer's Hessian block, from its Kronecker structure and without Hessian-vector products.

    One sample: ‖D²_{uˡ} L‖ · ‖zˡ⁻¹‖², exact for every activation; without curvature this is
    ‖(B_l A_l)ᵀ H_z B_l A_l‖ · ‖zˡ⁻¹‖². With samples the block is a mean of Kronecker products; in linear networks with
    squared loss it is again a single one, left ⊗ ZZᵀ/n, and otherwise its largest eigenvalue comes from
    ``scipy.sparse.linalg.eigsh`` on products with the factors, to machine precision.

    Args:
        run: a pass.
        target: as :func:`loss_value`.
        layer: l, from 1 to L.
        loss: a key of ``LOSSES``.
        kept: take the norm of the part that Theorem 1 keeps. No difference without curvature.

    Returns:
        ``(...)``, one norm a draw.

    Raises:
        ValueError: as :func:`kronecker_factors`.

    Source: Skorski (2020), Theorem 1 and Remark 1; the norm replaces the bound of his Theorem 2.
    """
    _check_layer(run, layer)
    checks.flag("kept", kept)
    inputs = run.z[layer - 1]
    if not (kept or run.piecewise_linear):
        left = preactivation_hessian(run, target, layer, loss=loss)
        if run.samples:
            return _mean_norms(left, inputs, torch.matmul)
        return torch.linalg.eigvalsh(left).abs().amax(-1) * inputs.square().sum(-1)
    root = _rooted(run, target, layer, loss)
    if not run.samples:
        return torch.linalg.matrix_norm(root, ord=2).square() * inputs.square().sum(-1)
    if loss == "squared" and set(run.activations) == {"linear"}:
        left, right = root[..., 0, :, :], inputs / inputs.shape[-2] ** 0.5
        return torch.linalg.matrix_norm(left, ord=2).square() * torch.linalg.matrix_norm(right, ord=2).square()
    return _mean_norms(root, inputs, lambda r, v: r.mT @ (r @ v))


def layer_norms(run: Pass) -> Tensor:
    """:func:`layer_hessian_norm` of all layers at once, ‖zˡ⁻¹‖² · ‖B_l A_l‖², ``(L, ...)``, for loss ½‖z − t‖².

    What Theorem 1 keeps; without curvature in the activations that is all. With one pass back for all layers.

    Raises:
        ValueError: ``run`` is not a pass of one input a draw.

    Source: Skorski (2020), Theorem 1.
    """
    sides = zip(output_jacobians(run), run.z, run.slope, strict=False)  # z has the output, too
    checks.require(not run.samples, "run", "samples", "a pass of one input a draw")
    pulled = ((z.square().sum(-1), b * slope.unsqueeze(-2)) for b, z, slope in sides)
    return torch.stack([size * torch.linalg.matrix_norm(root, ord=2).square() for size, root in pulled])


def tangent_kernel(run: Pass, *, loss: str = "squared") -> Tensor:
    """Matrix of the outputs' size with the nonzero spectrum of the Gauss–Newton matrix in all weights together.

    One sample: Θ = R (Σ_l ‖zˡ⁻¹‖² B_l A_l² B_lᵀ) Rᵀ with RᵀR = H_z. With n samples the blocks
    ⟨z_aˡ⁻¹, z_bˡ⁻¹⟩ B_l(a) A_l(a) A_l(b) B_l(b)ᵀ of samples a and b stand side by side, divided by n. Biases rest.

    Args:
        run: a pass.
        loss: a key of ``LOSSES``.

    Returns:
        ``(..., d_L, d_L)``, or ``(..., n·d_L, n·d_L)`` with samples; symmetric, no eigenvalue negative.

    Raises:
        ValueError: ``run`` is not a pass, or an unknown loss.

    Source: J Jᵀ of Jacot et al. (2018), for finite networks; JᵀJ is the matrix of Theorem 1 for all layers at once.
    """
    checks.one_of("loss", loss, LOSSES)
    total = 0.0
    for b, z, slope in zip(output_jacobians(run), run.z, run.slope, strict=False):  # z has the output, too
        pulled = b * slope.unsqueeze(-2)
        if not run.samples:
            total = total + z.square().sum(-1)[..., None, None] * (pulled @ pulled.mT)
            continue
        total = total + torch.einsum("...ab,...aip,...bjp->...aibj", z @ z.mT / z.shape[-2], pulled, pulled)
    root = _hessian_root(run.z[-1], loss)
    if not run.samples:
        return root @ total @ root.mT
    total = torch.einsum("...aki,...aibj,...blj->...akbl", root, total, root)
    return total.flatten(-2).flatten(-3, -2)


def _mean_norms(factors: Tensor, inputs: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Norms of means over n samples of left ⊗ z zᵀ, one a draw.

    Args:
        factors: ``(..., n, ?, d_l)``, from which ``multiply(factors, v)`` gives left · v for columns v ``(n, d_l, 1)``.
        inputs: the z, ``(..., n, d_{l-1})``.
        multiply: see above.
    """
    draws = torch.broadcast_shapes(factors.shape[:-3], inputs.shape[:-2])
    factors, inputs = (t.expand(*draws, *t.shape[-k:]) for t, k in ((factors, 3), (inputs, 2)))
    shape = factors.shape[-1], inputs.shape[-1]

    def one(factor: Tensor, z: Tensor) -> float:
        def product(v: Tensor) -> Tensor:
            along = (z @ v.reshape(shape).mT).unsqueeze(-1)
            return multiply(factor, along).squeeze(-1).mT @ z / len(z)

        return _largest_eigenvalue(_operator(product, shape, z), Generator("cpu").manual_seed(0), 0.0)

    norms = [one(factors[i], inputs[i]) for i in itertools.product(*map(range, draws))]
    return inputs.new_tensor(norms).reshape(draws)


def _pull_back(run: Pass, layer: int) -> Tensor:
    """B_l A_l, the derivative of the output in the pre-activations of layer l."""
    return output_jacobians(run)[layer - 1] * run.slope[layer - 1].unsqueeze(-2)


def _rooted(run: Pass, target: Tensor, layer: int, loss: str) -> Tensor:
    """R B_l A_l with RᵀR = H_z, ``(..., d_L, d_l)``."""
    _check_layer(run, layer)
    _target_vectors(target, run.z[-1], loss)
    return _hessian_root(run.z[-1], loss) @ _pull_back(run, layer)


def _second(run: Pass, layer: int) -> Tensor:
    return ACTIVATIONS[run.activations[layer - 1]].second(run.u[layer - 1])


def _mean(values: Tensor, run: Pass) -> Tensor:
    return values.mean(-1) if run.samples else values


def _direction(g: Tensor, run: Pass, layer: int) -> None:
    weight = run.weights[layer - 1]
    checks.matrices("g", g)
    if g.shape[-2:] != weight.shape[-2:]:
        wanted = tuple(weight.shape[-2:])
        raise ValueError(
            f"g must have shape (..., {wanted[0]}, {wanted[1]}) like W_{layer}, got g of shape {tuple(g.shape)}"
        )
    if g.dtype != weight.dtype:
        raise ValueError(f"g must have the dtype of the weights, {weight.dtype}, got g of dtype {g.dtype}")
    checks.broadcast("g", g.shape[:-2], run.draws)
