"""Training image classifiers at one constant step."""

import math

import pytest
import torch

from firststep import constant_step, inits
from firststep.constant_step import classifier, measured, pixels, train


@pytest.fixture(scope="module")
def few():
    return pixels(50, device="cpu")


def test_pixels_are_standardized_and_balanced():
    x, y = pixels(2_000, device="cpu")
    assert abs(float(x.mean())) < 1e-5 and float(x.std()) == pytest.approx(1, abs=1e-5)
    assert torch.bincount(pixels(30, split="test", device="cpu")[1]).tolist() == [3] * 10 and len(y) == 2_000


def test_a_classifier_has_as_many_weight_matrices_as_its_depth_and_no_biases(few):
    net = classifier("he_normal", "relu", 16, 3, 0, device="cpu")
    assert [tuple(p.shape) for p in net.parameters() if p.ndim == 2] == [(16, 784), (16, 16), (10, 16)]
    train(net, *few, loss="squared", step_size=1e-3, updates=3)
    assert not any(p.any() for name, p in net.named_parameters() if name.endswith("bias"))


def test_one_layer_descends_up_to_two_over_lambda_and_not_beyond(few):
    def net():
        return classifier("lecun_normal", "tanh", 1, 1, 0, device="cpu")

    top = measured(net(), few[0], "tanh", "squared")
    assert top == pytest.approx(float(torch.linalg.matrix_norm(few[0], 2)) ** 2 / 50, rel=1e-3)
    below, above = (train(net(), *few, loss="squared", step_size=c / top, updates=200) for c in (1.95, 2.1))
    assert below.descends and below.trains and not above.descends and not above.trains


def test_training_is_plain_gradient_descent(few):
    x, y = few
    net = classifier("lecun_normal", "tanh", 1, 1, 0, device="cpu")
    w = net.readout.weight.detach().double()
    t = torch.nn.functional.one_hot(y, 10).double()
    for _ in range(5):
        w = w - 1e-3 * (x.double() @ w.mT - t).mT @ x.double() / 50
    done = train(net, x, y, loss="squared", step_size=1e-3, updates=5)
    assert done.last == pytest.approx(float(0.5 * (x.double() @ w.mT - t).square().sum(1).mean()), rel=1e-5)


def test_minibatches_pass_over_all_images_before_any_comes_again(few):
    def g():
        return inits.generator(0, "cpu")

    options = {"loss": "cross_entropy", "step_size": 1e-3, "batch": 25}
    a, b = (classifier("he_normal", "relu", 8, 2, 0, device="cpu") for _ in range(2))
    train(a, *few, updates=2, generator=g(), **options)
    for part in torch.randperm(50, generator=g(), device="cpu").split(25):
        train(b, few[0][part], few[1][part], updates=1, **options | {"batch": 0})
    torch.testing.assert_close(a.readout.weight, b.readout.weight)


def test_divergence_is_data(few):
    done = train(
        classifier("he_normal", "relu", 8, 3, 0, device="cpu"), *few, loss="squared", step_size=1e3, updates=50
    )
    assert done.last == math.inf and math.isnan(done.accuracy) and not done.trains and not done.descends


def test_a_dead_network_stays_where_it_is(few):
    net = classifier("he_normal", "relu", 8, 2, 0, device="cpu")
    with torch.no_grad():
        net.readout.weight.zero_()
        net.hidden[0][0].weight.zero_()
    done = train(net, *few, loss="squared", step_size=0.1, updates=1_000)
    assert done.first == done.last == 0.5 and not done.trains


def test_the_rule_takes_the_inputs_and_the_loss_into_account():
    assert constant_step.rule_step(4.0, "squared") == 0.25 and constant_step.rule_step(4.0, "cross_entropy") == 2.5
