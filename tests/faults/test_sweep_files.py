"""The files of a sweep: cut short, damaged, half written; disks that are full."""

import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firststep.book import provenance, records, sweep


def square(x):
    return {"value": x * x}


def age(folder):
    """Make what a kill left an hour old; a younger temporary file could be that of a sweep which is alive."""
    for left in folder.glob(".*.tmp"):
        os.utime(left, (time.time() - 3600,) * 2)


# Half written


def test_a_resumed_sweep_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    points = sweep.grid(x=range(6))
    sweep.sweep(square, points, tmp_path / "whole")
    calls = []

    @functools.wraps(square)
    def interrupted(x):
        calls.append(x)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return square(x)

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(interrupted, points, tmp_path / "resumed")
    assert len(sweep.load(tmp_path / "resumed")) == 3
    sweep.sweep(square, points, tmp_path / "resumed")
    whole, resumed = (sweep.load(tmp_path / name) for name in ("whole", "resumed"))
    assert [(r["parameters"], r["result"]) for r in whole] == [(r["parameters"], r["result"]) for r in resumed]


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_between_writing_and_renaming_leaves_no_half_file_and_the_next_start_clears_up(tmp_path, moment):
    program = (
        "import os, signal, sys; from firststep.book import provenance; from pathlib import Path\n"
        f"os.{moment} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "provenance.write_json(Path(sys.argv[1]) / 'a.json', {'x': 1})\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"]
    assert sweep.load(tmp_path) == []
    sweep.sweep(square, [], tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".tmp"], "a young file may belong to a sweep that is alive"
    age(tmp_path)
    sweep.sweep(square, [{"x": 3}], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{sweep.key({'x': 3})}.json"]


def test_a_file_system_without_locks_costs_the_claims_and_nothing_else(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(records.fcntl, "flock", refuse)
    sweep.sweep(square, sweep.grid(x=[1, 2]), tmp_path)
    assert len(sweep.load(tmp_path)) == len(list(tmp_path.iterdir())) == 2


# Damaged files


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole + whole,
        lambda whole: os.urandom(64),
        lambda whole: b"\xff\xfe" + whole,
        lambda whole: b"null",
        lambda whole: b"[1, 2]",
        lambda whole: b'"run"',
        lambda whole: json.dumps({"parameters": {"x": 1}}).encode(),
        lambda whole: json.dumps({**json.loads(whole), "more": 1}).encode(),
        lambda whole: whole.replace(b'"x": 1', b'"x": 7'),
    ],
    ids=["empty", "half", "twice", "noise", "prefix", "null", "list", "text", "short", "more", "other-parameters"],
)
def test_a_damaged_file_is_never_taken_for_a_result_and_the_next_sweep_sets_it_aside_and_redoes_it(
    tmp_path, capsys, damage
):
    points = sweep.grid(x=[0, 1])
    sweep.sweep(square, points, tmp_path)
    path = tmp_path / f"{sweep.key({'x': 1})}.json"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match=f"got {re.escape(str(path))}, which is damaged"):
        sweep.load(tmp_path)
    sweep.sweep(square, points, tmp_path)
    assert f"{path} is damaged: set aside" in capsys.readouterr().err
    assert json.loads(path.read_bytes())["result"] == {"value": 1}
    assert path.with_suffix(".damaged").read_bytes() == damaged
    assert len(sweep.load(tmp_path)) == 2 and len(list(tmp_path.iterdir())) == 3


def test_a_file_under_the_name_of_another_run_is_damaged(tmp_path):
    sweep.sweep(square, [{"x": 1}], tmp_path)
    (tmp_path / f"{sweep.key({'x': 1})}.json").rename(tmp_path / f"{sweep.key({'x': 2})}.json")
    with pytest.raises(ValueError, match=f"{sweep.key({'x': 2})}.json, which is damaged"):
        sweep.load(tmp_path)
    sweep.sweep(square, [{"x": 2}], tmp_path)
    assert [r["result"] for r in sweep.load(tmp_path)] == [{"value": 4}]


# A disk that is full, a folder that is none


def test_a_full_disk_leaves_what_was_finished_and_no_half_file(tmp_path, monkeypatch):
    points, synced, fsync = sweep.grid(x=range(5)), [], os.fsync

    def full(descriptor):
        synced.append(descriptor)
        if len(synced) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(provenance.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        sweep.sweep(square, points, tmp_path)
    assert sorted(r["result"]["value"] for r in sweep.load(tmp_path)) == [0, 1, 4]
    assert len(list(tmp_path.iterdir())) == 3
    monkeypatch.undo()
    sweep.sweep(square, points, tmp_path)
    assert sorted(r["result"]["value"] for r in sweep.load(tmp_path)) == [0, 1, 4, 9, 16]


def test_a_write_that_the_system_cuts_short_leaves_no_half_file(tmp_path):
    """A limit on the size of files: the system takes a part of the bytes and refuses the rest."""
    program = (
        "import resource, signal, sys; from firststep.book import sweep\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, 4_096))\n"
        "try:\n"
        "    sweep.sweep(lambda n: {'zeros': [0] * n}, sweep.grid(n=[1, 2, 9_999, 3]), sys.argv[1])\n"
        "except OSError as error:\n"
        "    print(error.strerror)\n"
    )
    cut = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert cut.stdout.strip() == os.strerror(errno.EFBIG)
    assert sorted(r["parameters"]["n"] for r in sweep.load(tmp_path)) == [1, 2]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_is_a_file_is_an_error_of_the_system_that_names_it(tmp_path):
    path = Path(tmp_path / "runs")
    path.write_text("not a folder")
    with pytest.raises(OSError, match="runs"):
        sweep.sweep(square, [{"x": 1}], path)
    assert path.read_text() == "not a folder"
