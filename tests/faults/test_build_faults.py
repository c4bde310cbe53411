"""Two builds in one folder, and builds whose parent is killed."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from firststep.book import lifetime

HOLD = "import sys, time\nfrom firststep.book import lifetime\nlifetime.alone(sys.argv[1])\nprint('held', flush=True)\n"
MAKEFILE = """\
SHELL := /bin/bash
.ONESHELL:
all:
\t"{python}" program.py
\ttrue
"""
PROGRAM = """
import os, time
from firststep.book import execute, lifetime
import nbformat
lifetime.end_with_make()
page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(
    "import os, time; open('kernel.pid', 'w').write(str(os.getpid())); time.sleep(60)")])
open("builder.pid", "w").write(str(os.getpid()))
from pathlib import Path
import tempfile
with tempfile.TemporaryDirectory(prefix="fs-") as sockets:
    execute.run(page, Path.cwd(), sockets + "/k", 60)
"""


def hold(folder):
    process = subprocess.Popen([sys.executable, "-c", HOLD + "time.sleep(60)", str(folder)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_build_in_a_folder_ends_at_once_with_a_sentence_and_the_lock_dies_with_its_owner(tmp_path):
    first = hold(tmp_path)
    with pytest.raises(lifetime.AnotherBuild, match="another build is running"):
        lifetime.alone(tmp_path)
    first.kill()
    first.wait()
    first.stdout.close()
    second = hold(tmp_path)
    second.kill()
    second.wait()
    second.stdout.close()


def test_a_process_may_ask_twice_for_the_lock_that_it_has(tmp_path):
    lifetime.alone(tmp_path)
    lifetime.alone(tmp_path)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = f"/proc/{pid}/stat"
    return not os.path.exists(stat) or open(stat).read().rsplit(")", 1)[1].split()[0] != "Z"


def wait_for(condition, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
@pytest.mark.parametrize("killed_by", [signal.SIGKILL, signal.SIGTERM])
def test_builder_and_kernel_end_within_seconds_of_the_make_that_started_them(tmp_path, killed_by):
    (tmp_path / "Makefile").write_text(MAKEFILE.format(python=sys.executable))
    (tmp_path / "program.py").write_text(PROGRAM)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    make = subprocess.Popen(["make"], cwd=tmp_path, start_new_session=True, **quiet)
    files = [tmp_path / "builder.pid", tmp_path / "kernel.pid"]
    assert wait_for(lambda: all(file.exists() and file.read_text() for file in files), 60)
    pids = [int(file.read_text()) for file in files]
    make.send_signal(killed_by)
    make.wait()
    try:
        assert wait_for(lambda: not any(map(alive, pids)), 10)
    finally:
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
