"""Two wings: the mathematics needs torch, numpy and scipy; the press imports it, never the other way round."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import firststep

PACKAGE = Path(firststep.__file__).parent
MATHEMATICS = sorted(path for path in PACKAGE.glob("*.py"))
ALLOWED = {"torch", "numpy", "scipy", "firststep"} | set(sys.stdlib_module_names)
PRESS = ("altair", "matplotlib", "pandas", "IPython", "ipywidgets", "yaml", "myst_nb", "vl_convert", "joblib", "tqdm")


def imports(node):
    for child in ast.walk(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)


@pytest.mark.parametrize("path", MATHEMATICS, ids=lambda path: path.stem)
def test_the_mathematics_never_imports_the_press(path):
    names = set(imports(ast.parse(path.read_text(encoding="utf-8"))))
    assert not [name for name in names if name == "firststep.book" or name.startswith("firststep.book.")]


@pytest.mark.parametrize("path", MATHEMATICS, ids=lambda path: path.stem)
def test_the_mathematics_imports_torch_numpy_scipy_and_the_standard_library(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert {name.split(".")[0] for name in imports(top)} <= ALLOWED


def test_the_mathematics_imports_where_nothing_of_the_press_is_installed():
    modules = ", ".join(f"firststep.{path.stem}" for path in MATHEMATICS if path.stem != "__init__")
    program = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PRESS}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import {modules}
assert "scipy.stats" not in sys.modules and "firststep.book" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_page_without_a_panel_does_not_load_what_draws_panels():
    heavy = ("altair", "ipywidgets", "vl_convert", "scipy.stats")
    program = f"""
import sys
from firststep.book import figures
from firststep.book.claims import settle
assert not [name for name in {heavy} if name in sys.modules]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_panel_does_not_cost_a_grammar_of_addresses_and_others_can_still_have_it():
    program = """
import sys
from firststep.book import explore
assert "altair" in sys.modules and "rfc3987_syntax" not in sys.modules
import rfc3987_syntax
"""
    subprocess.run([sys.executable, "-c", program], check=True)
