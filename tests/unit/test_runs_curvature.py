"""Walking a grid of step sizes to where training breaks, and what the recorded runs say."""

import json
import math

import pytest

from firststep.book.runs import curvature
from firststep.book.runs.curvature import _walk, largest_step
from firststep.constant_step import Trained


def outcome(last, largest=1.0):
    return Trained(1.0, last, largest, 0.5, 2.0)


def test_a_walk_finds_the_edge_to_one_step_of_the_grid():
    for edge in (-3, 0, 5, 7):
        found = _walk(lambda j, edge=edge: outcome(0.5 if -20 <= j <= edge else 1.0 if j < -20 else math.inf))
        assert largest_step(found, "trains") == edge and edge + 1 in found


def test_a_walk_ends_after_two_coarse_steps_beyond_the_edge_and_only_then():
    assert max(_walk(lambda j: outcome(0.5 if j <= -20 else 1.0))) == -12
    assert max(_walk(lambda j: outcome(1.0))) == curvature.COARSE[-1]


def test_a_network_that_dies_at_once_does_not_count_as_descending():
    found = {j: outcome(0.5 if j <= 0 else 1.0, 1.0 if j <= 0 or j >= 16 else 9.0) for j in (0, 8, 16)}
    assert found[16].descends and largest_step(found, "descends") == 0


@pytest.mark.parametrize("batch", [0, 10])
def test_an_experiment_is_json_and_the_same_again(batch):
    arguments = ("orthogonal", "tanh", "squared", 8, 2, 20, batch, 2, 2)
    found = curvature.experiment(*arguments)
    assert json.loads(json.dumps(found, allow_nan=False)) == found == curvature.experiment(*arguments)
    assert len(found["runs"]) == 2 and found["runs"][0] != found["runs"][1]
    assert ("beyond" in found["runs"][0]["named"]) == (batch == 0)


def test_a_digest_reads_edges_and_the_best_step_from_a_run():
    run = {
        "measured": 3.0,
        "grid": [[-4, 1.0, 0.4, 1.0, 0.5], [0, 1.0, 0.2, 1.5, 0.6], [4, 1.0, None, None, None]],
        "named": {"unit": [1.0, 1.0, 0.2, 1.5, 0.6], "rule": [9.0, 1.0, None, None, None]},
    }
    found = curvature.digest(run, "squared")
    assert (found["edge"], found["descent"], found["best"], found["best_step"]) == (1.0, 10**-0.5, 0.2, 1.0)
    assert found["inside"] and found["trains"] and found["trains_unit"] and not found["trains_rule"]
    assert found["last_rule"] == math.inf


def test_an_experiment_can_be_digested():
    found = curvature.experiment("orthogonal", "tanh", "squared", 8, 2, 20, 0, 5, 1)
    assert curvature.digest(found["runs"][0], "squared")["measured"] == found["runs"][0]["measured"]
