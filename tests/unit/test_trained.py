"""Recorded training runs: how a step size is chosen, what the starts share, and that a run can be repeated."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from firststep import inits, nets, spectra
from firststep.book.runs import trained

TINY = {
    "data": "fashion_mnist", "start": "plain", "depth": 2, "width": 16, "epochs": 2, "batch_size": 500,
    "grid": [0.1, 0.3], "tuning_seeds": [5], "seeds": [0, 1, 2], "every": 1,
}  # fmt: skip


def bowl(best, grid, firsts=(None,)):
    """Losses on a grid with their minimum at ``best``, the loss of one pair more, and every pair that was asked for."""
    asked = []

    def loss(pair):
        asked.append(pair)
        return {pair: abs(np.log(pair[1] / best)) + (pair[0] or 0)}

    return {pair: value for first in firsts for eta in grid for pair, value in loss((first, eta)).items()}, loss, asked


@pytest.mark.parametrize("best", [0.1, 3.0, 0.0003])
def test_a_grid_grows_until_its_best_lies_inside(best):
    losses, loss, asked = bowl(best, [0.03, 0.1, 0.3])
    losses = trained.grown(losses, loss)
    assert min(losses, key=losses.get) == (None, best) and min(losses)[1] < best < max(losses)[1]
    assert len(asked) == len(set(asked)) == len(losses)  # nothing is run twice


def test_a_grid_stops_at_the_end_of_what_can_be_tried():
    losses = trained.grown(*bowl(1e9, [0.1, 0.3])[:2])
    assert max(losses) == (None, trained.HALF_DECADES[-1]) == min(losses, key=losses.get)


def test_where_every_step_size_diverges_smaller_ones_are_tried():
    def loss(pair):
        return {pair: np.inf if pair[1] > 1e-4 else pair[1]}

    losses = trained.grown(loss((None, 0.1)) | loss((None, 0.3)), loss)
    assert min(losses) == (None, trained.HALF_DECADES[0]) and losses[None, 1e-4] == 1e-4


def test_with_two_step_sizes_the_grid_of_the_best_first_grows():
    losses, loss, asked = bowl(1.0, [0.1, 0.3], [0.5, 0.25])
    losses = trained.grown(losses, loss)
    assert min(losses, key=losses.get) == (0.25, 1.0) and (0.25, 3.0) in asked
    assert [pair for pair in losses if pair[0] == 0.5] == [(0.5, 0.1), (0.5, 0.3)]


def test_what_is_known_besides_counts_as_an_end_of_the_grid():
    losses, loss, asked = bowl(0.1, [0.1])
    assert set(trained.grown(losses, loss, [(None, 0.03), (None, 0.3)])) == {(None, 0.1)} == set(asked)
    assert set(trained.grown(losses, loss, [(None, 0.3)])) == {(None, 0.03), (None, 0.1)}


def test_a_run_is_json_and_has_a_list_a_seed():
    found = json.loads(json.dumps(trained.tuned(**TINY), allow_nan=False))
    assert [None, found["step_size"]] in [pair for *pair, _ in found["tuning"]] and found["epochs_at"] == [0, 1, 2]
    for name in ("loss", "accuracy", "train_accuracy", "test_accuracy", "test_loss", "r", "size", "rank", "spread"):
        assert len(found[name]) == 3, name
    assert np.shape(found["loss"]) == (3, 2) and np.shape(found["r"]) == (3, 3)
    assert found["pretraining_passes"] == {"forward": 0, "backward": 0} and found["diverged_at"] == [-1] * 3


def test_a_slice_that_is_run_again_agrees_with_its_record_and_one_at_another_step_size_does_not():
    record = TINY | trained.tuned(**TINY)
    assert trained.distance(record, 2, 1) < 1e-3
    assert trained.distance(record | {"step_size": record["step_size"] / 10}, 2, 2) > 2


def test_of_several_tuning_seeds_the_first_sees_the_whole_grid_and_the_best_settings_are_tried_on_all():
    grid = [1e-2, 3e-2, 0.1, 0.3, 1.0]
    found, one = (trained.tuned(**TINY | {"tuning_seeds": s, "grid": grid}) for s in ([5, 6, 7], [5]))
    several, alone = ({eta: losses for _, eta, losses in run["tuning"]} for run in (found, one))
    for eta, (loss,) in alone.items():
        assert several[eta][0] == pytest.approx(loss, rel=1e-3) and len(several[eta]) in (1, 3)
    finalists = {eta: losses for _, eta, losses in found["tuning"] if len(losses) == 3}
    assert len(finalists) >= trained.FINALISTS and min(finalists, key=lambda k: sum(finalists[k])) == found["step_size"]


@pytest.mark.parametrize("extra", [{"start": "raised, 25 steps", "pretraining": [1e-3, 3e-3]}, {"warm_up": 1}])
def test_a_slice_repeats_pre_training_and_warm_up_as_a_table_of_runs_has_them(extra):
    record = TINY | {"epochs": 1} | extra
    table = pd.DataFrame([record | trained.tuned(**record), TINY | trained.tuned(**TINY)])
    first, second = table.to_dict("records")
    assert trained.distance(first, 2, 1) < 1e-3 and trained.distance(second, 2, 1) < 1e-3
    if "warm_up" in extra:
        assert trained.distance(first | {"warm_up": 0}, 2, 1) > 1e-3
    else:
        assert len(first["tuning"]) >= 4 and first["pretraining_step"] in extra["pretraining"]


def test_what_diverges_is_none_in_the_record_and_infinite_in_the_curve():
    options = {name: TINY[name] for name in ("depth", "width", "epochs", "batch_size", "every")}
    found = trained.followed("fashion_mnist", "plain", 1e30, [0, 1], **options)
    assert found["loss"][0][-1] is None and found["rank_end"] == [None, None]
    assert np.isinf(trained.curves(found["loss"], np.inf)[:, -1]).all()
    json.dumps(found, allow_nan=False)


def test_rescaling_gives_every_layer_the_size_of_the_other_network_and_leaves_r():
    x, _ = trained.samples("fashion_mnist")["train"]
    x = x.double()
    own, other, kept = (nets.MLP(784, 24, 4, 10, device="cpu").double() for _ in range(3))
    for net, scheme, number in ((own, "torch_default", 1), (kept, "torch_default", 1), (other, "he_normal", 2)):
        nets.initialize_(net, scheme, generator=inits.generator(number, "cpu"))
    trained.rescaled(own, other, x)
    with torch.no_grad():
        layers = list(zip(*(net.representations(x) for net in (own, other, kept)), strict=True))
    for mine, theirs, before in layers:
        assert float(mine.norm() / theirs.norm()) == pytest.approx(1)
        assert float(spectra.stable_rank(mine)) == pytest.approx(float(spectra.stable_rank(before)))


def test_even_sizes_are_one_in_every_layer_and_leave_r():
    options = {"depth": 4, "width": 24, "pretraining": 3e-3}
    x, _ = trained.samples("fashion_mnist")["train"]
    for even, before in (("plain, even sizes", "plain"), ("raised, even sizes", "raised, 75 steps")):
        ((one,), _), ((other,), _) = (
            trained.started("fashion_mnist", start, [1], **options) for start in (even, before)
        )
        with torch.no_grad():
            layers = list(zip(one.representations(x), other.representations(x), strict=True))
        for mine, theirs in layers:
            assert float(mine.square().mean()) == pytest.approx(1, rel=1e-4)
            assert float(spectra.stable_rank(mine)) == pytest.approx(float(spectra.stable_rank(theirs)), rel=1e-4)


def test_hes_scale_is_the_plain_draw_without_biases_and_with_the_variance_of_two_over_fan_in():
    (plain,), (he,) = (
        trained.started("fashion_mnist", start, [1], depth=3, width=128)[0] for start in ("plain", "He's scale")
    )
    for before, after in zip(plain.hidden, he.hidden, strict=True):
        assert not after[0].bias.any()
        torch.testing.assert_close(after[0].weight, before[0].weight * 6**0.5)
        assert float(after[0].weight.detach().var()) == pytest.approx(2 / after[0].in_features, rel=0.05)


@pytest.mark.parametrize("start", trained.STARTS)
def test_starts_of_one_seed_begin_at_the_same_draw_and_the_generator_alone_decides(start):
    options = {"depth": 2, "width": 16, "pretraining": 1e-3}
    (first,), passes = trained.started("fashion_mnist", start, [3], **options)
    (second,), _ = trained.started("fashion_mnist", start, [3], **options)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    batches = trained.STARTS[start].get("batches", 0)
    assert passes["backward"] == pytest.approx(5 * batches)
    (plain,), _ = trained.started("fashion_mnist", "plain", [3], **options)
    readout = first.readout.weight - (16**-0.5 if start.startswith("one-sided") else 0)
    torch.testing.assert_close(readout, plain.readout.weight)
