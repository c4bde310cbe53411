"""Sweeps that are killed or interrupted, and two sweeps on one folder."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest

from firststep.book import claims, recorded, sweep

RUNS, KILLS = 250, 22
# The sweep as `make results` runs it, of runs that take a minute.
PROGRAM = """
import sys, time
from pathlib import Path
from firststep.book import claims, recorded, sweep

def run(x, log):
    with open(log, "a") as file:
        file.write(f"{x}\\n")
    time.sleep(60)
    return {"value": x}

if __name__ == "__main__":
    root, log, engine = sys.argv[1:]
    claims.root = lambda: Path(root)
    recorded.SWEEPS = {"toy/slow": (run, sweep.grid(x=range(6), log=[log]))}
    sys.argv[1:] = ["--workers", "2", "--engine", engine]
    recorded.command()
"""


def note(seed, log):
    """A run of some milliseconds that writes some ten kilobytes, so that a kill often falls into the writing."""
    numbers = random.Random(seed)
    with open(log, "a") as file:
        file.write(f"{seed}:{os.getpid()}\n")
    time.sleep(0.002)
    return {"values": [numbers.random() for _ in range(2_000)]}


def die_once(x, mark):
    if x == 1 and not os.path.exists(mark):
        open(mark, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": x}


def run_sweep(folder, log, runs):
    sweep.sweep(note, sweep.grid(seed=range(runs), log=[str(log)]), folder)


@pytest.fixture(scope="module")
def start():
    """Start a sweep in a process of its own, a fork of one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["firststep.book.sweep"])

    def started(*arguments):
        process = context.Process(target=run_sweep, args=arguments)
        process.start()
        return process

    return started


def lines(log):
    return log.read_text().split() if log.exists() else []


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def results(folder):
    """Every file under a final name, read in full; a half file would not pass."""
    return {r["parameters"]["seed"]: r["result"] for r in (sweep.load(folder) if folder.exists() else [])}


# Killed


def test_a_sweep_killed_at_random_moments_ends_like_one_that_was_not_and_nothing_is_lost_or_done_twice(start, tmp_path):
    folder, log, rng, kept = tmp_path / "runs", tmp_path / "log", random.Random(0), {}
    for _ in range(KILLS):
        process, more = start(folder, log, RUNS), len(lines(log)) + rng.randrange(1, 9)
        wait_until(lambda more=more: len(lines(log)) >= more)
        time.sleep(rng.uniform(0, 0.02))  # somewhere between computing, writing and renaming
        assert process.is_alive(), "the sweep was over before the kill, which so tests nothing"
        process.kill()
        process.join()
        now = results(folder)
        assert kept.items() <= now.items() and len(now) < RUNS
        kept = now
    process = start(folder, log, RUNS)
    process.join()
    assert process.exitcode == 0
    run_sweep(tmp_path / "whole", tmp_path / "other", RUNS)
    assert results(folder) == results(tmp_path / "whole") and len(results(folder)) == RUNS
    assert {path.suffix for path in folder.iterdir()} <= {".json", ".tmp"}  # the claims of the killed are gone
    # A run is computed again only if its kill came before its file: at most one a kill.
    assert RUNS <= len(lines(log)) <= RUNS + KILLS


def test_a_process_that_dies_under_a_run_ends_the_sweep_and_the_next_one_finishes_it(tmp_path, monkeypatch, capsys):
    mark = tmp_path / "mark"
    points = sweep.grid(x=[0, 1, 2, 3], mark=[str(mark)])
    monkeypatch.setattr(claims, "root", lambda: tmp_path)
    monkeypatch.setattr(recorded, "SWEEPS", {"toy/deadly": (die_once, points)})
    assert recorded.main(["--workers", "2"]) == 1
    assert "What was finished stays" in capsys.readouterr().err and mark.exists()
    assert recorded.main(["--workers", "1"]) == 0
    assert len(sweep.load(tmp_path / "results" / "toy" / "deadly")) == 4


# Two sweeps


def test_two_sweeps_on_one_folder_share_the_work_and_do_nothing_twice(start, tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    both = [start(folder, log, 200) for _ in range(2)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    seeds, processes = zip(*(line.split(":") for line in lines(log)), strict=True)
    assert sorted(map(int, seeds)) == list(range(200)) == sorted(results(folder))
    assert len(set(processes)) == 2, "one of them came too late to test anything"
    assert {path.suffix for path in folder.iterdir()} == {".json"}


def test_a_sweep_waits_for_the_runs_of_another_and_takes_them_over_if_that_is_killed(start, tmp_path):
    folder, log = tmp_path / "runs", tmp_path / "log"
    first = start(folder, log, 40)
    wait_until(lambda: len(lines(log)) > 3)
    os.kill(first.pid, signal.SIGSTOP)  # alive, with a claim or between two
    second = start(folder, log, 40)
    wait_until(lambda: len(results(folder)) >= 39)
    first.kill()
    second.join()
    assert second.exitcode == 0 and len(results(folder)) == 40 <= len(lines(log)) <= 41


# Interrupted


def heed_ctrl_c():
    """As in a terminal: what a shell starts in the background ignores Ctrl-C, and all its children do."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    "engine, number, whole_group, code",
    [
        ("joblib", signal.SIGINT, True, 130),  # Ctrl-C in a terminal
        ("joblib", signal.SIGTERM, False, 143),
        ("joblib", signal.SIGKILL, False, -9),
        ("dask", signal.SIGINT, True, 130),
    ],
)
def test_a_sweep_that_is_ended_leaves_no_process(tmp_path, engine, number, whole_group, code):
    program, log = tmp_path / "program.py", tmp_path / "log"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path), str(log), engine]
    leader = subprocess.Popen(
        command, start_new_session=True, stderr=subprocess.PIPE, text=True, preexec_fn=heed_ctrl_c
    )
    wait_until(lambda: len(lines(log)) == 2)
    children = psutil.Process(leader.pid).children(recursive=True)
    assert len(children) >= 2
    (os.killpg if whole_group else os.kill)(leader.pid, number)
    shown = leader.communicate(timeout=60)[1]
    assert leader.returncode == code, shown
    assert number != signal.SIGINT or "stopped; what was finished stays" in shown
    assert psutil.wait_procs(children, timeout=10)[1] == []
