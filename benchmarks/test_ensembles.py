"""SGD on sixteen networks: in one batch, and as a loop over torch's modules with torch's optimizer, by width.

Sixteen seeds or step sizes of an MLP of depth 4 on 28×28 images, minibatches of 64, float32. All start at the same
weights and see the same minibatches, and both must end at the same loss.
"""

import functools

import pytest
import torch
from torch import nn

from firststep import ensembles, inits, nets

MEMBERS, DEPTH, STEPS, BATCH, ROUNDS = 16, 4, 10, 64, 3


@functools.cache
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(512, 784, generator=generator), torch.randint(10, (512,), generator=generator)


def members(width, batch_norm):
    networks = [nets.MLP(784, width, DEPTH, 10, batch_norm=batch_norm, device="cpu") for _ in range(MEMBERS)]
    return [nets.initialize_(net, "he_normal", generator=inits.generator(k, "cpu")) for k, net in enumerate(networks)]


def batched(width, batch_norm):
    ensemble = ensembles.Ensemble.of(members(width, batch_norm))
    options = {"steps": STEPS, "batch_size": BATCH, "generators": inits.generators(MEMBERS, "cpu")}
    return ensembles.sgd(ensemble, *images(), step_sizes=[0.01] * MEMBERS, **options).loss[-1]


def loop(width, batch_norm):
    (x, y), last = images(), []
    for net, generator in zip(members(width, batch_norm), inits.generators(MEMBERS, "cpu"), strict=True):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        order = []
        for _ in range(STEPS):
            order = order or list(torch.randperm(len(x), generator=generator).split(BATCH))
            rows = order.pop(0)
            loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        last.append(loss.detach())
    return torch.stack(last)


METHODS = {"firststep": batched, "loop over torch modules, torch.optim.SGD": loop}


@pytest.mark.parametrize("label", METHODS)
@pytest.mark.parametrize("batch_norm", [False, True], ids=["plain", "batch norm"])
@pytest.mark.parametrize("width", [16, 64, 128, 256])
def test_sgd_on_many_networks(timed, width, batch_norm, label):
    kind = "normalized" if batch_norm else "plain"
    name = f"{MEMBERS} {kind} networks of width {width}, {STEPS} steps"
    loss = timed(lambda: METHODS[label](width, batch_norm), group=name, label=label, rounds=ROUNDS)
    torch.testing.assert_close(loss.float(), loop(width, batch_norm), rtol=1e-3, atol=1e-4)
