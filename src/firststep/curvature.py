"""Second derivatives of the loss in one layer's weights: exact, kept and neglected parts, and their norms.

A network is ``[W_1, …, W_L]`` with biases ``[b_1, …, b_L]`` and activations f_1, …, f_L:

    z⁰ = x,   uˡ = W_l zˡ⁻¹ + b_l,   zˡ = f_l(uˡ),   A_l = diag f_l′(uˡ),   J_l = D_{zˡ⁻¹} zˡ = A_l W_l,
    B_l = D_{zˡ} zᴸ = J_L ⋯ J_{l+1},   H_z = D²_z L at the output z = zᴸ.

Skorski (2020) counts layers from 0: his w^k, b^k, A^k and J^k are our W_{k+1}, b_{k+1}, A_{k+1} and J_{k+1}; his n is
our L. Activations z^k and output derivatives B^k carry the same number in both.

Along a direction G in the weights of layer l the second derivative of the loss has two parts,

    L″ = vᵀ H_z v  +  Σ_{m ≥ l} Σ_i (D_{zᵐ} L)_i f_m″(uᵐ_i) (dᵐ_i)²,    v = B_l A_l G zˡ⁻¹,

with dᵐ the derivative of uᵐ along G. The first part is *kept* by his Theorem 1, the second is *neglected*; without
curvature in the activations it is zero. Either way G enters through G zˡ⁻¹ alone, so the whole Hessian block of one
sample is a Kronecker product, ``left ⊗ right rightᵀ``: with the left factor of :func:`kronecker_factors` for the kept
part, with that of :func:`preactivation_hessian` for the exact block. Every spectral question is two small ones.

How to use it: run :func:`forward` once, and give its :class:`Pass` to everything else::

    run = forward(weights, x, biases=biases, activation=("tanh", "tanh", "linear"))
    layer_hessian_norm(run, target, 2, loss="cross_entropy")

Signatures (``run`` a Pass; ``layer`` counts from 1 to L; ``loss`` a key of ``LOSSES``)::

    forward(weights, x, *, biases=None, activation="linear", samples=False) -> Pass
    layer_jacobian(run, layer)                                  (..., d_l, d_{l-1})
    output_jacobians(run)                                       [B_1, …, B_L], each (..., d_L, d_l)
    loss_value(z, target, loss), loss_gradient(...), loss_hessian(...)
    layer_gradient(run, target, layer, *, loss="squared")       (..., d_l, d_{l-1})
    kronecker_factors(run, target, layer, *, loss="squared")    left (..., d_l, d_l), right (..., d_{l-1})
    preactivation_hessian(run, target, layer, *, loss="squared")  exact left factor, (..., d_l, d_l)
    kept_form(run, target, layer, g, *, loss="squared")         (...)
    neglected_terms(run, target, layer, g, *, loss="squared")   (..., L - l + 1), one a layer m = l, …, L
    exact_form(run, target, layer, g, *, loss="squared")        (...), kept + all neglected terms
    layer_hessian_norm(run, target, layer, *, loss="squared", kept=False)            (...)
    layer_hessian_operator(run, target, layer, *, loss="squared")                    scipy LinearOperator
    lanczos_norm(run, target, layer, *, loss="squared", generator, tol=1e-9)         float
    dense_layer_hessian(run, target, layer, *, loss="squared")                       (d_l·d_{l-1}, same)

Shapes: leading axes are draws, of weights ``(..., d_l, d_{l-1})`` and of inputs ``(..., d_0)`` alike, and broadcast.
With ``samples=True`` inputs and targets have one more axis in front of the last, ``(..., n, d_0)``, and the loss is the
mean over it. A direction, or a row of a block, is the matrix ``(d_l, d_{l-1})`` read row by row. Everything works in
the dtype of the weights, float32 or float64, and is dimensionless.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Generator, Tensor
from torch.nn import functional

from firststep import checks

Function = Callable[[Tensor], Tensor]
LOSSES = ("squared", "cross_entropy")
_LEAK = 0.01  # torch's default slope of leaky relu for negative arguments


@dataclass(frozen=True)
class Activation:
    """A scalar function with its first two derivatives, applied element-wise.

    Attributes:
        f: the function.
        first: f′. At a kink, the derivative from the left, as in torch.
        second: f″, where it exists.
        piecewise_linear: whether f″ is zero wherever it exists.
    """

    f: Function
    first: Function
    second: Function
    piecewise_linear: bool = False


def _tanh_slope(u: Tensor) -> Tensor:
    return 1 - torch.tanh(u).square()


def _sigmoid_slope(u: Tensor) -> Tensor:
    return torch.sigmoid(u) * torch.sigmoid(-u)


def _shifted_softplus(u: Tensor) -> Tensor:
    """log((1 + eᵘ)/2), to full relative precision near zero, where subtracting log 2 would leave round-off."""
    negative = torch.log1p(torch.expm1(u.clamp(max=0)) / 2)
    positive = u + torch.log1p(torch.expm1(-u.clamp(min=0)) / 2)
    return torch.where(u > 0, positive, negative)


ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation(lambda u: u, torch.ones_like, torch.zeros_like, True),
    "relu": Activation(torch.relu, lambda u: (u > 0).to(u.dtype), torch.zeros_like, True),
    "leaky_relu": Activation(
        lambda u: torch.where(u > 0, u, _LEAK * u),
        lambda u: torch.where(u > 0, torch.ones_like(u), _LEAK),
        torch.zeros_like,
        True,
    ),
    "tanh": Activation(torch.tanh, _tanh_slope, lambda u: -2 * torch.tanh(u) * _tanh_slope(u)),
    # f(0) = 1/2, so not admissible in the sense of the paper, which lists it.
    "sigmoid": Activation(torch.sigmoid, _sigmoid_slope, lambda u: -torch.tanh(u / 2) * _sigmoid_slope(u)),
    # Through the origin, but with f″(0) = 1/4.
    "softplus": Activation(_shifted_softplus, torch.sigmoid, _sigmoid_slope),
}


@dataclass(frozen=True)
class Pass:
    """A network at an input: what :func:`forward` computed.

    Attributes:
        weights: ``[W_1, …, W_L]``, ``(..., d_l, d_{l-1})``.
        biases: ``[b_1, …, b_L]``, ``(..., d_l)``, or ``None``.
        activations: L keys of ``ACTIVATIONS``.
        samples: whether the last axis but one of ``z``, ``u`` and ``slope`` numbers samples.
        z: ``[z⁰, …, zᴸ]``, L + 1 tensors ``(..., d_l)``; z⁰ is the input.
        u: ``[u¹, …, uᴸ]``, pre-activations; ``u[l - 1]`` belongs to layer l.
        slope: ``[f_1′(u¹), …, f_L′(uᴸ)]``, the diagonals of A_1, …, A_L.
    """

    weights: list[Tensor]
    biases: list[Tensor] | None
    activations: tuple[str, ...]
    samples: bool
    z: list[Tensor]
    u: list[Tensor]
    slope: list[Tensor]

    @property
    def depth(self) -> int:
        """Number of layers, L."""
        return len(self.weights)

    @property
    def draws(self) -> torch.Size:
        """The leading axes, without the one of samples."""
        return self.z[-1].shape[: -2 if self.samples else -1]

    @property
    def piecewise_linear(self) -> bool:
        """Whether no activation of the network has curvature, so that nothing is neglected."""
        return all(ACTIVATIONS[name].piecewise_linear for name in self.activations)

    def draw(self, index: int | tuple[int, ...]) -> "Pass":
        """The network of one draw, without leading axes.

        Raises:
            ValueError: the index does not fit the leading axes.
        """
        index = index if isinstance(index, tuple) else (index,)
        fits = len(index) == len(self.draws) and all(
            checks.is_integer(i) and -size <= i < size for i, size in zip(index, self.draws, strict=True)
        )
        checks.require(fits, "index", index, f"one integer for each of the leading axes {tuple(self.draws)}")
        own = 2 if self.samples else 1

        def pick(tensors: list[Tensor], axes: int) -> list[Tensor]:
            return [t.expand(*self.draws, *t.shape[t.ndim - axes :])[index] for t in tensors]

        biases = None if self.biases is None else pick(self.biases, 1)
        states = (pick(tensors, own) for tensors in (self.z, self.u, self.slope))
        return Pass(pick(self.weights, 2), biases, self.activations, self.samples, *states)


def forward(
    weights: Sequence[Tensor],
    x: Tensor,
    *,
    biases: Sequence[Tensor] | None = None,
    activation: str | Sequence[str] = "linear",
    samples: bool = False,
) -> Pass:
    """Run a network and keep every layer's state.

    Args:
        weights: ``[W_1, …, W_L]``, ``W_l: (..., d_l, d_{l-1})``; leading axes are draws.
        x: one input a draw, ``(..., d_0)``, or n of them, ``(..., n, d_0)``, with ``samples=True``.
        biases: ``[b_1, …, b_L]``, ``b_l: (..., d_l)``; none by default.
        activation: a key of ``ACTIVATIONS`` for all layers, or L of them.
        samples: whether the last axis but one of ``x`` numbers samples, over which every loss is then the mean.

    Raises:
        ValueError: shapes that do not chain or broadcast, different dtypes, entries that are not finite, or an unknown
            activation.
    """
    weights = checks.chain("weights", weights)
    names = _activation_names(activation, len(weights))
    checks.require(isinstance(samples, bool), "samples", samples, "True or False")
    _vectors("x", x, weights[0].shape[-1], weights[0].dtype, axes=2 if samples else 1)
    biases = None if biases is None else _biases(biases, weights)
    leading = [w.shape[:-2] for w in weights] + [b.shape[:-1] for b in biases or []]
    checks.broadcast("weights, biases and x", *leading, x.shape[: -2 if samples else -1])
    z, u, slope = [x], [], []
    for layer, name in enumerate(names):
        u.append(_affine(weights[layer], biases and biases[layer], z[-1], samples))
        z.append(ACTIVATIONS[name].f(u[-1]))
        slope.append(ACTIVATIONS[name].first(u[-1]))
    return Pass(weights, biases, names, samples, z, u, slope)


def _affine(weight: Tensor, bias: Tensor | None, z: Tensor, samples: bool) -> Tensor:
    """W z + b, for one vector a draw or for rows of samples."""
    if samples:
        return z @ weight.mT if bias is None else z @ weight.mT + bias.unsqueeze(-2)
    image = (weight @ z.unsqueeze(-1)).squeeze(-1)
    return image if bias is None else image + bias


def layer_jacobian(run: Pass, layer: int) -> Tensor:
    """J_l = D_{zˡ⁻¹} zˡ = A_l W_l, ``(..., d_l, d_{l-1})``, or ``(..., n, d_l, d_{l-1})`` with samples.

    Raises:
        ValueError: no such layer.

    Source: Skorski (2020), below Eq. (5), where it is J^{l-1}.
    """
    _layer(run, layer)
    return run.slope[layer - 1].unsqueeze(-1) * _per_sample(run.weights[layer - 1], run)


def output_jacobians(run: Pass) -> list[Tensor]:
    """B_l = D_{zˡ} zᴸ = J_L ⋯ J_{l+1} for l = 1, …, L: ``B_l`` is ``(..., d_L, d_l)``, and B_L the identity.

    With samples, an axis of them stands in front of the last two.

    Source: Skorski (2020), Eq. (26).
    """
    last = run.z[-1]
    eye = torch.eye(last.shape[-1], dtype=last.dtype, device=last.device)
    found = [eye.expand(*last.shape, last.shape[-1])]
    for layer in range(run.depth, 1, -1):
        found.append((found[-1] * run.slope[layer - 1].unsqueeze(-2)) @ _per_sample(run.weights[layer - 1], run))
    return found[::-1]


def loss_value(z: Tensor, target: Tensor, loss: str = "squared") -> Tensor:
    """Loss of each output, ``(...)``.

    ======================  ==============================  ===========  ===========================
    loss                    value                           D_z L        H_z
    ======================  ==============================  ===========  ===========================
    ``squared``             ½ ‖z − t‖²                      z − t        the identity
    ``cross_entropy``       log Σ_i exp(z_i) − ⟨t, z⟩       p − t        diag(p) − p pᵀ, p = softmax z
    ======================  ==============================  ===========  ===========================

    Args:
        z: outputs, ``(..., d_L)``.
        target: the same shape up to broadcasting; for ``cross_entropy`` probabilities, or class numbers ``(...)`` as
            int64.
        loss: one of the two.

    Raises:
        ValueError: unknown loss, or a target that does not fit the outputs.
    """
    t = _target(target, z, loss)
    if loss == "squared":
        return 0.5 * (z - t).square().sum(-1)
    return torch.logsumexp(z, -1) - (t * z).sum(-1)


def loss_gradient(z: Tensor, target: Tensor, loss: str = "squared") -> Tensor:
    """D_z L, ``(..., d_L)``; arguments and errors as :func:`loss_value`."""
    t = _target(target, z, loss)
    return (z if loss == "squared" else torch.softmax(z, -1)) - t


def loss_hessian(z: Tensor, target: Tensor, loss: str = "squared") -> Tensor:
    """H_z = D²_z L, ``(..., d_L, d_L)``; arguments and errors as :func:`loss_value`."""
    _target(target, z, loss)
    root = _hessian_root(z, loss)
    return root.mT @ root


def _hessian_root(z: Tensor, loss: str) -> Tensor:
    """R with RᵀR = H_z: the identity, or diag(√p)(I − 1pᵀ), whose square is diag(p) − ppᵀ as p sums to one."""
    eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    if loss == "squared":
        return eye.expand(*z.shape, z.shape[-1])
    p = torch.softmax(z, -1)
    return p.sqrt().unsqueeze(-1) * (eye - p.unsqueeze(-2))


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
    _layer(run, layer)
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
    _target(target, run.z[-1], loss)
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
    _layer(run, layer)
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
    _layer(run, layer)
    checks.require(isinstance(kept, bool), "kept", kept, "True or False")
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

        return _largest(_operator(product, shape, z), Generator().manual_seed(0), 0.0)

    norms = [one(factors[i], inputs[i]) for i in itertools.product(*map(range, draws))]
    return inputs.new_tensor(norms).reshape(draws)


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


def _operator(product: Function, shape: tuple[int, int], like: Tensor) -> LinearOperator:
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
    checks.require(isinstance(generator, Generator), "generator", generator, "a torch.Generator")
    checks.require(checks.number("tol", tol) >= 0, "tol", tol, "a number of at least 0")
    return _largest(layer_hessian_operator(run, target, layer, loss=loss), generator, tol)


def _largest(operator: LinearOperator, generator: Generator, tol: float) -> float:
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


def _loss_in_layer(run: Pass, target: Tensor, layer: int, loss: str) -> Function:
    """The loss as a function of W_l alone, from that layer's input on."""
    _layer(run, layer)
    checks.require(
        not run.draws, "run", tuple(run.draws), "a pass of one draw, without leading axes: use run.draw(...)"
    )
    target = _target(target, run.z[-1], loss)
    inputs, later = run.z[layer - 1].detach(), range(layer, run.depth)

    def value(weight: Tensor) -> Tensor:
        z = inputs
        for index, current in [(layer - 1, weight), *((m, run.weights[m]) for m in later)]:
            bias = run.biases and run.biases[index]
            z = ACTIVATIONS[run.activations[index]].f(_affine(current, bias, z, run.samples))
        return loss_value(z, target, loss).mean()

    return value


def _pull_back(run: Pass, layer: int) -> Tensor:
    """B_l A_l, the derivative of the output in the pre-activations of layer l."""
    return output_jacobians(run)[layer - 1] * run.slope[layer - 1].unsqueeze(-2)


def _rooted(run: Pass, target: Tensor, layer: int, loss: str) -> Tensor:
    """R B_l A_l with RᵀR = H_z, ``(..., d_L, d_l)``."""
    _layer(run, layer)
    _target(target, run.z[-1], loss)
    return _hessian_root(run.z[-1], loss) @ _pull_back(run, layer)


def _second(run: Pass, layer: int) -> Tensor:
    return ACTIVATIONS[run.activations[layer - 1]].second(run.u[layer - 1])


def _per_sample(weight: Tensor, run: Pass) -> Tensor:
    return weight.unsqueeze(-3) if run.samples else weight


def _mean(values: Tensor, run: Pass) -> Tensor:
    return values.mean(-1) if run.samples else values


def _activation_names(activation: str | Sequence[str], depth: int) -> tuple[str, ...]:
    if isinstance(activation, str):
        return (checks.one_of("activation", activation, ACTIVATIONS),) * depth
    good = isinstance(activation, Sequence) and len(activation) == depth
    checks.require(good, "activation", activation, f"one name, or one for each of the {depth} layers")
    return tuple(checks.one_of("activation", name, ACTIVATIONS) for name in activation)


def _vectors(name: str, value: Tensor, size: int, dtype: torch.dtype, *, axes: int = 1) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {name} of type {type(value).__name__}")
    wanted = f"(..., n, {size})" if axes == 2 else f"(..., {size})"
    if value.ndim < axes or value.shape[-1] != size or 0 in value.shape:
        raise ValueError(f"{name} must have shape {wanted}, got {name} of shape {tuple(value.shape)}")
    if value.dtype != dtype:
        raise ValueError(f"{name} must have the dtype of the weights, {dtype}, got {name} of dtype {value.dtype}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} must have finite entries only, got {name} with nan or inf")


def _biases(biases: Sequence[Tensor], weights: list[Tensor]) -> list[Tensor]:
    good = isinstance(biases, Sequence) and len(biases) == len(weights)
    checks.require(good, "biases", biases, f"None, or one vector for each of the {len(weights)} layers")
    for index, (bias, weight) in enumerate(zip(biases, weights, strict=True), start=1):
        _vectors(f"biases[b_{index}]", bias, weight.shape[-2], weight.dtype)
    return list(biases)


def _layer(run: Pass, layer: int) -> None:
    checks.require(isinstance(run, Pass), "run", run, "the Pass that forward() returns")
    good = checks.is_integer(layer) and 1 <= layer <= run.depth
    checks.require(good, "layer", layer, f"an integer between 1 and {run.depth}")


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


def _target(target: Tensor, z: Tensor, loss: str) -> Tensor:
    """The target as vectors like the outputs; class numbers become unit vectors."""
    checks.one_of("loss", loss, LOSSES)
    classes = z.shape[-1]
    if loss == "cross_entropy" and isinstance(target, Tensor) and target.dtype == torch.int64:
        if target.numel() == 0 or target.min() < 0 or target.max() >= classes:
            raise ValueError(f"target must be class numbers from 0 to {classes - 1}, got target={target}")
        target = functional.one_hot(target, classes).to(z.dtype)
    _vectors("target", target, classes, z.dtype)
    if loss == "cross_entropy" and not _probabilities(target):
        raise ValueError(
            "target must be probabilities that sum to one, or class numbers as int64, got target with other sums"
        )
    checks.broadcast("target", target.shape[:-1], z.shape[:-1])
    return target


def _probabilities(target: Tensor) -> bool:
    close = (target.sum(-1) - 1).abs() <= 16 * target.shape[-1] * torch.finfo(target.dtype).eps
    return bool(close.all() and (target >= 0).all())
