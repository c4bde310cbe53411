"""The rehearsal of the gpu scale: what a cell would take in full, and pages that do not fit."""

import json

import nbformat
import pytest

from firststep.book import claims, rehearse
from firststep.book.rehearse import growth


def notebook(folder, *cells):
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = folder / "page.ipynb"
    nbformat.write(made, path)
    return path


def test_naming_a_count_costs_nothing_and_using_it_costs_its_ratio():
    cells = ["seeds = scale.count(smoke=2, cpu=5, gpu=100)", "width = scale.pick(smoke=1, cpu=2, gpu=3)", "run(seeds)"]
    assert growth(cells) == [1, 1, 50]


def test_a_count_is_reached_through_the_functions_that_a_cell_calls():
    cells = [
        "steps = scale.count(smoke=10, cpu=100, gpu=1_000)",
        "def train(w):\n    return descend(w, steps)",
        "def grid():\n    return [train(w) for w in starts]",
        "draw = lambda: train(0)",
        "table = grid()",
        "draw()",
        "table.mean()",
    ]
    assert growth(cells) == [1, 1, 1, 1, 100, 100, 1]


def test_counts_that_one_statement_reaches_multiply_and_each_counts_once():
    cells = [
        "seeds, steps = scale.count(smoke=1, cpu=2, gpu=3), scale.count(smoke=1, cpu=2, gpu=5)",
        "run(seeds, steps, seeds)",
        "for k in range(scale.count(smoke=2, cpu=2, gpu=8)):\n    run(k)",
    ]
    assert growth(cells) == [1, 15, 4]


def test_a_cell_grows_as_its_most_growing_statement():
    cells = [
        "a, b = scale.count(smoke=1, cpu=1, gpu=3), scale.count(smoke=1, cpu=1, gpu=5)",
        "run(a)\nother(b)",
        "for _ in range(a):\n    first(b)\n    second()",
        "def both(n):\n    run(a)\n    return run(b)",
        "both(2)",
        "if a > 2:\n    run(b)\nelse:\n    run(a)",
    ]
    assert growth(cells) == [1, 5, 15, 1, 5, 15]


def test_a_tuple_of_counts_grows_as_its_largest_can():
    assert growth(["run(scale.count(smoke=(2, 4), cpu=(1, 2), gpu=(10, 40)))"]) == [20]


def test_a_count_that_is_not_written_out_is_refused():
    with pytest.raises(ValueError, match=r"written out in numbers, got scale\.count"):
        growth(["scale.count(smoke=1, cpu=n, gpu=n)"])


@pytest.mark.parametrize("page", rehearse.pages(claims.root()), ids=lambda page: page.stem)
def test_every_page_says_how_it_grows(page):
    cells = [cell.source for cell in nbformat.read(page, as_version=4).cells if cell.cell_type == "code"]
    assert min(growth(cells)) >= 1


def test_a_count_inside_a_computation_that_gets_a_name_costs_its_ratio():
    cells = ["x = draw(scale.count(smoke=1, cpu=2, gpu=7))", "seeds = range(scale.count(smoke=1, cpu=1, gpu=2))"]
    assert growth(cells) == [7, 1]


def test_functions_that_call_each_other_end():
    assert growth(["def a():\n    return b()", "def b():\n    return a()", "a()"]) == [1, 1, 1]


def test_a_rehearsal_has_the_sizes_of_the_gpu_scale_and_the_counts_of_smoke(tmp_path):
    path = notebook(
        tmp_path,
        "from firststep import scale\nassert scale.rehearsing() and scale.pick(smoke=1, cpu=2, gpu=3) == 3",
        "seeds = scale.count(smoke=1, cpu=2, gpu=3)\nassert seeds == 1",
    )
    found = rehearse.rehearse(path, tmp_path)
    assert found.error is None and found.ram > 10**7 and found.page == "page.ipynb"


def test_a_page_that_does_not_fit_ends_with_an_error_at_once(tmp_path):
    path = notebook(tmp_path, "import torch", "torch.empty(2**36, device='cpu').fill_(1)")
    found = rehearse.rehearse(path, tmp_path, available=16 * 2**30)
    assert "allocate" in found.error and "failed: code cell 2: RuntimeError" in rehearse.line(found)


def test_something_else_than_a_notebook_is_refused(tmp_path):
    with pytest.raises(ValueError, match="path must be a notebook"):
        rehearse.rehearse(tmp_path / "none.ipynb", tmp_path)


def test_a_page_is_kept_in_place_of_what_was_known_of_it_and_pages_that_are_no_more_are_dropped(tmp_path):
    (tmp_path / "book").mkdir()
    for name in "bc":
        (tmp_path / f"book/{name}.ipynb").touch()
    for name, seconds in (("b", 1.0), ("gone", 1.0), ("c", 60.0), ("b", 60.0)):
        rehearse.keep(rehearse.Rehearsal(f"book/{name}.ipynb", seconds, 600.0, 10**9, 0, None), tmp_path)
    kept = json.loads((tmp_path / "results/rehearsal.json").read_text())
    assert {page: row["seconds"] for page, row in kept.items()} == {"book/b.ipynb": 60.0, "book/c.ipynb": 60.0}
    text = (tmp_path / "results/rehearsal.md").read_text()
    assert "| b | 60 s | 1.0 GB | 10.0 min |" in text and "| 2.0 min | | 20.0 min |" in text


def test_every_page_of_the_book_was_rehearsed_and_the_table_says_so():
    root = claims.root()
    kept = json.loads((root / "results/rehearsal.json").read_text())
    assert set(kept) == {path.relative_to(root).as_posix() for path in rehearse.pages(root)}
    assert (root / "results/rehearsal.md").read_text() == rehearse.table(kept)


@pytest.mark.parametrize("seconds, text", [(3, "3 s"), (119, "119 s"), (150, "2.5 min"), (9_000, "2.5 h")])
def test_durations_read_well(seconds, text):
    assert rehearse.duration(seconds) == text


def test_a_page_whose_kernel_dies_is_a_row_that_names_the_cell(tmp_path):
    found = rehearse.rehearse(notebook(tmp_path, "import os", "os._exit(1)"), tmp_path)
    assert found.error == "code cell 2: Kernel died"


def test_a_panel_is_drawn_under_a_memory_limit_although_its_renderer_reserves_more_addresses(tmp_path):
    cell = "import vl_convert as v\nlen(v.vegalite_to_svg({'mark': 'point', 'data': {'values': [{}]}})) > 0"
    assert rehearse.rehearse(notebook(tmp_path, cell), tmp_path, available=8 * 2**30).error is None
