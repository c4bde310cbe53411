"""The recorded runs of convolutional networks: pure, JSON-able, and at the step sizes that their tuning found best."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from firststep import report
from firststep.book import recorded
from firststep.book.runs import convnets as runs

TINY = {
    "network": "vgg19", "width": 1 / 32, "data": "fashion", "images": 300, "step_size": 0.03, "steps": 4,
    "batch_size": 16, "every": 2, "seed": 0, "at_most": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return runs.train(**TINY | runs.ARMS["none"])


def test_a_run_is_a_pure_function_whose_result_is_json(tiny):
    again = runs.train(**TINY | runs.ARMS["none"])
    assert json.loads(json.dumps(tiny, allow_nan=False)) == again
    assert tiny["at"] == [0, 2, 4] and len(tiny["rank"]) == 3 and len(tiny["accuracy"]) == 2
    assert np.array(tiny["moved"]).shape == (10, 16) and 0 <= tiny["test"] <= 1 and tiny["diverged"] is None


def test_random_pixels_keep_the_labels_and_change_with_the_seed():
    x, y, source = runs.load("fashion", 50, 0)
    pixels, labels, _ = runs.load("fashion_pixels", 50, 0)
    assert torch.equal(y, labels) and not torch.equal(x, pixels) and "subset" in source
    assert not torch.equal(pixels, runs.load("fashion_pixels", 50, 1)[0])
    for images in (x, pixels):
        assert images.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(images.std((0, 2, 3)), torch.ones(3), atol=1e-4, rtol=0)


def test_a_run_that_diverges_ends_early_and_counts_as_chance():
    found = runs.train(**TINY | runs.ARMS["none"] | {"step_size": 1e30})
    assert found["diverged"] is not None and found["test"] is None and found["accuracy"][-1] is None
    table = pd.DataFrame([TINY | runs.ARMS["shallow"] | found])
    assert runs.last_pass(runs.of(table, "shallow")).tolist() == [0.1]
    assert np.isnan(runs.series(table, "accuracy")[-1, 0])


def test_an_arm_is_told_from_the_others_by_all_its_parameters():
    points = [arm | {"at": k} for k, arm in enumerate(runs.ARMS.values())]
    table = pd.DataFrame([point | {"seed": 0} for point in points])
    assert [int(runs.of(table, arm)["at"].iloc[0]) for arm in runs.ARMS] == list(range(len(runs.ARMS)))
    with pytest.raises(ValueError, match="arm must be"):
        runs.of(table, "standard", seed=7)


def test_runs_disagree_where_they_leave_the_spread_of_the_seeds():
    def run(rank, accuracy, seed):
        return {"rank": [rank, 0], "stable_rank": [2.0, 9], "accuracy": [0.0, accuracy], "seed": seed}

    table = pd.DataFrame([run(60, 0.5, 0), run(64, 0.6, 1)])
    assert runs.disagreement([run(60, 0.5, 0)], table) == 0
    assert runs.disagreement([run(62, 0.5, 0)], table) == pytest.approx(0.5)
    assert runs.disagreement([run(60, 0.5, 0), run(64, 0.35, 1)], table) == pytest.approx(2.5)


def test_a_run_that_is_made_again_agrees_with_itself_and_not_with_another(tiny):
    point = TINY | runs.ARMS["none"]
    table = pd.DataFrame([point | tiny])
    assert runs.rerun(table, 1) == pytest.approx(0, abs=1e-6)
    assert runs.rerun(table.assign(seed=3), 1) > 0


@pytest.mark.parametrize(
    ("sweep", "chosen", "sizes"),
    [
        ("vgg_tuning", runs.TUNED, runs.STEP_SIZES),
        ("vgg_longer_tuning", runs.TUNED_LONGER, runs.FINE),
        ("resnet_tuning", runs.TUNED_RESNET, runs.STEP_SIZES),
    ],
)
def test_every_arm_is_trained_at_the_step_size_that_its_tuning_found_best(sweep, chosen, sizes):
    table = recorded.load(f"rank_collapse/{sweep}")
    for arm, size in chosen.items():
        tried = runs.tried(table, arm)
        assert tuple(tried.index) == sizes and tried.idxmax() == size


def test_tuning_takes_the_mean_of_its_trial_seeds():
    point = TINY | runs.ARMS["none"]
    table = pd.DataFrame(
        [
            point | {"at_most": 4, "seed": seed, "step_size": size, "accuracy": [0.9, accuracy]}
            for seed, size, accuracy in ((0, 0.1, 0.2), (1, 0.1, 0.4), (0, 0.01, 0.5), (1, 0.01, None))
        ]
    )
    assert runs.tried(table, "none").to_dict() == pytest.approx({0.01: 0.3, 0.1: 0.3})


def test_a_difference_counts_only_where_its_interval_leaves_zero_out():
    for values, far in (([-1.0, 1.0, 0.5], False), ([2.0, 3.0, 2.5], True), ([-2.0, -3.0, -2.5], True)):
        difference = report.mean(values)
        assert runs.beyond(difference) == (max(-difference.low, difference.high) if far else 0)


def test_an_overview_has_means_a_geometric_mean_and_an_interval():
    start = {"stable_rank": [1.5, 9], "silent": [0.25, 9], "last": [1.0, 9]}
    rows = [
        start | {"rank": [rank, 9], "first": [first, 9], "accuracy": [0.1, accuracy]}
        for rank, first, accuracy in ((10, 1.0, 0.2), (20, 100.0, 0.4))
    ]
    half = report.mean([0.2, 0.4]).high - 0.3
    assert runs.overview(pd.DataFrame(rows)) == ["15", "1.50", "25%", "10", f"30.0% ± {half:.1%}"]
