"""Nonlinear networks as ``nn.Module``, and their initialization by scheme."""

import itertools

import torch
from torch import Generator, Tensor, nn

from firststep import checks, inits

ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "linear": nn.Identity}
NORMALIZATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


class MLP(nn.Module):
    """Multilayer perceptron: ``depth`` hidden layers of equal width, then a linear read-out.

    A hidden layer is a linear map, batch normalization if asked for, and the activation, in this order, as in
    Daneshmand et al. (2020). ``depth`` 0 is linear regression.

    Args:
        d_in: input width.
        width: hidden width.
        depth: number of hidden layers.
        d_out: output width.
        activation: a key of ``ACTIVATIONS``.
        batch_norm: whether each hidden layer normalizes its pre-activations over the batch, as torch does
            (centred, ε = 1e-5, with learnable scale and shift).

    Raises:
        ValueError: a width that is not a positive integer, a negative depth, or an unknown activation.
    """

    def __init__(
        self, d_in: int, width: int, depth: int, d_out: int, *, activation: str = "relu", batch_norm: bool = False
    ):
        super().__init__()
        for name, value in (("d_in", d_in), ("width", width), ("d_out", d_out)):
            checks.positive_integer(name, value)
        checks.require(checks.is_integer(depth) and depth >= 0, "depth", depth, "a non-negative integer")
        checks.one_of("activation", activation, ACTIVATIONS)
        sides = [d_in] + [width] * depth
        self.hidden = nn.ModuleList(
            nn.Sequential(
                nn.Linear(before, after),
                nn.BatchNorm1d(after) if batch_norm else nn.Identity(),
                ACTIVATIONS[activation](),
            )
            for before, after in itertools.pairwise(sides)
        )
        self.readout = nn.Linear(sides[-1], d_out)

    def representations(self, x: Tensor) -> list[Tensor]:
        """Every hidden layer's output for inputs ``x: (N, d_in)``, as columns: a list of ``(width, N)``."""
        layers = []
        for layer in self.hidden:
            x = layer(x)
            layers.append(x.mT)
        return layers

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, d_in)`` to ``(N, d_out)``."""
        for layer in self.hidden:
            x = layer(x)
        return self.readout(x)


def initialize_(net: nn.Module, scheme: str, *, generator: Generator) -> nn.Module:
    """Draw all weights of linear layers anew, in place; biases become zero, normalization layers the identity.

    Args:
        net: any module.
        scheme: a key of :data:`firststep.inits.INITIALIZERS`, or ``torch_default``: torch's own initialization of
            ``nn.Linear``, weights and biases uniform on ±1/√fan_in.
        generator: source of randomness.

    Returns:
        ``net``.

    Raises:
        ValueError: unknown scheme, or no generator.
    """
    checks.one_of("scheme", scheme, {*inits.INITIALIZERS, "torch_default"})
    checks.require(isinstance(generator, Generator), "generator", generator, "a torch.Generator")
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Linear):
                _draw_linear(module, scheme, generator)
            elif isinstance(module, NORMALIZATIONS):
                module.reset_parameters()
    return net


def _draw_linear(module: nn.Linear, scheme: str, generator: Generator) -> None:
    if scheme == "torch_default":
        bound = module.in_features**-0.5
        for parameter in module.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        return
    rows, columns = module.weight.shape
    module.weight.copy_(inits.matrix(scheme, rows, columns, generator=generator, dtype=module.weight.dtype))
    if module.bias is not None:
        module.bias.zero_()
