"""Networks trained in a batch against the same networks trained one by one, by torch and by the batch itself."""

import copy
import math

import pytest
import torch
from torch import nn

from firststep import ensembles, nets, spectra
from firststep.ensembles import Ensemble, sgd

KINDS = {
    "plain": {},
    "tanh": {"activation": "tanh"},
    "centred": {"batch_norm": True},
    "not centred": {"batch_norm": True, "centred": False},
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)


def seed(number=0):
    return torch.Generator().manual_seed(number)


def seeds(count, first=100):
    return [seed(first + k) for k in range(count)]


def networks(count, *, depth=3, first=0, scheme="he_normal", **options):
    shape = (5, 8, depth, 3)
    drawn = [nets.MLP(*shape, **options).double() for _ in range(count)]
    return [nets.initialize_(net, scheme, generator=seed(first + k)) for k, net in enumerate(drawn)]


def samples(n=50, d=5):
    x = torch.randn(n, d, generator=seed(7), dtype=torch.float64)
    return x, torch.randint(3, (n,), generator=seed(8))


def train(members, etas, *, first=100, steps=12, **options):
    x, y = samples()
    ensemble = Ensemble.of(members)
    generators = seeds(len(members), first)
    return ensemble, sgd(ensemble, x, y, step_sizes=etas, steps=steps, batch_size=10, generators=generators, **options)


def one_by_one(net, eta, generator, steps=12, batch_size=10):
    """The same training by torch's modules and optimizer; also the loss before each step."""
    x, y = samples()
    optimizer, order, losses = torch.optim.SGD(net.parameters(), lr=eta), [], []
    for _ in range(steps):
        if not order:
            order = list(torch.randperm(len(x), generator=generator).split(batch_size))
        rows = order.pop(0)
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def same(ensemble, k, net):
    for name, value in ensemble.member(k).state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(value, net.state_dict()[name], rtol=1e-9, atol=1e-11)


@kinds
def test_a_batch_of_sixteen_equals_sixteen_alone(options):
    members = networks(16, **options)
    etas = [0.01 * 1.2**k for k in range(16)]
    ensemble, history = train(members, etas)
    for k, (net, eta) in enumerate(zip(members, etas, strict=True)):
        alone, own = train([net], [eta], first=100 + k)
        same(ensemble, k, alone.member(0))
        torch.testing.assert_close(history.loss[:, k], own.loss[:, 0], rtol=1e-10, atol=1e-12)


@kinds
def test_training_equals_torch_sgd_on_the_modules_with_their_running_statistics(options):
    members = networks(3, **options)
    ensemble, history = train(members, [0.1, 0.02, 0.3])
    for k, (net, eta) in enumerate(zip(members, [0.1, 0.02, 0.3], strict=True)):
        losses = one_by_one(net, eta, seed(100 + k))
        same(ensemble, k, net)
        assert history.loss[:, k].tolist() == pytest.approx(losses, rel=1e-10)


@kinds
@pytest.mark.parametrize("training", [True, False])
def test_a_pass_equals_that_of_the_module_in_the_same_mode(options, training):
    members = networks(4, **options)
    train(members, [0.1] * 4)
    ensemble, _ = train(members, [0.1] * 4)
    x = samples()[0]
    for k in range(4):
        net = ensemble.member(k).train(training)
        torch.testing.assert_close(ensemble.outputs(x, training=training)[k].mT, net(x))
        ours = ensemble.representations(x, training=training)
        for mine, theirs in zip(ours, net.representations(x), strict=True):
            torch.testing.assert_close(mine[k], theirs)


def test_measuring_leaves_the_running_statistics_alone():
    x, y = samples()
    measure = {
        "r": lambda e: ensembles.stable_rank(e, x),
        "right": lambda e: ensembles.accuracy(e, x, y, training=True),
    }
    watched, history = train(networks(2, batch_norm=True), [0.1, 0.2], measure=measure, every=5)
    alone, _ = train(networks(2, batch_norm=True), [0.1, 0.2])
    for mine, theirs in zip(watched.means + watched.variances, alone.means + alone.variances, strict=True):
        assert torch.equal(mine, theirs)
    assert history.steps.tolist() == [0, 5, 10, 12]
    assert {name: tuple(values.shape) for name, values in history.measured.items()} == {"r": (4, 2), "right": (4, 2)}


def test_a_member_that_diverges_is_recorded_and_the_others_do_not_notice():
    members = networks(3)
    ensemble, history = train(members, [0.05, 1e200, 0.1], measure={"one": lambda e: torch.ones(3)}, every=1)
    _, others = train([members[0]], [0.05])
    torch.testing.assert_close(history.loss[:, :1], others.loss)
    at = int(history.diverged_at[1])
    assert history.diverged_at.tolist() == [-1, at, -1] and 0 < at < 12
    assert history.loss[:at, 1].isfinite().all() and history.loss[at:, 1].isnan().all()
    assert all(p[1].isnan().all() for p in ensemble.parameters)
    assert ensembles.finite(ensemble).tolist() == [True, False, True]
    assert history.measured["one"][:, 1].isnan().tolist() == [k > at for k in range(13)]
    assert history.last(3).isinf().tolist() == [False, True, False]


def test_weights_that_only_the_last_step_throws_off_count_as_diverged():
    (x, y), ensemble = samples(), Ensemble.of(networks(1))
    history = sgd(ensemble, 1e3 * x, y, step_sizes=[1.7e308], steps=1, batch_size=10, generators=seeds(1))
    assert history.diverged_at.tolist() == [1] and history.loss.isfinite().all()
    assert ensembles.accuracy(ensemble, x, y).isnan().all()


def test_the_first_step_of_a_warm_up_is_a_fraction_of_the_step():
    x, y = samples()
    start = Ensemble.of(networks(1))
    long, short = (Ensemble.of(networks(1)) for _ in range(2))
    options = {"steps": 1, "batch_size": 10}
    sgd(long, x, y, step_sizes=[0.4], warm_up=4, generators=seeds(1), **options)
    sgd(short, x, y, step_sizes=[0.1], generators=seeds(1), **options)
    for mine, theirs, before in zip(long.parameters, short.parameters, start.parameters, strict=True):
        torch.testing.assert_close(mine, theirs)
        assert not torch.equal(mine, before)


def test_every_member_sees_each_sample_once_an_epoch():
    x, y = samples()
    net = Ensemble.of(networks(2, depth=0, scheme="identity"))
    # Depth zero and a step too small to matter: the mean loss of an epoch is the loss of all samples.
    history = sgd(net, x, y, step_sizes=[1e-12] * 2, steps=5, batch_size=10, generators=seeds(2))
    whole = nn.functional.cross_entropy(net.outputs(x), y.expand(2, -1), reduction="none").mean(-1)
    torch.testing.assert_close(history.loss.mean(0), whole, rtol=1e-8, atol=0)
    assert not torch.equal(history.loss[:, 0], history.loss[:, 1])  # in an order of its own


def test_r_is_that_of_the_last_layer_and_nan_for_a_dead_one():
    x = samples()[0]
    members = networks(2)
    with torch.no_grad():
        members[1].hidden[-1][0].weight.zero_()
    r = ensembles.stable_rank(Ensemble.of(members), x)
    assert math.isclose(r[0], spectra.stable_rank(members[0].representations(x)[-1].detach()))
    assert r[1].isnan()


def test_an_ensemble_owns_its_parameters():
    (net,) = networks(1, batch_norm=True)
    kept = copy.deepcopy(net.state_dict())
    train([net], [0.5])
    assert all(torch.equal(value, kept[name]) for name, value in net.state_dict().items())


def test_what_does_not_fit_together_is_refused():
    x, y = samples()
    ensemble = Ensemble.of(networks(2))
    fine = {"step_sizes": [0.1, 0.1], "steps": 2, "batch_size": 5, "generators": seeds(2)}
    for name, value in {
        "step_sizes": [0.1], "generators": seeds(3), "batch_size": 51, "steps": 0, "warm_up": -1, "every": 0,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} must"):
            sgd(ensemble, x, y, **fine | {name: value})
    with pytest.raises(ValueError, match="y must"):
        sgd(ensemble, x, y + 3, **fine)
    with pytest.raises(ValueError, match="networks must"):
        Ensemble.of(networks(1) + networks(1, batch_norm=True))
    with pytest.raises(ValueError, match="index must"):
        ensemble.member(2)
