"""Recorded training runs: multilayer perceptrons from several starts, each at a step size tuned for it.

One run is one start at one depth: the step size is chosen on a seed of its own, from a grid that grows until the best
lies inside it; then fresh seeds are trained at that step size and followed.
"""

import math
import time
from collections.abc import Callable, Collection, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from firststep import cifar, ensembles, images, inits, nets, spectra, training
from firststep.book import sweep
from firststep.ensembles import Ensemble

PRETRAINING = {"steps": 5, "batch_size": 128, "rule": "adam", "layerwise": True}
STARTS: dict[str, dict] = {
    "plain": {},
    "batch norm": {"batch_norm": True},
    "one-sided, batch norm": {"batch_norm": True, "scheme": "torch_one_sided"},
    "raised, 25 steps": {"batches": 5},
    "raised, 75 steps": {"batches": 15},
    "lowered, 75 steps": {"batches": 15, "direction": "descent"},
    "plain, rescaled": {"batches": 15, "rescaled": True},
    "raised, even sizes": {"batches": 15, "even": True},
    "plain, even sizes": {"even": True},
    "He's scale": {"gain": math.sqrt(6)},
}
"""What distinguishes the starts; all others is torch's: weights and biases uniform on ±1/√fan_in. *Raised* is
pre-training by ascent on r, layer by layer, with Adam; *lowered* is descent; *rescaled* is the plain network with every
layer multiplied so that its size is that of the raised network of the same seed: the same r, another scale. *Even
sizes* are root mean square one in every layer, by the same multiplication. *He's scale* is the plain draw with the
weights of its hidden layers times √6 and without their biases, which is He's uniform start."""
FINALISTS = 4  # settings that are tried on every tuning seed
HALF_DECADES = [float(f"{a}e{k}") for k in range(-5, 3) for a in (1, 3)]  # where a grid of step sizes can grow


def tuned(
    data: str, start: str, depth: int, width: int, epochs: int, batch_size: int, grid: list[float],
    tuning_seeds: list[int], seeds: list[int], every: int, pretraining: list[float] | None = None, warm_up: int = 0,
) -> dict:  # fmt: skip
    """Choose a step size, with that of pre-training where there is one, then train fresh seeds at it; float32.

    Args:
        data: ``fashion_mnist``, the shipped subset, or ``cifar10``, the first 2,000 and 1,000 images.
        start: a key of :data:`STARTS`.
        depth: hidden layers.
        width: of each.
        epochs: passes through the training images.
        batch_size: images a minibatch.
        grid: step sizes that are tried first, of :data:`HALF_DECADES`.
        tuning_seeds: of the networks on which the step size is chosen, by their training loss in the last epoch: the
            whole grid on the first seed, the best :data:`FINALISTS` of it on all.
        seeds: of the networks that are followed.
        every: epochs between two measurements.
        pretraining: step sizes of the pre-training, where there is one: each is tried with the whole grid.
        warm_up: epochs over which the step size rises linearly to its value.

    Returns:
        ``tuning``, step sizes of pre-training and of SGD with their loss on each tuning seed; ``pretraining_step``
        and ``step_size``, the best; ``inside``, whether the latter is no end of its grid; and what :func:`followed`
        returns.
    """
    sample, labels = samples(data)["train"]
    firsts, steps = pretraining or [None], _steps(len(sample), batch_size)
    networks = {
        first: started(data, start, tuning_seeds, depth=depth, width=width, pretraining=first)[0] for first in firsts
    }

    losses: dict[tuple, list[float]] = {}  # of each setting, on the tuning seeds that it was tried on

    def tried(pairs: Sequence[tuple], places: Sequence[int]) -> dict[tuple, float]:
        """Mean loss of every pair in the last epoch on the tuning seeds up to the last of these places."""
        members = [(first, eta, k) for first, eta in pairs for k in places]
        history = ensembles.sgd(
            Ensemble.of([networks[first][k] for first, _, k in members]), sample, labels,
            step_sizes=[eta for _, eta, _ in members], steps=epochs * steps, batch_size=batch_size,
            generators=[inits.generator(1_000 + tuning_seeds[k], "cpu") for *_, k in members], warm_up=warm_up * steps,
        )  # fmt: skip
        for (first, eta, _), loss in zip(members, history.last(steps).tolist(), strict=True):
            losses.setdefault((first, eta), []).append(loss)
        return {pair: sum(losses[pair]) / len(losses[pair]) for pair in pairs}

    every_seed = range(len(tuning_seeds))
    found = grown(tried([(first, eta) for first in firsts for eta in grid], [0]), lambda pair: tried([pair], [0]))
    best = sorted(found, key=lambda pair: (found[pair], pair))[:FINALISTS]
    scores = tried(best, every_seed[1:]) if len(tuning_seeds) > 1 else {pair: found[pair] for pair in best}
    scores = grown(scores, lambda pair: tried([pair], every_seed), losses)
    first, eta = _best(scores)
    etas = [other for one, other in losses if one == first]
    found = {
        "tuning": [[*pair, [_plain(loss) for loss in losses[pair]]] for pair in sorted(losses)],
        "pretraining_step": first,
        "step_size": eta,
        "inside": min(etas) < eta < max(etas),
    }
    options = {"depth": depth, "width": width, "epochs": epochs, "batch_size": batch_size, "every": every}
    return found | followed(data, start, eta, seeds, pretraining=first, warm_up=warm_up, **options)


def followed(
    data: str, start: str, step_size: float, seeds: Sequence[int], *, depth: int, width: int, epochs: int,
    batch_size: int, every: int, pretraining: float | None = None, warm_up: int = 0, measured: bool = True,
) -> dict:  # fmt: skip
    """Train networks of several seeds at one step size, of pre-training too; other arguments as of :func:`tuned`.

    Returns:
        A list a seed of each: ``loss`` and ``accuracy`` on the minibatches of each epoch, in training mode; if
        ``measured``, at ``epochs_at``: ``train_accuracy``, ``test_accuracy`` and ``test_loss`` in evaluation mode and,
        of the last hidden layer on 500 test images, ``r`` and ``size``, its root mean square; at the start ``spread``,
        the root mean square of what is left there after each unit's mean is subtracted, and ``rank``, float32 at the
        default tolerance, on all test images; ``rank_end``; ``diverged_at``. And seconds a network for both phases,
        and what pre-training took in passes of one minibatch.
    """
    (x, y), (x_test, y_test) = samples(data).values()
    began = time.perf_counter()
    networks, passes = started(data, start, seeds, depth=depth, width=width, pretraining=pretraining)
    prepared = time.perf_counter() - began
    ensemble, steps = Ensemble.of(networks), _steps(len(x), batch_size)
    measure = {
        "r": lambda e: ensembles.stable_rank(e, x_test[:500]),
        "size": lambda e: _size(e.representations(x_test[:500])[-1]),
        "train_accuracy": lambda e: ensembles.accuracy(e, x, y),
        "test_accuracy": lambda e: ensembles.accuracy(e, x_test, y_test),
        "test_loss": lambda e: _loss(e, x_test, y_test),
    }
    rank, spread = _ranks(ensemble, x_test), _spread(ensemble, x_test[:500])
    began, spent = time.perf_counter(), 0.0

    def timed(function: Callable[[Ensemble], Tensor]) -> Callable[[Ensemble], Tensor]:
        def call(e: Ensemble) -> Tensor:
            nonlocal spent
            before = time.perf_counter()
            value = function(e)
            spent += time.perf_counter() - before
            return value

        return call

    history = ensembles.sgd(
        ensemble, x, y, step_sizes=[step_size] * len(seeds), steps=epochs * steps, batch_size=batch_size,
        generators=[inits.generator(1_000 + seed, "cpu") for seed in seeds], warm_up=warm_up * steps,
        measure={name: timed(function) for name, function in measure.items()} if measured else {}, every=every * steps,
    )  # fmt: skip
    seconds = time.perf_counter() - began - spent
    found = {name: _lists(values) for name, values in history.measured.items()}
    for name, values in (("loss", history.loss), ("accuracy", history.accuracy)):
        found[name] = _lists(values.reshape(epochs, steps, -1).mean(1))
    return found | {
        "epochs_at": (history.steps // steps).tolist(),
        "rank": rank,
        "spread": spread,
        "rank_end": _ranks(ensemble, x_test),
        "diverged_at": history.diverged_at.tolist(),
        "pretraining_passes": passes,
        "pretraining_seconds": round(prepared / len(seeds), 3),
        "training_seconds": round(seconds / len(seeds), 3),
    }


def curves(values: Sequence[Sequence[float | None]], lost: float) -> np.ndarray:
    """What a record lists a seed, ``(seeds, R)``, with ``lost`` where a network has diverged."""
    return np.array([[lost if value is None else value for value in one] for one in values])


def distance(record: dict, count: int, epochs: int) -> float:
    """Run the first epochs of a recorded run again, for its first seeds, and compare.

    Returns:
        The largest distance between the seeds' mean loss in an epoch and the recorded one, in standard deviations of
        the recorded seeds.
    """
    kept = {name: record[name] for name in ("depth", "width", "batch_size", "every")}
    warm_up = record.get("warm_up", 0)  # a table of runs has nan where one has none
    kept |= {"pretraining": _given(record["pretraining_step"]), "warm_up": int(_given(warm_up) or 0)}
    seeds = record["seeds"][:count]
    again = followed(record["data"], record["start"], record["step_size"], seeds, epochs=epochs, measured=False, **kept)
    new, old = curves(again["loss"], math.inf), curves(record["loss"], math.inf)[:, :epochs]
    return float((np.abs(new.mean(0) - old[:count].mean(0)) / old.std(0, ddof=1)).max())


def samples(data: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Training and test images with their labels, on the CPU: recorded runs are the same on every machine."""
    counts = {"train": 2_000, "test": 1_000}
    read = images.fashion_mnist if data == "fashion_mnist" else cifar.cifar10
    found = {split: read(split, device="cpu") for split in counts}
    return {split: (found[split].x[:count], found[split].y[:count]) for split, count in counts.items()}


def started(
    data: str, start: str, seeds: Sequence[int], *, depth: int, width: int, pretraining: float | None = None
) -> tuple[list[nets.MLP], dict[str, float]]:
    """Networks of several seeds before training, and the passes of a minibatch that preparing one of them took."""
    x, _ = samples(data)["train"]
    kind = STARTS[start]
    networks, passes = [], {"forward": 0.0, "backward": 0.0}
    for seed in seeds:
        plain, net = (_drawn(x.shape[1], width, depth, kind, seed) for _ in range(2))
        if "batches" in kind:
            direction = kind.get("direction", "ascent")
            g = inits.generator(10_000 + seed, "cpu")
            options = PRETRAINING | {"batches": kind["batches"], "direction": direction, "step_size": pretraining}
            record = training.raise_rank(net, x, generator=g, **options)
            passes = {"forward": record.forward, "backward": record.backward}
        net = rescaled(plain, net, x) if kind.get("rescaled") else net
        networks.append(rescaled(net, None, x) if kind.get("even") else net)
    return networks, passes


@torch.no_grad()
def rescaled(net: nets.MLP, like: nets.MLP | None, x: Tensor) -> nets.MLP:
    """Multiply the hidden layers of a ReLU network so that their sizes become those of another, or one; in place.

    A layer's size is the root mean square of its output on ``x``.

    Layer l's output is multiplied by s_l if its weights are by s_l/s_{l-1} and its biases by s_l. Every singular value
    of H_l is, too, so r(H_l) stays.
    """
    before = 1.0
    own = [_size(h) for h in net.representations(x)]
    wanted = [_size(h) for h in like.representations(x)] if like else [torch.ones_like(size) for size in own]
    for layer, size in zip(net.hidden, (b / a for a, b in zip(own, wanted, strict=True)), strict=True):
        layer[0].weight.mul_(size / before)
        layer[0].bias.mul_(size)
        before = size
    return net


def grown(
    losses: dict[tuple, float], tried: Callable[[tuple], dict[tuple, float]], known: Collection[tuple] = ()
) -> dict[tuple, float]:
    """Losses by pairs, the second a step size of SGD, the first what it is combined with, and further ones.

    The grid of the best pair's first, with what is ``known`` besides, grows until its best step size lies inside or an
    end of HALF_DECADES is reached.
    """
    losses = dict(losses)
    while True:
        first, best = _best(losses)
        etas = [eta for one, eta in {*losses, *known} if one == first]
        if min(etas) < best < max(etas):
            return losses
        place = HALF_DECADES.index(best) + (1 if best == max(etas) else -1)
        if not 0 <= place < len(HALF_DECADES):
            return losses
        losses |= tried((first, HALF_DECADES[place]))


def _best(losses: dict[tuple, float]) -> tuple:
    return min(sorted(losses), key=losses.get)  # where all diverge, the smallest


@torch.no_grad()
def _drawn(d_in: int, width: int, depth: int, kind: dict, seed: int) -> nets.MLP:
    net = nets.MLP(d_in, width, depth, 10, batch_norm=kind.get("batch_norm", False), device="cpu")
    nets.initialize_(net, kind.get("scheme", "torch_default"), generator=inits.generator(seed, "cpu"))
    for layer in net.hidden if "gain" in kind else ():
        layer[0].weight.mul_(kind["gain"])
        layer[0].bias.zero_()
    return net


def _steps(count: int, batch_size: int) -> int:
    """Steps an epoch: what does not fill a minibatch is left out."""
    return count // batch_size


def _loss(ensemble: Ensemble, x: Tensor, y: Tensor) -> Tensor:
    outputs = ensemble.outputs(x, training=False)
    return functional.cross_entropy(outputs, y.expand(ensemble.size, -1), reduction="none").mean(-1)


def _size(h: Tensor) -> Tensor:
    """Root mean square of a representation, or of each of a batch."""
    return h.square().mean((-2, -1)).sqrt()


def _spread(ensemble: Ensemble, x: Tensor) -> list[float | None]:
    """Size of the last hidden layer in training mode less each unit's mean over the images, in float64."""
    with torch.no_grad():
        last = ensemble.representations(x)[-1].double()
    return [_plain(value) for value in _size(last - last.mean(-1, keepdim=True)).tolist()]


def _given(value: float | None) -> float | None:
    """A value of a table, which has nan where a run has none."""
    return None if value is None or math.isnan(value) else value


def _ranks(ensemble: Ensemble, x: Tensor) -> list[int | None]:
    """Numerical rank of the last hidden layer in training mode, ``None`` where it is not finite."""
    with torch.no_grad():
        last = ensemble.representations(x)[-1]
    return [int(spectra.numerical_rank(h)) if bool(h.isfinite().all()) else None for h in last]


def _lists(values: Tensor) -> list[list[float | None]]:
    """``(R, B)`` as a list a member, with ``None`` for what is not finite."""
    return [[_plain(value) for value in column] for column in np.round(values.double().mT.numpy(), 6).tolist()]


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


# Figure 1: epochs, seeds and width as there, on 2,000 images instead of 60,000, in batches of 64.
_SETTING = {
    "data": ["fashion_mnist"], "width": [128], "epochs": [75], "batch_size": [64],
    "grid": [[0.01, 0.03, 0.1, 0.3, 1.0]], "tuning_seeds": [[100]], "seeds": [[0, 1, 2, 3, 4]], "every": [15],
}  # fmt: skip
DEPTHS = sweep.grid(start=["plain", "batch norm"], depth=[32, 16, 8, 4, 2, 1], **_SETTING)
WARM = sweep.grid(start=["plain"], depth=[32, 16], warm_up=[5], **_SETTING)
# Figures 6 and 12; plain networks and batch normalization are those of Figure 1. Every step size of pre-training is
# tried with every one of SGD, on three tuning seeds, since after pre-training seeds differ in the steps that they bear;
# what only serves as a control, and does not learn at any step, is pre-trained at the middle. Where 0.01 was the best
# of three, two larger ones were tried as well.
_THREE = _SETTING | {"tuning_seeds": [[100, 101, 102]]}
_JOINT, _MIDDLE = {"pretraining": [[0.001, 0.003, 0.01]]}, {"pretraining": [[0.003]]}
_LARGER = {"pretraining": [[0.001, 0.003, 0.01, 0.03, 0.1]]}
_SMALLER = {"pretraining": [[0.0001, 0.0003, 0.001, 0.003, 0.01]]}  # on CIFAR-10 0.001 was the best of three
STARTING = [
    *sweep.grid(start=["raised, 75 steps"], depth=[32], **_THREE, **_JOINT),
    *sweep.grid(start=["He's scale"], depth=[32], **_THREE),
    *sweep.grid(start=["raised, even sizes", "raised, 25 steps"], depth=[32], **_THREE, **_LARGER),
    *sweep.grid(start=["plain, even sizes", "one-sided, batch norm"], depth=[32], **_SETTING),
    *sweep.grid(start=["plain, rescaled", "lowered, 75 steps"], depth=[32], **_SETTING, **_MIDDLE),
    *sweep.grid(start=["raised, 75 steps"], depth=[16], **_THREE, **_JOINT),
    *sweep.grid(start=["raised, 75 steps"], depth=[8], **_THREE, **_LARGER),
]
# Figures 4 and 11, in fewer epochs and with fewer seeds.
_CIFAR = _THREE | {"data": ["cifar10"], "epochs": [20], "seeds": [[0, 1, 2]], "every": [5]}
_ONCE = _CIFAR | {"tuning_seeds": [[100]]}
ON_CIFAR = [
    *sweep.grid(start=["raised, 75 steps"], depth=[32], **_CIFAR, **_SMALLER),
    *sweep.grid(start=["He's scale"], depth=[32], **_CIFAR),
    *sweep.grid(start=["batch norm", "plain"], depth=[32], **_ONCE),
    *sweep.grid(start=["lowered, 75 steps"], depth=[32], **_ONCE, **_MIDDLE),
    *sweep.grid(start=["raised, 75 steps"], depth=[16, 8], **_CIFAR, **_SMALLER),
    *sweep.grid(start=["batch norm", "plain"], depth=[16, 8], **_ONCE),
]
SWEEPS = {
    "rank_collapse/trained_depths": (tuned, DEPTHS),
    "rank_collapse/trained_starts": (tuned, STARTING),
    "rank_collapse/trained_cifar": (tuned, ON_CIFAR),
    "rank_collapse/trained_warm_up": (tuned, WARM),
}
