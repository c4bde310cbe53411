"""Nonlinear networks as ``nn.Module``, and their initialization by scheme."""

import itertools

import torch
from torch import Generator, Tensor, nn

from firststep import checks, inits, scale

MODULES = {"relu": nn.ReLU, "tanh": nn.Tanh, "linear": nn.Identity}
TORCH_SCHEMES = ("torch_default", "torch_one_sided", "torch_one_sided_centred")
_NORM_LAYERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


class UncentredBatchNorm1d(nn.BatchNorm1d):
    """Batch normalization by the root mean square: nothing is subtracted. ``running_var`` holds the mean squares.

    Args:
        num_features: width d.
        device: of the parameters; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: the width is not a positive integer, or there is no such device.

    Source: Daneshmand et al. (2020), Eq. (2) with α = 0.
    """

    def __init__(self, num_features: int, *, device: torch.device | str | None = None):
        checks.positive_integer("num_features", num_features)
        super().__init__(num_features, device=scale.chosen(device))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, d)`` over the batch, or by the running mean squares in evaluation mode.

        Raises:
            ValueError: not a matrix of ``d`` columns in the dtype of the layer.
        """
        good = (
            isinstance(x, Tensor) and x.ndim == 2 and x.shape[1] == self.num_features and x.dtype == self.weight.dtype
        )
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x
        checks.require(good and len(x) > 0, "x", found, f"(N, {self.num_features}) of dtype {self.weight.dtype}")
        square = x.square().mean(0) if self.training else self.running_var
        if self.training:
            self.running_var.lerp_(square.detach(), self.momentum)
        return x * (square + self.eps).rsqrt() * self.weight + self.bias


class MLP(nn.Module):
    """Multilayer perceptron: ``depth`` hidden layers of equal width, then a linear read-out.

    A hidden layer is a linear map, batch normalization if asked for, and the activation, in this order, as in
    Daneshmand et al. (2020). ``depth`` 0 is linear regression.

    Args:
        d_in: input width.
        width: hidden width.
        depth: number of hidden layers.
        d_out: output width.
        activation: a key of ``MODULES``.
        batch_norm: whether each hidden layer normalizes its pre-activations over the batch, as torch does
            (centred, ε = 1e-5, with learnable scale and shift).
        centred: whether batch normalization subtracts the mean; if not, it divides by the root mean square alone.
        device: of the parameters; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: a width that is not a positive integer, a negative depth, or an unknown activation.
    """

    def __init__(
        self,
        d_in: int,
        width: int,
        depth: int,
        d_out: int,
        *,
        activation: str = "relu",
        batch_norm: bool = False,
        centred: bool = True,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        for name, value in (("d_in", d_in), ("width", width), ("d_out", d_out)):
            checks.positive_integer(name, value)
        checks.natural("depth", depth)
        checks.one_of("activation", activation, MODULES)
        checks.flag("batch_norm", batch_norm)
        checks.flag("centred", centred)
        self.activation, self.batch_norm, self.centred = activation, batch_norm, centred
        norm = nn.BatchNorm1d if centred else UncentredBatchNorm1d
        device = scale.chosen(device)
        sides = [d_in] + [width] * depth
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Linear(before, after, device=device),
                norm(after, device=device) if batch_norm else nn.Identity(),
                MODULES[activation](),
            )
            for before, after in itertools.pairwise(sides)
        )
        self.readout = nn.Linear(sides[-1], d_out, device=device)

    def representations(self, x: Tensor) -> list[Tensor]:
        """Every hidden layer's output for inputs ``x: (N, d_in)``, as columns: a list of ``(width, N)``.

        Raises:
            ValueError: as :meth:`forward`.
        """
        self._check(x)
        layers = []
        for layer in self.hidden:
            x = layer(x)
            layers.append(x.mT)
        return layers

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, d_in)`` to ``(N, d_out)``.

        Raises:
            ValueError: not a matrix of ``d_in`` columns in the dtype of the network, or one sample to normalize over.
        """
        self._check(x)
        for layer in self.hidden:
            x = layer(x)
        return self.readout(x)

    def _check(self, x: Tensor) -> None:
        first = self.hidden[0][0] if self.hidden else self.readout
        good = isinstance(x, Tensor) and x.ndim == 2 and x.numel() > 0 and x.dtype == first.weight.dtype
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x
        wanted = f"a tensor (N, {first.in_features}) of dtype {first.weight.dtype}"
        checks.require(good and x.shape[1] == first.in_features, "x", found, wanted)
        # Finite inputs are not asked for: networks diverge, and a pass through one is the inside of a training loop.
        normalizes = bool(self.hidden) and isinstance(self.hidden[0][1], nn.BatchNorm1d) and self.training
        checks.require(len(x) > 1 or not normalizes, "x", found, "more than one sample where the batch is normalized")


def initialize_(net: nn.Module, scheme: str, *, generator: Generator) -> nn.Module:
    """Draw all weights of linear layers and convolutions anew, in place; normalization layers become the identity.

    A convolution's weights are a matrix with a row an output channel: its fan-in is input channels times kernel.

    ===========================  =================================================================
    scheme                       weights, and biases
    ===========================  =================================================================
    a name of ``inits``          as :data:`firststep.inits.INITIALIZERS` says, and zero
    ``torch_default``            torch's own: both uniform on ±1/√fan_in
    ``torch_one_sided``          uniform on [0, 2/√fan_in], of the same variance, and as torch's own
    ``torch_one_sided_centred``  the same draw less each row's mean, and as torch's own
    ===========================  =================================================================

    Args:
        net: any module.
        scheme: one of these.
        generator: source of randomness.

    Returns:
        ``net``.

    Raises:
        ValueError: unknown scheme, or no generator.

    Source: Daneshmand et al. (2020), Section 4, for the one-sided start.
    """
    checks.one_of("scheme", scheme, {*inits.INITIALIZERS, *TORCH_SCHEMES})
    checks.instance("net", net, nn.Module, "a torch module")
    checks.generator("generator", generator)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                _draw(module, scheme, generator)
            elif isinstance(module, _NORM_LAYERS):
                module.reset_parameters()
    return net


def _draw(module: nn.Linear | nn.Conv2d, scheme: str, generator: Generator) -> None:
    weight = module.weight.flatten(1)
    if scheme in TORCH_SCHEMES:
        bound = weight.shape[1] ** -0.5
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        if scheme == "torch_one_sided":
            module.weight.add_(bound)
        elif scheme == "torch_one_sided_centred":  # what was added to a row goes with its mean
            module.weight.sub_(module.weight.mean(tuple(range(1, module.weight.ndim)), keepdim=True))
        return
    drawn = inits.matrix(scheme, *weight.shape, generator=generator, dtype=weight.dtype)
    module.weight.copy_(drawn.view_as(module.weight))
    if module.bias is not None:
        module.bias.zero_()
