"""The recorded long runs: their grids, their files, and what they compute."""

import json
import shutil

import numpy as np
import pytest
import torch

from firststep import chain, inits
from firststep.book import claims, code_version, recorded, sweep
from firststep.book.runs import rank_collapse

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.mark.parametrize("name", recorded.SWEEPS)
def test_a_sweep_is_named_by_chapter_and_run_and_its_points_are_distinct(name):
    chapter, run = name.split("/")
    assert (claims.root() / "book" / chapter).is_dir() and run.isidentifier()
    points = recorded.SWEEPS[name][1]
    assert len({sweep.key(point) for point in points}) == len(points)


@pytest.mark.parametrize("name", recorded.SWEEPS)
def test_every_run_of_the_grid_is_recorded_and_nothing_else(name):
    points = recorded.SWEEPS[name][1]
    assert len(recorded.load(name)) == len(points)
    assert {path.stem for path in recorded.folder(name).glob("*.json")} == {sweep.key(point) for point in points}


def test_a_table_has_numbers_where_json_has_words():
    table = recorded.load("rank_collapse/fig3a")
    assert table.gamma.max() == float("inf") and (table.seconds > 0).all()
    assert table.sort_values(["gamma", "d", "seed"]).index.equals(table.index)


@pytest.fixture
def copy(tmp_path, monkeypatch):
    folder = tmp_path / "results" / "rank_collapse" / "invariant"
    shutil.copytree(recorded.folder("rank_collapse/invariant"), folder)
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    return folder


def test_a_run_that_is_missing_is_said_with_the_command_that_makes_it(copy):
    next(copy.glob("*.json")).unlink()
    with pytest.raises(ValueError, match=r"got 1 missing: run make results"):
        recorded.load("rank_collapse/invariant")


def test_a_damaged_file_is_named(copy):
    damaged = next(copy.glob("*.json"))
    damaged.write_text(damaged.read_text(encoding="utf-8")[:100], encoding="utf-8")
    with pytest.raises(ValueError, match=damaged.stem):
        recorded.load("rank_collapse/invariant")


def test_a_record_of_other_code_is_shown_as_such_and_one_without_a_version_too(copy, capsys):
    files = sorted(copy.glob("*.json"))
    today = code_version.version(rank_collapse.depth_average)
    for path, code in zip(files, [today, "0123456789abcdef"], strict=False):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["provenance"]["code"] = code
        path.write_text(json.dumps(record), encoding="utf-8")
    table = recorded.load("rank_collapse/invariant")
    assert table.code.value_counts().to_dict() == {"unknown": len(files) - 2, "today": 1, "other": 1}
    shown = capsys.readouterr().out
    assert f"1 of {len(files)} runs were recorded with other code than today's" in shown
    assert f"{len(files) - 2} of {len(files)} runs were recorded before code versions were kept" in shown


def test_make_results_says_of_each_sweep_what_there_is_and_fails_if_a_run_failed(monkeypatch, tmp_path, capsys):
    def run(x):
        return {"value": 1 / x}

    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    monkeypatch.setattr(recorded, "SWEEPS", {"toy/broken": (run, sweep.grid(x=[0, 1])), "toy/good": (run, [{"x": 2}])})
    assert recorded.main([]) == 1
    shown = capsys.readouterr()
    assert shown.out == "toy/good: 1 of 1 runs were recorded with today's code\n"
    assert "toy/broken: 1 of 2 runs failed" in shown.err and "ZeroDivisionError" in shown.err
    assert recorded.main(["toy/good"]) == 0


def test_an_unknown_sweep_is_named_with_the_known_ones(capsys):
    with pytest.raises(ValueError, match="rank_collapse/fig3a"):
        recorded.folder("fig3a")
    with pytest.raises(SystemExit):
        recorded.main(["fig3a"])
    assert "rank_collapse/fig3a" in capsys.readouterr().err


def test_a_recorded_run_is_the_depth_average_of_the_chain():
    found = rank_collapse.depth_average(
        gamma="inf", d=3, law="gaussian", depth=40, burn_in=5, every=5, blocks=2, seed=7, dtype="float64"
    )
    g = inits.generator(7, device="cpu")
    x = torch.randn(3, 3, generator=g, dtype=torch.float64)
    options = {"depth": 40, "burn_in": 5, "every": 5, "blocks": 2, "measure": rank_collapse.MEASURES}
    direct = chain.depth_average(chain.Chain(gamma=float("inf"), law="gaussian"), x, generator=g, **options)
    assert found["stable_rank"] == direct.blocks["stable_rank"][:, 0].tolist()
    assert json.loads(json.dumps(found)) == found


def test_averages_count_blocks_as_independent():
    mean, error = rank_collapse.average(np.array([[[1.0, 2.0], [3.0, 2.0]]]))
    np.testing.assert_allclose(mean, [2.0, 2.0])
    np.testing.assert_allclose(error, [1.0, 0.0])


def test_the_regularity_constant_is_a_ratio_of_means_and_exact_if_the_ratio_is_constant():
    cube = np.array([[1.0, 2.0, 5.0]])
    alpha, error = rank_collapse.regularity_constant(np.stack([0.25 * cube, cube], -1))
    assert alpha == pytest.approx(0.25) and error == pytest.approx(0)


def test_blocks_that_alternate_are_anticorrelated_and_a_trend_is_correlated():
    assert rank_collapse.neighbour_correlation(np.array([[1.0, -1.0] * 10])) < -0.9
    assert rank_collapse.neighbour_correlation(np.arange(20.0)[None]) > 0.8


def test_a_fresh_run_is_the_recorded_one_with_its_seed():
    point = rank_collapse.INVARIANT[-1] | {"depth": 40, "burn_in": 20, "blocks": 2, "every": 10, "d": 8}
    step = chain.Chain(point["gamma"], point["law"])
    found = rank_collapse.fresh(step, 8, seeds=[point["seed"], 77], depth=40, burn_in=20, blocks=2)
    expected = rank_collapse.depth_average(**point)
    np.testing.assert_allclose(found["stable_rank"][0], expected["stable_rank"])


def test_a_table_splits_into_its_settings():
    table = recorded.load("rank_collapse/invariant")
    found = rank_collapse.by_setting(table)
    assert len(found) == len(table) // table.seed.nunique()
    assert found[1.0, 8]["regularity_terms"].shape == (table.seed.nunique(), table.blocks[0], 2)
