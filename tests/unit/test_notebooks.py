"""What a committed notebook may hold."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(path for path in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts)
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.relative_to(ROOT / "book").as_posix())


def code_cells(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def calls(tree, name):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == name]


@notebooks
def test_it_carries_no_outputs_and_no_counts(path):
    assert not [cell for cell in code_cells(path) if cell["outputs"] or cell["execution_count"] is not None]
    assert "widgets" not in json.loads(path.read_text(encoding="utf-8"))["metadata"]


@notebooks
def test_it_runs_in_the_kernel_that_every_installation_has(path):
    assert json.loads(path.read_text(encoding="utf-8"))["metadata"]["kernelspec"]["name"] == "python3"


@notebooks
def test_a_page_that_settles_claims_lets_no_cell_fail(path):
    cells = code_cells(path)
    settles = any("settle(" in "".join(cell["source"]) for cell in cells)
    assert not (settles and [c for c in cells if "raises-exception" in c["metadata"].get("tags", [])])


@notebooks
def test_generators_live_on_the_device_that_the_scale_chooses(path):
    for cell in code_cells(path):
        assert not calls(ast.parse("".join(cell["source"])), "torch.Generator")


@notebooks
def test_every_choice_of_a_size_or_a_count_names_one_for_the_gpu(path):
    for cell in code_cells(path):
        tree = ast.parse("".join(cell["source"]))
        for call in calls(tree, "scale.pick") + calls(tree, "scale.count"):
            assert {keyword.arg for keyword in call.keywords} == {"smoke", "cpu", "gpu"}, ast.unparse(call)


def test_no_page_types_how_many_claims_or_modules_there_are():
    counted = re.compile(r"\b\d{2,} (claims|verdicts|modules|notebooks)\b")
    prose = [path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"]  # it tells what was
    texts = [*prose, *(ROOT / "book").rglob("*.md"), *NOTEBOOKS]
    found = {path.name: counted.findall(path.read_text(encoding="utf-8")) for path in texts}
    assert not {name: words for name, words in found.items() if words}


# The second form of a page


def tags(cell):
    return cell["metadata"].get("tags", [])


def lines(cell):
    return [line for line in "".join(cell["source"]).splitlines() if line.strip()]


SETTLING = [path for path in NOTEBOOKS if any("settle(" in "".join(c["source"]) for c in code_cells(path))]
settling = pytest.mark.parametrize("path", SETTLING, ids=lambda path: path.relative_to(ROOT / "book").as_posix())


@settling
def test_a_page_settles_at_most_four_claims(path):
    assert 1 <= sum("".join(cell["source"]).count("settle(\n") for cell in code_cells(path)) <= 4


@settling
def test_one_cell_shows_the_picture_that_carries_the_idea(path):
    assert sum("lead" in tags(cell) for cell in code_cells(path)) == 1


@settling
def test_at_most_two_short_cells_stay_open(path):
    opened = [cell for cell in code_cells(path) if "open" in tags(cell)]
    assert len(opened) <= 2
    assert all(len(lines(cell)) <= 12 for cell in opened)


MACHINERY = re.compile(r"^(import |from |assert |\w+\.show\(\))|\b(glue|settle)\(", re.MULTILINE)


@settling
def test_a_cell_says_what_it_does_and_fits_on_a_screen_unless_it_lists_evidence(path):
    for cell in code_cells(path):
        source = "".join(cell["source"])
        assert source.startswith("# ") or MACHINERY.search(source), source[:80]
        assert len(lines(cell)) <= 30 or "settle(" in source, source[:80]


@settling
def test_the_first_cell_asks_a_question_names_the_claims_and_one_number(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first = "".join(cells[0]["source"])
    assert first.startswith("# ") and re.search(r"^\*.+\?\*$", first, re.MULTILINE)
    assert ":class: headline" in first and re.search(r"Claims? on this page", first)


@notebooks
def test_numbers_of_the_text_come_through_the_book_s_own_glue(path):
    assert not [cell for cell in code_cells(path) if "from myst_nb import glue" in "".join(cell["source"])]
