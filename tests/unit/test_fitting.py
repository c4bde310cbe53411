"""Training on images against steps by hand, and what is watched against per-sample gradients."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap

from firststep import convnets, fitting, nets, spectra


class Tiny(nn.Module):
    """Two hidden layers on four inputs, with the two methods that is asked for."""

    def __init__(self, norm=True, width=6):
        super().__init__()
        middle = [nn.BatchNorm1d(width)] if norm else []
        self.features = nn.Sequential(nn.Linear(4, width), *middle, nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.readout = nn.Linear(width, 3)

    def last_hidden(self, x):
        return self.features(x).mT

    def forward(self, x):
        return self.readout(self.features(x))


def seed(number=0):
    return torch.Generator().manual_seed(number)


def tiny(scheme="he_normal", **options):
    return nets.initialize_(Tiny(**options), scheme, generator=seed())


def data(n=12):
    return torch.randn(n, 4, generator=seed(1)), torch.arange(n) % 3


def test_a_step_is_the_step_by_hand_and_every_pass_goes_through_all_images_in_a_new_order():
    x, y = data(10)
    net, mine = tiny(norm=False), tiny(norm=False)
    run = fitting.fit(net, x, y, step_size=0.1, steps=5, batch_size=4, generator=seed(2))
    g, losses = seed(2), []
    for step in range(5):
        if step % 2 == 0:
            order = torch.randperm(10, generator=g)
        rows = order[4 * (step % 2) : 4 * (step % 2) + 4]
        loss = nn.functional.cross_entropy(mine(x[rows]), y[rows])
        losses.append(float(loss.detach()))
        for p, slope in zip(mine.parameters(), torch.autograd.grad(loss, list(mine.parameters())), strict=True):
            p.data -= 0.1 * slope
    assert run.loss.tolist() == pytest.approx(losses) and not run.diverged
    for a, b in zip(net.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_small_network_learns_labels_by_heart_and_says_so():
    x, y = data(12)
    net = tiny(norm=False, width=32)
    run = fitting.fit(net, x, y, step_size=0.2, steps=400, batch_size=12, generator=seed())
    assert run.accuracy[-1] == 1 == fitting.accuracy(net, x, y, batch_size=5)
    assert run.loss[-1] < 0.1 < run.loss[0] and net.training


def test_measurements_come_on_a_cadence_and_at_the_end():
    x, y = data()
    seen = []
    run = fitting.fit(
        tiny(), x, y, step_size=0.1, steps=7, batch_size=4, generator=seed(), every=3,
        measure={"bias": lambda net: seen.append(1) or float(net.readout.bias.norm())},
    )  # fmt: skip
    assert run.at == [0, 3, 6, 7] and len(seen) == 4
    assert run.measured["bias"][0] == 0 < run.measured["bias"][-1]


def test_a_divergence_is_data():
    x, y = data()
    run = fitting.fit(tiny(norm=False), x, y, step_size=1e30, steps=9, batch_size=4, generator=seed())
    assert run.diverged and 0 < run.step < 9 and run.at[-1] == run.step
    assert run.loss[: run.step].isfinite().all() and run.loss[run.step :].isnan().all()


def test_the_squared_loss_is_followed_and_divergence_begins_at_the_limit():
    x, y = data()
    target = nn.functional.one_hot(y, 3).float()

    net, mine = tiny(norm=False), tiny(norm=False)
    options = {"steps": 2, "batch_size": 12, "generator": None, "loss": "squared"}
    run = fitting.fit(net, x, y, step_size=0.1, **options)
    for k in range(2):  # all images, in their own order
        loss = 0.5 * (mine(x) - target).square().sum(1).mean()
        assert run.loss[k] == pytest.approx(float(loss.detach()))
        for p, slope in zip(mine.parameters(), torch.autograd.grad(loss, list(mine.parameters())), strict=True):
            p.data -= 0.1 * slope
    stopped = fitting.fit(tiny(norm=False), x, y, step_size=0.1, limit=float(run.loss[0]), **options)
    assert stopped.diverged and stopped.step == 0


def test_parameters_without_a_gradient_stay():
    x, y = data()
    net = tiny(norm=False)
    net.readout.bias.requires_grad_(False)
    fitting.fit(net, x, y, step_size=0.1, steps=3, batch_size=4, generator=seed())
    assert not net.readout.bias.any() and net.readout.bias.grad is None


def test_the_same_seed_gives_the_same_run():
    x, y = data()
    first, second = (
        fitting.fit(tiny(), x, y, step_size=0.1, steps=5, batch_size=4, generator=seed(3)).loss for _ in range(2)
    )
    assert torch.equal(first, second)


def test_alignment_is_the_mean_absolute_cosine_of_per_sample_gradients_of_every_neuron():
    x, y = data(8)
    net = tiny("torch_default", norm=False, width=20)
    weight = net.readout.weight

    def loss(w, x, y):
        scores = functional_call(net, {"readout.weight": w}, (x[None],))
        return nn.functional.cross_entropy(scores, y[None])

    gradients = vmap(grad(loss), in_dims=(None, 0, 0))(weight, x, y)
    unit = gradients / gradients.norm(dim=-1, keepdim=True)
    cosines = torch.einsum("ikd,jkd->kij", unit, unit).abs()
    off = ~torch.eye(8, dtype=torch.bool)
    found = fitting.alignment(net.last_hidden(x).detach())
    for neuron in range(3):
        torch.testing.assert_close(found, cosines[neuron][off].mean(), rtol=1e-4, atol=1e-6)


def test_alignment_is_one_for_collinear_samples_zero_for_orthogonal_ones_and_leaves_silent_ones_out():
    v = torch.tensor([1.0, 2.0, 3.0])
    assert fitting.alignment(v[:, None] * torch.tensor([1.0, -2.0, 1e-20])) == pytest.approx(1)
    assert fitting.alignment(torch.eye(4)) == 0
    assert fitting.alignment(torch.cat([torch.eye(4)[:, :1].repeat(1, 2), torch.zeros(4, 9)], 1)) == pytest.approx(1)
    with pytest.raises(ValueError, match="two columns that are not zero"):
        fitting.alignment(torch.zeros(3, 4))


def test_independent_gaussian_features_after_a_rectifier_are_aligned_by_one_over_pi():
    h = torch.randn(4_000, 60, generator=seed()).relu()
    assert abs(fitting.alignment(h) - 1 / math.pi) < 0.01


def test_gradient_norms_are_those_of_the_layers_in_order_and_leave_the_network_alone():
    x, y = data()
    net = tiny()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    norms = fitting.gradient_norms(net, x, y)
    nn.functional.cross_entropy(net(x), y).backward()
    layers = [m for m in net.modules() if isinstance(m, nn.Linear)]
    torch.testing.assert_close(norms, torch.stack([m.weight.grad.norm() for m in layers]))
    net.load_state_dict(before)
    fitting.examine(net, x, y)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_without_activation_and_normalization_equal_orthogonal_layers_do_not_let_gradients_grow():
    net = Tiny(norm=False, width=4)
    net.features = nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(6)))
    nets.initialize_(net, "orthogonal", generator=seed())
    found = fitting.examine(net, *data())
    assert found["first"] / found["last"] == pytest.approx(1, rel=1e-4)
    for layer in net.features:
        layer.weight.data *= 0.5
    found = fitting.examine(net, *data())
    assert found["first"] / found["last"] == pytest.approx(1, rel=1e-4)


def test_an_examination_reports_rank_silence_and_what_cannot_be_measured():
    x, y = data(9)
    net = tiny(norm=False)
    h = net.last_hidden(x).detach()
    found = fitting.examine(net, x, y)
    assert found["rank"] == torch.linalg.matrix_rank(h)
    assert found["stable_rank"] == pytest.approx(float(spectra.stable_rank(h)), rel=1e-5)
    assert found["silent"] == pytest.approx(float((h == 0).all(0).float().mean()))
    net.features[-2].weight.data.zero_()
    net.features[-2].bias.data.fill_(-1.0)
    found = fitting.examine(net, x, y)
    assert found["rank"] == 0 and found["silent"] == 1 and math.isnan(found["stable_rank"])
    net.features[-2].bias.data.fill_(math.nan)
    assert math.isnan(fitting.examine(net, x, y)["rank"])


def test_a_deep_plain_vgg_is_aligned_at_the_start_and_a_normalized_one_is_not():
    x, y = torch.rand(16, 3, 32, 32, generator=seed()), torch.arange(16) % 10
    found = {}
    for norm in ("batch", "none"):
        net = convnets.VGG19(1 / 16, norm=norm, device="cpu")
        found[norm] = fitting.examine(nets.initialize_(net, "torch_default", generator=seed()), x, y)
    assert found["none"]["alignment"] > 0.999 > found["batch"]["alignment"] + 0.05
    assert found["none"]["rank"] == 1 < found["batch"]["rank"]


def test_images_keep_their_memory_format_through_a_fit():
    x = torch.rand(8, 3, 32, 32, generator=seed()).contiguous(memory_format=torch.channels_last)
    seen = []
    net = convnets.VGG19(1 / 16, device="cpu").to(memory_format=torch.channels_last)
    net.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
    )
    fitting.fit(net, x, torch.arange(8), step_size=0.01, steps=2, batch_size=4, generator=seed())
    assert seen == [True, True]
