"""A sweep: which runs a grid has, what their files are called and hold, and what a second start does."""

import hashlib
import json
import math
import time
from pathlib import Path

import pytest
import threadpoolctl
import torch
from hypothesis import given
from hypothesis import strategies as st

from firststep.book import code_version, provenance, sweep
from firststep.book.runs import rank_collapse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def other(x):
    return {"value": -x}


def square(x, power=2):
    return {"value": x**power}


def note(x, log):
    """A run that leaves a trace of being computed."""
    with open(log, "a") as file:
        file.write(f"{x}\n")
    return {"value": x * x}


def fail_at_two(x):
    if x == 2:
        raise RuntimeError("run 2 is broken")
    return {"value": x}


def note_or_fail(x, log, broken):
    """A run that leaves a trace, and that fails for 2 while a file is there."""
    note(x, log)
    if x == 2 and Path(broken).exists():
        raise OSError("not today")
    return {"value": x}


def draw(seed):
    """A run whose result is random but for its seed."""
    x = torch.randn(40, 40, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"sigma": torch.linalg.svdvals(x).tolist()}


def blas_threads(x):
    return {"threads": max(pool["num_threads"] for pool in threadpoolctl.threadpool_info())}


def results(folder):
    """What was computed, by the name of the file; without the seconds that it took."""
    return {path.name: r["result"] for path, r in zip(sorted(folder.glob("*.json")), sweep.load(folder), strict=True)}


# The grid


def test_a_grid_is_the_product_of_its_axes_and_its_last_axis_moves_fastest():
    assert sweep.grid(a=[1, 2], b="xy") == [
        {"a": 1, "b": "x"}, {"a": 1, "b": "y"}, {"a": 2, "b": "x"}, {"a": 2, "b": "y"},
    ]  # fmt: skip


def test_a_grid_without_axes_has_one_point_and_one_with_an_empty_axis_is_refused():
    assert sweep.grid() == [{}]
    with pytest.raises(ValueError, match=r"b must be a non-empty list of values, got b=\[\]"):
        sweep.grid(a=[1], b=[])


def test_an_axis_may_be_an_iterator():
    assert sweep.grid(a=(k * k for k in range(3)), b=range(1)) == [{"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 4, "b": 0}]


# The name of a run


@given(st.dictionaries(st.text(), JSON, max_size=4), st.randoms())
def test_the_key_is_sixteen_hexadecimal_digits_and_does_not_depend_on_the_order_of_the_arguments(point, rng):
    items = list(point.items())
    rng.shuffle(items)
    assert sweep.key(point) == sweep.key(dict(items))
    assert len(sweep.key(point)) == 16 and int(sweep.key(point), 16) >= 0


def test_the_key_depends_on_every_name_and_value():
    points = [{}, {"a": 1}, {"a": 2}, {"b": 1}, {"a": 1, "b": 1}, {"a": "1"}, {"a": [1]}, {"a": 1.5}, {"a": None}]
    assert len({sweep.key(point) for point in points}) == len(points)


def test_the_key_is_sha256_of_the_compact_json_with_sorted_names_as_the_recorded_runs_need():
    written = hashlib.sha256(rb'{"a":"\u03b3","b":[1,2.5]}').hexdigest()
    assert sweep.key({"b": [1, 2.5], "a": "γ"}) == written[:16]


@pytest.mark.parametrize("value", [math.inf, math.nan, {1, 2}, 1j, torch.ones(2), torch.float64, b"bytes"], ids=str)
def test_parameters_that_are_not_json_are_refused_before_anything_runs(value, tmp_path):
    with pytest.raises(ValueError, match="parameters must be JSON without infinity and nan, got"):
        sweep.key({"x": value})
    log = tmp_path / "log"
    with pytest.raises(ValueError, match="parameters must be JSON"):
        sweep.sweep(note, [{"x": 1, "log": str(log)}, {"x": value, "log": str(log)}], tmp_path / "runs")
    assert not log.exists()


# What a sweep leaves


def test_every_run_has_one_file_named_by_its_key_with_its_parameters_its_result_and_where_it_came_from(tmp_path):
    points = sweep.grid(x=[1, 2, 3], power=[2, 3])
    sweep.sweep(square, points, tmp_path, device="cpu", dtype="float64")
    assert {path.name for path in tmp_path.iterdir()} == {f"{sweep.key(point)}.json" for point in points}
    records = {sweep.key(record["parameters"]): record for record in sweep.load(tmp_path)}
    for point in points:
        record = records[sweep.key(point)]
        assert record["parameters"] == point
        assert record["result"] == square(**point)
        assert record["run"].endswith("test_sweep.square")
        origin = record["provenance"]
        assert origin["seconds"] >= 0 and origin["device"] == "cpu" and origin["versions"] == provenance.versions()
        assert (
            origin["threads"] == 1 and origin["dtype"] == "float64" and origin["code"] == code_version.version(square)
        )
        assert time.strptime(origin["finished"], "%Y-%m-%dT%H:%M:%SZ")


def test_a_second_start_computes_only_what_is_missing(tmp_path):
    log, runs = tmp_path / "log", tmp_path / "runs"
    sweep.sweep(note, sweep.grid(x=[1, 2, 3], log=[str(log)]), runs)
    before = {path.name: path.stat().st_mtime_ns for path in runs.iterdir()}
    sweep.sweep(note, sweep.grid(x=[1, 2, 3, 4], log=[str(log)]), runs)
    assert log.read_text().split() == ["1", "2", "3", "4"]
    assert before.items() <= {path.name: path.stat().st_mtime_ns for path in runs.iterdir()}.items()
    assert sorted(r["value"] for r in results(runs).values()) == [1, 4, 9, 16]


def test_only_the_runs_whose_files_were_deleted_are_computed_again_and_their_results_are_the_same(tmp_path):
    points = sweep.grid(seed=[0, 1, 2, 3])
    sweep.sweep(draw, points, tmp_path)
    whole = results(tmp_path)
    for point in points[1:3]:
        (tmp_path / f"{sweep.key(point)}.json").unlink()
    sweep.sweep(draw, points, tmp_path)
    assert results(tmp_path) == whole


def test_the_number_of_workers_does_not_change_the_results(tmp_path):
    points = sweep.grid(seed=[0, 1, 2, 3])
    for workers in (1, 2):
        sweep.sweep(draw, points, tmp_path / str(workers), workers=workers)
    assert results(tmp_path / "1") == results(tmp_path / "2")


def test_a_run_uses_one_thread(tmp_path):
    with threadpoolctl.threadpool_limits(2):
        sweep.sweep(blas_threads, [{"x": 1}], tmp_path)
    assert sweep.load(tmp_path)[0]["result"] == {"threads": 1}


def test_one_worker_starts_the_points_in_their_order(tmp_path):
    log = tmp_path / "log"
    sweep.sweep(note, sweep.grid(x=[3, 1, 2], log=[str(log)]), tmp_path / "runs")
    assert log.read_text().split() == ["3", "1", "2"]


def test_an_empty_sweep_does_nothing_and_an_empty_folder_holds_nothing(tmp_path):
    sweep.sweep(square, [], tmp_path)
    assert sweep.load(tmp_path) == []


def test_a_run_that_fails_leaves_its_traceback_and_the_others_are_computed(tmp_path):
    points = sweep.grid(x=[1, 2, 3])
    with pytest.raises(sweep.RunsFailed, match=r"1 of 3 runs failed.*RuntimeError: run 2 is broken.*RETRY=1") as caught:
        sweep.sweep(fail_at_two, points, tmp_path)
    assert sorted(r["result"]["value"] for r in sweep.load(tmp_path)) == [1, 3]
    assert caught.value.failed == [tmp_path / f"{sweep.key({'x': 2})}.failed"]
    failure = json.loads(caught.value.failed[0].read_text(encoding="utf-8"))
    assert failure["parameters"] == {"x": 2} and 'raise RuntimeError("run 2 is broken")' in failure["traceback"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".failed"}


def test_what_failed_is_passed_over_and_counted_until_it_is_retried(tmp_path):
    log, broken = tmp_path / "log", tmp_path / "broken"
    broken.touch()
    points = sweep.grid(x=[1, 2, 3], log=[str(log)], broken=[str(broken)])
    for _ in range(2):
        with pytest.raises(sweep.RunsFailed, match="1 of 3 runs failed"):
            sweep.sweep(note_or_fail, points, tmp_path / "runs")
    broken.unlink()
    with pytest.raises(sweep.RunsFailed):
        sweep.sweep(note_or_fail, points, tmp_path / "runs")
    assert log.read_text().split() == ["1", "2", "3"]
    sweep.sweep(note_or_fail, points, tmp_path / "runs", retry=True)
    assert log.read_text().split() == ["1", "2", "3", "2"]
    assert {path.suffix for path in (tmp_path / "runs").iterdir()} == {".json"} and len(results(tmp_path / "runs")) == 3


# Bad calls


def test_the_results_of_another_function_do_not_pass_for_those_of_this_one(tmp_path):
    sweep.sweep(square, [{"x": 2}], tmp_path)
    with pytest.raises(ValueError, match=r"folder must hold runs of one function, .*other, got .*square"):
        sweep.sweep(other, [{"x": 2}], tmp_path)


def test_a_function_that_moves_to_another_module_keeps_its_results(tmp_path, monkeypatch):
    sweep.sweep(square, [{"x": 2}], tmp_path)
    before = next(tmp_path.iterdir()).stat().st_mtime_ns
    monkeypatch.setattr(square, "__module__", "math")
    sweep.sweep(square, [{"x": 2}], tmp_path)
    assert next(tmp_path.iterdir()).stat().st_mtime_ns == before


def test_a_worker_with_other_code_than_the_sweep_stops_it(tmp_path, monkeypatch):
    versions = iter(["0123456789abcdef", "fedcba9876543210"])
    monkeypatch.setattr(code_version, "version", lambda run: next(versions))
    point = {"d": 3, "samples": 2, "count": 2, "depth": 8, "burn_in": 0, "blocks": 2, "seed": 0}
    with pytest.raises(RuntimeError, match="wide_exponents must be the same code for all workers"):
        sweep.sweep(rank_collapse.wide_exponents, [point], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_point_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="points must be distinct"):
        sweep.sweep(square, [{"x": 1, "power": 2}, {"power": 2, "x": 1}], tmp_path)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_the_number_of_workers_must_be_a_positive_integer(workers, tmp_path):
    with pytest.raises(ValueError, match="workers must be a positive integer"):
        sweep.sweep(square, [{"x": 1}], tmp_path, workers=workers)


@pytest.mark.parametrize("result", [math.nan, math.inf, torch.ones(1), {1}], ids=str)
def test_a_result_that_is_not_json_counts_as_a_failure(result, tmp_path):
    with pytest.raises(sweep.RunsFailed, match="content must be JSON without infinity and nan"):
        sweep.sweep(lambda x: {"value": result}, [{"x": 1}], tmp_path)
    assert sweep.load(tmp_path) == []
