"""A feed-forward network at an input: states, Jacobians, and the losses on its output.

A network is ``[W_1, …, W_L]`` with biases ``[b_1, …, b_L]`` and activations f_1, …, f_L:

    z⁰ = x,   uˡ = W_l zˡ⁻¹ + b_l,   zˡ = f_l(uˡ),   A_l = diag f_l′(uˡ),   J_l = D_{zˡ⁻¹} zˡ = A_l W_l,
    B_l = D_{zˡ} zᴸ = J_L ⋯ J_{l+1},   H_z = D²_z L at the output z = zᴸ.

Shapes: leading axes are draws, of weights ``(..., d_l, d_{l-1})`` and of inputs ``(..., d_0)`` alike, and broadcast.
With ``samples=True`` inputs and targets have one more axis in front of the last, ``(..., n, d_0)``, and the loss is the
mean over it. Everything works in the dtype of the weights, float32 or float64, and is dimensionless.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
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
    weights = checks.weights("weights", weights)
    names = _activation_names(activation, len(weights))
    checks.flag("samples", samples)
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
    _check_layer(run, layer)
    return run.slope[layer - 1].unsqueeze(-1) * _per_sample(run.weights[layer - 1], run)


def output_jacobians(run: Pass) -> list[Tensor]:
    """B_l = D_{zˡ} zᴸ = J_L ⋯ J_{l+1} for l = 1, …, L: ``B_l`` is ``(..., d_L, d_l)``, and B_L the identity.

    With samples, an axis of them stands in front of the last two.

    Raises:
        ValueError: ``run`` is not a pass.

    Source: Skorski (2020), Eq. (26).
    """
    _check_pass(run)
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
        ValueError: outputs that are not finite, unknown loss, or a target that does not fit the outputs.
    """
    _outputs(z)
    return _loss_value(z, _target_vectors(target, z, loss), loss)


def _loss_value(z: Tensor, t: Tensor, loss: str) -> Tensor:
    if loss == "squared":
        return 0.5 * (z - t).square().sum(-1)
    return torch.logsumexp(z, -1) - (t * z).sum(-1)


def loss_gradient(z: Tensor, target: Tensor, loss: str = "squared") -> Tensor:
    """D_z L, ``(..., d_L)``; arguments and errors as :func:`loss_value`."""
    _outputs(z)
    t = _target_vectors(target, z, loss)
    return (z if loss == "squared" else torch.softmax(z, -1)) - t


def loss_hessian(z: Tensor, target: Tensor, loss: str = "squared") -> Tensor:
    """H_z = D²_z L, ``(..., d_L, d_L)``; arguments and errors as :func:`loss_value`."""
    _outputs(z)
    _target_vectors(target, z, loss)
    root = _hessian_root(z, loss)
    return root.mT @ root


def _hessian_root(z: Tensor, loss: str) -> Tensor:
    """R with RᵀR = H_z: the identity, or diag(√p)(I − 1pᵀ), whose square is diag(p) − ppᵀ as p sums to one."""
    eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    if loss == "squared":
        return eye.expand(*z.shape, z.shape[-1])
    p = torch.softmax(z, -1)
    return p.sqrt().unsqueeze(-1) * (eye - p.unsqueeze(-2))


def _per_sample(weight: Tensor, run: Pass) -> Tensor:
    return weight.unsqueeze(-3) if run.samples else weight


def _activation_names(activation: str | Sequence[str], depth: int) -> tuple[str, ...]:
    if isinstance(activation, str):
        return (checks.one_of("activation", activation, ACTIVATIONS),) * depth
    good = isinstance(activation, Sequence) and len(activation) == depth
    checks.require(good, "activation", activation, f"one name, or one for each of the {depth} layers")
    return tuple(checks.one_of("activation", name, ACTIVATIONS) for name in activation)


def _vectors(name: str, value: Tensor, size: int, dtype: torch.dtype, *, axes: int = 1) -> None:
    checks.is_tensor(name, value)
    wanted = f"(..., n, {size})" if axes == 2 else f"(..., {size})"
    if value.ndim < axes or value.shape[-1] != size or 0 in value.shape:
        raise ValueError(f"{name} must have shape {wanted}, got {name} of shape {tuple(value.shape)}")
    if value.dtype != dtype:
        raise ValueError(f"{name} must have the dtype of the weights, {dtype}, got {name} of dtype {value.dtype}")
    checks.finite(name, value)


def _biases(biases: Sequence[Tensor], weights: list[Tensor]) -> list[Tensor]:
    good = isinstance(biases, Sequence) and len(biases) == len(weights)
    checks.require(good, "biases", biases, f"None, or one vector for each of the {len(weights)} layers")
    for index, (bias, weight) in enumerate(zip(biases, weights, strict=True), start=1):
        _vectors(f"biases[b_{index}]", bias, weight.shape[-2], weight.dtype)
    return list(biases)


def _outputs(z: Tensor) -> None:
    checks.tensor("z", z)
    checks.require(z.ndim > 0, "z", tuple(z.shape), "of shape (..., d_L)")


def _check_pass(run: Pass) -> None:
    checks.instance("run", run, Pass, "the Pass that forward() returns")


def _check_layer(run: Pass, layer: int) -> None:
    _check_pass(run)
    good = checks.is_integer(layer) and 1 <= layer <= run.depth
    checks.require(good, "layer", layer, f"an integer between 1 and {run.depth}")


def _target_vectors(target: Tensor, z: Tensor, loss: str) -> Tensor:
    """The target as vectors like the outputs; class numbers become unit vectors."""
    checks.one_of("loss", loss, LOSSES)
    classes = z.shape[-1]
    if loss == "cross_entropy" and isinstance(target, Tensor) and target.dtype == torch.int64:
        if target.numel() == 0 or not checks.every((target >= 0) & (target < classes)):
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
    return checks.every(close) and checks.every(target >= 0)
