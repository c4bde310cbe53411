"""Residual networks z_l = z_{l-1} + U_l relu(V_l z_{l-1}) to depth 10,000: starts, and gradient descent.

How signals grow in them is in :mod:`firststep.residual_growth`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from firststep import checks, scale


@dataclass(frozen=True)
class Start:
    """How a network is drawn.

    Attributes:
        glorot: whether the variance of all weights is 2/(rows + columns), or that of V_0, …, V_L is 1/D.
        branch: of the depth, the factor on U_1, …, U_L.
        readout: the factor on U_{L+1}.
    """

    glorot: bool
    branch: Callable[[int], float]
    readout: float


STARTS = {
    "mzas": Start(False, lambda depth: 0.0, 0.0),
    "xavier": Start(True, lambda depth: 1.0, 1.0),
    "zero readout": Start(True, lambda depth: 1.0, 0.0),
    "zero branches": Start(True, lambda depth: 0.0, 1.0),
    "branches / sqrt(depth)": Start(True, lambda depth: depth**-0.5, 1.0),
    "branches / depth": Start(True, lambda depth: 1 / depth, 1.0),
}
"""Both starts of the paper, and what lies between them: one of the two zeros alone, or branches scaled with depth."""


class ResidualMLP(nn.Module):
    """f(x) = U_{L+1} z_L with z_0 = V_0 x and z_l = z_{l-1} + U_l relu(V_l z_{l-1}); several runs at a time, no biases.

    Gradients keep z at every √L-th layer and recompute the layers between, so memory grows like the root of the depth.

    Args:
        d_in: input dimension d.
        width: D, of the skip connection.
        block: m, of the residual blocks.
        depth: L.
        d_out: output dimension.
        runs: networks side by side.
        dtype: of the weights.
        device: of the weights; by default :func:`firststep.scale.device`.

    Raises:
        ValueError: a size that is not a positive integer, or no floating-point dtype.

    Source: Wu et al. (2019), Eq. (6.1).
    """

    def __init__(
        self,
        d_in: int,
        width: int,
        block: int,
        depth: int,
        d_out: int,
        *,
        runs: int = 1,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        sizes = {"d_in": d_in, "width": width, "block": block, "depth": depth, "d_out": d_out, "runs": runs}
        for name, value in sizes.items():
            checks.positive_integer(name, value)
        checks.floating("dtype", dtype)
        device = scale.chosen(device)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(*shape, dtype=dtype, device=device))

        self.first = zeros(runs, width, d_in)
        self.inner = zeros(depth, runs, block, width)
        self.outer = zeros(depth, runs, width, block)
        self.readout = zeros(runs, d_out, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(d_in, N)`` to ``(runs, d_out, N)``.

        Raises:
            ValueError: not a matrix of ``d_in`` rows in the dtype of the network.
        """
        return self.readout @ _Blocks.apply(self._enter(x), self.inner, self.outer)

    @torch.no_grad()
    def norms(self, x: Tensor) -> Tensor:
        """‖z_0‖, …, ‖z_L‖ of every sample, ``(depth + 1, runs, N)``: infinity or nan from the layer of overflow on.

        Raises:
            ValueError: as :meth:`forward`.
        """
        z = self._enter(x)
        found = [z.abs().amax(1) * (z / z.abs().amax(1, keepdim=True)).norm(dim=1)]
        for inner, outer in zip(self.inner, self.outer, strict=True):
            z = torch.baddbmm(z, outer, torch.bmm(inner, z).relu_())
            largest = z.abs().amax(1, keepdim=True)  # squares would overflow at half the depth
            found.append(largest[:, 0] * (z / largest).norm(dim=1))
        return torch.stack(found)

    def _enter(self, x: Tensor) -> Tensor:
        self._check(x)
        return self.first @ x

    def _check(self, x: Tensor) -> None:
        good = isinstance(x, Tensor) and x.ndim == 2 and x.numel() > 0 and x.dtype == self.first.dtype
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x
        wanted = f"a tensor ({self.first.shape[-1]}, N) of dtype {self.first.dtype}"
        checks.require(good and x.shape[0] == self.first.shape[-1], "x", found, wanted)


class _Blocks(torch.autograd.Function):
    """z_0 ↦ z_L. Three products a layer forward; backward recomputes a stretch of √L layers and goes through it.

    autograd through ``checkpoint`` gives the same gradients, at the cost of a node and a copy for each product.
    """

    @staticmethod
    def forward(ctx, z: Tensor, inner: Tensor, outer: Tensor) -> Tensor:
        every = math.isqrt(len(inner) - 1) + 1
        kept = []
        for layer, (v, u) in enumerate(zip(inner, outer, strict=True)):
            if layer % every == 0:
                kept.append(z)
            z = torch.baddbmm(z, u, torch.bmm(v, z).relu_())
        ctx.save_for_backward(inner, outer, *kept)
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner, outer, *kept = ctx.saved_tensors
        every = math.isqrt(len(inner) - 1) + 1
        d_inner, d_outer = torch.empty_like(inner), torch.empty_like(outer)
        for number in reversed(range(len(kept))):
            layers = range(number * every, min((number + 1) * every, len(inner)))
            z, states = kept[number], []
            for layer in layers:
                h = torch.bmm(inner[layer], z).relu_()
                states.append((z, h))
                z = torch.baddbmm(z, outer[layer], h)
            for layer in reversed(layers):
                z, h = states.pop()
                torch.bmm(g, h.mT, out=d_outer[layer])
                before = torch.ops.aten.threshold_backward(torch.bmm(outer[layer].mT, g), h, 0)
                torch.bmm(before, z.mT, out=d_inner[layer])
                g = torch.baddbmm(g, inner[layer].mT, before)
        return g, d_inner, d_outer


@torch.no_grad()
def start_(net: ResidualMLP, start: str, *, generator: Generator | Sequence[Generator]) -> ResidualMLP:
    """Draw all weights anew, in place, from Gaussians.

    Args:
        net: a residual network.
        start: a key of :data:`STARTS`.
        generator: one, or one a run.

    Returns:
        ``net``.

    Raises:
        ValueError: unknown start, or not one generator a run.

    Source: Wu et al. (2019), Eq. (6.2); Glorot and Bengio (2010), Eq. (12) with Gaussian weights.
    """
    checks.instance("net", net, ResidualMLP, "a residual.ResidualMLP")
    kind = STARTS[checks.one_of("start", start, STARTS)]
    generators = checks.generators("generator", generator)
    depth, runs, _, width = net.inner.shape
    checks.require(len(generators) == runs, "generator", len(generators), f"one generator a run, {runs}")
    factors = ((net.first, 1.0), (net.inner, 1.0), (net.outer, kind.branch(depth)), (net.readout, kind.readout))
    for weights, factor in factors:
        std = math.sqrt(2 / sum(weights.shape[-2:]) if kind.glorot else 1 / width)
        for run, g in enumerate(generators):
            one = weights[:, run] if weights.ndim == 4 else weights[run]
            one.copy_(torch.empty_like(one).normal_(0.0, std, generator=g) * factor)
    return net


@dataclass(frozen=True)
class Descent:
    """Gradient descent on the mean cross-entropy; nan from the step on at which a run diverged.

    Attributes:
        loss: float64, ``(steps + 1, runs)``.
        accuracy: share of the samples with the largest output at their label, ``(steps + 1, runs)``.
        diverged: for each run the first step whose outputs are not finite, or ``None``. Step 0 is the start.
    """

    loss: Tensor
    accuracy: Tensor
    diverged: list[int | None]


def descend(
    net: ResidualMLP, x: Tensor, labels: Tensor, *, step_size: Sequence[float], steps: int, warm_up: int = 0
) -> Descent:
    """Plain full-batch gradient descent on all weights, in place, one step size a run.

    The loss is computed in float64, so that only the network itself can overflow.

    Args:
        net: a residual network.
        x: inputs, ``(d_in, N)``.
        labels: integers from 0, ``(N,)``.
        step_size: one a run, positive.
        steps: number of steps; all runs end early when all have diverged.
        warm_up: steps over which the step size rises linearly to its value.

    Raises:
        ValueError: an argument is outside what is described above.
    """
    checks.instance("net", net, ResidualMLP, "a residual.ResidualMLP")
    net._check(x)
    runs, classes, _ = net.readout.shape
    good = isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == x.shape[1:]
    good = good and bool(((labels >= 0) & (labels < classes)).all())
    checks.require(good, "labels", getattr(labels, "shape", labels), f"integers from 0 to {classes - 1}, one a sample")
    eta = checks.reals("step_size", step_size, device=x.device, allowed="positive and finite", positive=True)
    checks.require(eta.shape == (runs,), "step_size", step_size, f"one number a run, {runs}")
    checks.natural("steps", steps)
    checks.natural("warm_up", warm_up)
    loss, accuracy = torch.full((2, steps + 1, runs), torch.nan, dtype=torch.float64, device=x.device)
    parameters = list(net.parameters())
    for t in range(steps + 1):
        outputs = net(x).double()
        each = nn.functional.cross_entropy(outputs.mT.flatten(0, 1), labels.repeat(runs), reduction="none")
        each = each.unflatten(0, (runs, -1)).mean(1)
        alive = outputs.isfinite().flatten(1).all(1) & each.isfinite() & (loss[t - 1].isfinite() if t else True)
        loss[t] = each.detach().where(alive, torch.nan)
        accuracy[t] = (outputs.argmax(1) == labels).double().mean(1).where(alive, torch.nan)
        if t == steps or not alive.any():
            break
        now = eta * min(1.0, (t + 1) / (warm_up + 1))
        for weights, gradient in zip(parameters, torch.autograd.grad(each.sum(), parameters), strict=True):
            weights.data -= now.to(weights.dtype).view(-1, 1, 1) * gradient
    lost = [int(bad.nonzero()[0]) if (bad := ~one.isfinite()).any() else None for one in loss.T]
    return Descent(loss, accuracy, lost)
