"""The reference has a page for every module, and no page for what is gone."""

import ast
import pkgutil
import re
from pathlib import Path

import pytest

import firststep
import firststep.book

API = Path(__file__).parents[2] / "book" / "api"


def modules():
    found = {module.name for module in pkgutil.iter_modules(firststep.__path__) if not module.ispkg}
    press = {f"book.{module.name}" for module in pkgutil.iter_modules(firststep.book.__path__) if not module.ispkg}
    return found | press


def test_every_module_has_a_page_and_every_page_a_module():
    assert {page.stem for page in API.glob("*.md")} - {"index"} == modules()


def test_a_page_shows_the_module_that_it_is_named_after():
    for page in API.glob("*.md"):
        if page.stem != "index":
            shown = re.findall(r"automodule:: (\S+)", page.read_text(encoding="utf-8"))
            assert shown == [f"firststep.{page.stem}"]


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


@pytest.mark.parametrize("path", sorted(Path(firststep.__file__).parent.rglob("*.py")), ids=lambda path: path.stem)
def test_no_docstring_has_bars_that_sphinx_takes_for_a_substitution(path):
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, DOCUMENTED)]
    texts = [re.sub(r"``.*?``", "", ast.get_docstring(node) or "", flags=re.DOTALL) for node in nodes]
    assert [found for text in texts for found in re.findall(r"(?<!\w)\|[^\s|].{,20}", text)] == []
