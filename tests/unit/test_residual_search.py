"""The recorded search over step sizes: a pure function with a rule for its end."""

import json
import math

import pytest
import torch

from firststep.book.runs import zero_asymmetric as runs

SMALL = {"depth": 2, "start": "mzas", "seeds": 2, "steps": 6, "warm_up": 0, "patience": 2, "batch": 3, "first": 0}


def test_the_images_are_a_hundred_of_each_class_as_columns():
    x, y = runs.thousand_images(torch.float64, "cpu")
    assert x.shape == (784, 1000) and x.dtype == torch.float64
    assert y.bincount().tolist() == [100] * 10


def test_a_search_is_repeatable_json_and_its_best_beats_what_it_tried():
    found = runs.residual_search(**SMALL, dtype="float32")
    again = runs.residual_search(**SMALL, dtype="float32")
    assert json.loads(json.dumps(found, allow_nan=False)) | {"microseconds": 0} == again | {"microseconds": 0}
    totals = [sum(a or 0.0 for a in one) for one in found["accuracy"]]
    assert totals[found["best"]] == max(totals) and len(totals) - 1 - found["best"] >= 2
    assert found["rates"] == pytest.approx([10 ** (-k / 2) for k in range(len(totals))])
    assert [len(curve) for curve in found["curve"]] == [2, 2]  # steps 0 and 5


def test_a_step_size_in_a_batch_is_the_step_size_alone():
    x, y = runs.thousand_images(torch.float64, "cpu")
    options = {"depth": 3, "start": "xavier", "seeds": 2, "steps": 3}
    together = runs.train(x, y, rates=[0.01, 0.001], **options)
    alone = runs.train(x, y, rates=[0.001], **options)
    torch.testing.assert_close(together.loss[:, 2:], alone.loss)


def test_the_summary_is_the_best_step_with_its_seeds():
    found = runs.residual_search(**SMALL, dtype="float32")
    best = runs.Best.of(found)
    lowest = min(
        range(len(found["loss"])), key=lambda k: (found["loss"][k].count(None), sum(x or 0 for x in found["loss"][k]))
    )
    assert best.rate == found["rates"][lowest] and best.inside == (0 < lowest < len(found["rates"]) - 1)
    assert best.accuracy.tolist() == found["accuracy"][lowest]
    assert best.curve.shape == ((2, 2) if lowest == found["best"] else (0, 0))
    assert best.finite == 2 * len(found["rates"])


def test_where_every_start_overflows_one_forward_pass_ends_the_search():
    found = runs.residual_search(**SMALL | {"depth": 1_200, "start": "xavier"}, dtype="float32")
    assert found["best"] is None and found["curve"] is None and found["diverged"] == [[0, 0]] * 3
    best = runs.Best.of(found)
    assert math.isnan(best.rate) and best.accuracy.tolist() == [0, 0] and best.finite == 0 and not best.inside


def test_a_step_that_leaves_all_seeds_finite_beats_one_with_lower_loss_that_does_not():
    curve = [[0.1], [0.2]]
    found = {"rates": [1.0, 0.1, 0.01], "accuracy": [[0.9, None], [0.5, 0.4], [0.6, 0.6]], "best": 2, "curve": curve}
    found |= {"loss": [[0.1, None], [1.0, 1.0], [2.0, 2.0]], "diverged": [[None, 4], [None, None], [None, None]]}
    best = runs.Best.of(found)
    assert best.rate == 0.1 and best.inside and best.accuracy.tolist() == [0.5, 0.4]
    assert best.curve.size == 0  # only the curve of the search's own best is recorded
