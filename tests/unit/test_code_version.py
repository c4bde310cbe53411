"""The code version of a run: what changes it, and what does not."""

import importlib
import subprocess
import sys

import pytest

from firststep.book import code_version
from firststep.book.runs import rank_collapse

RUN = '''
"""A module."""
import functools
import math

from firststep import checks, spectra
from firststep.toy_base import SCALE as size, unused

LIMIT = 3
LIMIT += 1
OTHER = 1


class State:
    """A state."""

    def value(self, x):
        return helper(x)


def helper(x):
    """Doubled."""
    return 2 * x * size  # a remark


def run(x):
    """A run."""
    from firststep import toy_late

    return {"value": State().value(x) + LIMIT + toy_late.late(x) + math.pi}


def not_reached():
    return OTHER
'''
BASE = """
SCALE = unit = 2
SCALE *= unit

if SCALE > 3:
    unit = 7


def unused():
    return 1
"""
LATE = """
TABLE = {}
TABLE["a"] = 1


def late(x):
    return x * TABLE["a"]


def other(x):
    return -x
"""


@pytest.fixture
def version(tmp_path, monkeypatch):
    """The version of ``run`` in a package of three modules, of which the keywords replace texts."""
    monkeypatch.setattr(code_version, "PACKAGE", tmp_path)

    def made(old="", new=""):
        for name, text in {"toy": RUN, "toy_base": BASE, "toy_late": LATE}.items():
            assert not old or old in RUN + BASE + LATE
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text, encoding="utf-8")
        code_version._names.cache_clear()
        found = code_version.reached("firststep.toy", "run", tmp_path / "toy.py")
        return {name: shape for (_, name), shape in found.items()}

    yield made
    code_version._names.cache_clear()


@pytest.mark.parametrize(
    "old, new",
    [
        ('"""A run."""', '"""Another word."""'),
        ('"""Doubled."""\n', "\n"),
        ('"""A state."""\n', "\n"),
        ("  # a remark", ""),
        ("2 * x * size", "(2 * x) * size"),
        ("OTHER = 1", "OTHER = 2"),
        ("return OTHER", "return 0"),
        ("return -x", "return 7"),
        ("def unused():\n    return 1", "def unused():\n    return 2"),
        ("def not_reached", "def new():\n    pass\n\n\ndef not_reached"),
    ],
)
def test_words_layout_and_what_a_run_cannot_reach_do_not_change_its_version(version, old, new):
    assert version(old, new) == version()


@pytest.mark.parametrize(
    "old, new",
    [
        ("2 * x * size", "3 * x * size"),
        ("LIMIT = 3", "LIMIT = 4"),
        ("LIMIT += 1", "LIMIT += 2"),
        ("unit = 2", "unit = 3"),
        ("SCALE *= unit", "SCALE /= unit"),
        ("return helper(x)", "return x"),
        ("return x * TABLE", "return x + TABLE"),
        ('TABLE["a"] = 1', 'TABLE["a"] = 2'),
        ("SCALE > 3", "SCALE > 4"),
        ("math.pi", "math.tau"),
        ("def run(x)", "def run(x, y=1)"),
    ],
)
def test_whatever_a_run_reaches_changes_its_version(version, old, new):
    assert version(old, new) != version()


def test_a_run_reaches_what_it_names_and_no_more(version):
    assert set(version()) == {"run", "State", "helper", "LIMIT", "late", "SCALE", "unit", "TABLE", ""}


def test_recorded_runs_reach_the_mathematics_and_not_the_machinery():
    run = rank_collapse.depth_average
    path = importlib.import_module(run.__module__).__file__
    found = code_version.reached(run.__module__, run.__name__, code_version.Path(path))
    assert {("firststep.chain", "Chain"), ("firststep.states", "State"), ("firststep.chain", "LAWS")} <= set(found)
    assert not [module for module, _ in found if module in ("firststep.book.sweep", "firststep.book.recorded")]


def test_the_version_is_the_same_in_another_process_and_none_without_a_source():
    program = (
        "from firststep.book import code_version\nfrom firststep.book.runs import rank_collapse\n"
        "print(code_version.version(rank_collapse.depth_average))\nprint(code_version.version(lambda: 1))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert told == [code_version.version(rank_collapse.depth_average), "None"]
