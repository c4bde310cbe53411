"""Rank-increasing pre-training: gradient ascent on the stable rank of the hidden representations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from firststep import checks, nets, spectra

RULES = {"gradient": torch.optim.SGD, "normalized": torch.optim.SGD, "adam": torch.optim.Adam}


@dataclass(eq=False)
class RankRecord:
    """What :func:`raise_rank` did in its S steps, counted over all layers and minibatches that it was asked to treat.

    Attributes:
        before: the objective on a step's own minibatch before the step, float64, ``(S,)``. The first value on
            a minibatch is measured on samples that no earlier step on the same weights had drawn with it.
        after: the same after the step, ``(S,)``. Both are NaN where no step was taken.
        sizes: Frobenius norm of the change of each parameter, ``(S, P)``, in the order of ``net.hidden.parameters()``.
        forward: forward passes of one minibatch through the hidden layers. A pass through some layers counts as
            their share of the weights, hence of the multiplications. Measuring ``after`` is not counted.
        backward: backward passes, counted in the same way.
        diverged: whether a step ended, or a minibatch began, where the objective cannot be measured: at a
            representation with an entry that is not finite, or that is zero for the whole minibatch.
        step: the first step, from 0, that has no value ``after`` it, or ``None`` if every step has one.
    """

    before: Tensor
    after: Tensor
    sizes: Tensor
    forward: float = 0.0
    backward: float = 0.0
    diverged: bool = False
    step: int | None = None


@torch.enable_grad()
def raise_rank(
    net: nets.MLP,
    x: Tensor,
    *,
    step_size: float,
    steps: int,
    batches: int,
    batch_size: int,
    generator: Generator,
    layerwise: bool = False,
    rule: str = "gradient",
    direction: str = "ascent",
    objective: Callable[[Tensor], Tensor] = spectra.stable_rank,
) -> RankRecord:
    """Raise r(H_L) by gradient ascent on minibatches, without labels. The hidden layers are changed in place.

    Algorithm 1 takes ``steps`` gradient steps on r(H_L) on each of ``batches`` minibatches, with respect to all
    weights and biases. Its listing says descent, which lowers r; ascent is meant. With ``layerwise`` the layers are
    treated one after the other, from the input on, as in the paper's Section 4 and Figure 6: layer l takes
    ``batches · steps`` steps on r(H_l), with respect to its own weights and biases.

    r does not see the scale of H, but its gradient is that of a function of degree zero: weights twice as large have
    half the gradient. And near rank one, the minimum of r, it is of order √(r − 1): a representation that has
    collapsed to within round-off has no gradient left, only noise, whatever the rule.

    ==============  ====================================================================
    rule            step
    ==============  ====================================================================
    ``gradient``    η ∇r, as listed
    ``normalized``  η ∇r / ‖∇r‖, the norm over all weights that move
    ``adam``        ``torch.optim.Adam`` with its defaults, started anew for each layer
    ==============  ====================================================================

    Args:
        net: a network with at least one hidden layer.
        x: training inputs, ``(n, d_in)``, one row a sample, in the network's dtype.
        step_size: η, positive.
        steps: gradient steps T on each minibatch.
        batches: number of minibatches M. They are drawn once; with ``layerwise`` all layers use the same.
        batch_size: samples N a minibatch, drawn from ``x`` with replacement.
        generator: source of the minibatches, on the device of ``x``.
        layerwise: whether to treat every layer in turn.
        rule: one of the three above.
        direction: ``"ascent"``, or ``"descent"`` as printed.
        objective: a differentiable scalar function of a representation ``(d, N)``; by default r, Eq. (4).

    Returns:
        The record. Divergence ends the run and is recorded; the weights stay as the last step left them.

    Raises:
        ValueError: an argument is outside what is described above.

    Source: Daneshmand et al. (2020), Algorithm 1, with Eq. (4) and Section 4.
    """
    _check_inputs(net, x)
    for name, value in (("steps", steps), ("batches", batches), ("batch_size", batch_size)):
        checks.positive_integer(name, value)
    checks.number("step_size", step_size, above=0, allowed="a finite number > 0")
    checks.generator("generator", generator)
    checks.flag("layerwise", layerwise)
    checks.require(callable(objective), "objective", objective, "a function of a representation")
    checks.one_of("rule", rule, RULES)
    checks.one_of("direction", direction, ("ascent", "descent"))

    rows = torch.randint(len(x), (batches, batch_size), generator=generator, device=x.device)
    minibatches = list(x[rows])
    stages = [nn.Sequential(layer) for layer in net.hidden] if layerwise else [nn.Sequential(*net.hidden)]
    record = _empty_record(len(stages) * batches * steps, len(list(net.hidden.parameters())), x.device)
    for number, stage in enumerate(stages):
        optimizer = RULES[rule](stage.parameters(), lr=step_size, maximize=direction == "ascent")
        climb = _Climb(stage, optimizer, rule == "normalized", objective, record, list(net.hidden.parameters()))
        for k, h in enumerate(minibatches):
            start = (number * batches + k) * steps
            climb.take(range(start, start + steps), h)
            if record.diverged:
                return record
        if number + 1 < len(stages):
            with torch.no_grad():
                minibatches = [stage(h) for h in minibatches]
            record.forward += climb.share * batches
    return record


def _check_inputs(net: nets.MLP, x: Tensor) -> None:
    good = isinstance(net, nets.MLP) and len(net.hidden) > 0
    checks.require(good, "net", type(net).__name__, "a nets.MLP with at least one hidden layer")
    checks.matrices("x", x)
    weight = net.hidden[0][0].weight
    finite = all(p.isfinite().all() for p in net.parameters())
    checks.require(finite, "net", type(net).__name__, "a network with finite parameters")
    if x.ndim != 2 or x.shape[1] != weight.shape[1] or x.dtype != weight.dtype:
        raise ValueError(
            f"x must have shape (n, {weight.shape[1]}) and dtype {weight.dtype}, as the network takes, "
            f"got x of shape {tuple(x.shape)} and dtype {x.dtype}"
        )


def _empty_record(steps: int, parameters: int, device: torch.device) -> RankRecord:
    nan = torch.full((steps,), torch.nan, dtype=torch.float64, device=device)
    sizes = torch.zeros(steps, parameters, dtype=torch.float64, device=device)
    return RankRecord(before=nan, after=nan.clone(), sizes=sizes)


class _Climb:
    """Steps on the weights of one stage: all hidden layers, or one of them."""

    def __init__(self, stage, optimizer, normalize, objective, record, parameters):
        self.stage, self.optimizer, self.normalize = stage, optimizer, normalize
        self.objective, self.record = objective, record
        self.moving = list(stage.parameters())
        self.columns = [k for k, p in enumerate(parameters) if any(p is mine for mine in self.moving)]
        self.share = _count(self.moving) / _count(parameters)

    def take(self, numbers: range, h: Tensor) -> None:
        """One step for each number on the minibatch ``h: (N, d)``, written to the record under that number."""
        value = self.measure(h)
        for k in numbers:
            if value is not None:
                self.step(k, value)
                value = self.measure(h)  # also the forward pass of the next step
            if value is None:
                self.record.diverged, self.record.step = True, k
                return
            self.record.after[k] = value.detach()

    def step(self, k: int, value: Tensor) -> None:
        record, old = self.record, [p.detach().clone() for p in self.moving]
        record.before[k] = value.detach()
        self.optimizer.zero_grad()
        value.backward()
        if self.normalize:
            _normalize_gradients(self.moving)
        self.optimizer.step()
        record.sizes[k, self.columns] = _distances(old, self.moving)
        record.forward += self.share
        record.backward += self.share

    def measure(self, h: Tensor) -> Tensor | None:
        """The objective of the stage's output, or None where it has none."""
        output = self.stage(h).mT
        good = bool(output.isfinite().all()) and bool((output != 0).any())
        return self.objective(output) if good else None


def _count(parameters: Iterable[Tensor]) -> int:
    """Entries of the weight matrices: one multiplication each in a forward pass of one sample."""
    return sum(p.numel() for p in parameters if p.ndim > 1)


def _normalize_gradients(parameters: list[nn.Parameter]) -> None:
    """Divide the gradient by its norm over all parameters; a zero gradient stays zero."""
    total = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    # Not clip_grad_norm_, which only shortens and adds 1e-6 to the norm: gradients near rank one are far smaller.
    for p in parameters:
        p.grad.div_(total.clamp_min(torch.finfo(total.dtype).tiny))


def _distances(old: list[Tensor], new: list[nn.Parameter]) -> Tensor:
    return torch.stack([(b.detach() - a).norm() for a, b in zip(old, new, strict=True)]).double()
