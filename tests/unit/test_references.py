"""The bibliography can be read, every work that a page cites is in it, and no two things of the book share a label."""

import re
from collections import Counter
from pathlib import Path

import pytest
from pybtex.database import parse_file

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted([*BOOK.rglob("*.md"), *(p for p in BOOK.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)])


@pytest.fixture(scope="module")
def known():
    return set(parse_file(BOOK / "references.bib").entries)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(BOOK).as_posix())
def test_what_is_cited_is_in_the_bibliography(path, known):
    text = path.read_text(encoding="utf-8")
    cited = {key.strip() for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text) for key in group.split(",")}
    assert cited <= known


def test_a_label_names_one_thing():
    labels = re.compile(r"^\s*\"?:label: ([\w-]+)|^\s*\"?\$\$ \(([\w-]+)\)|^\s*\"?\(([\w-]+)\)=", re.MULTILINE)
    found = Counter("".join(names) for path in PAGES for names in labels.findall(path.read_text(encoding="utf-8")))
    assert len(found) > 100
    assert not [label for label, times in found.items() if times > 1]


def test_no_file_of_the_book_carries_the_marks_of_a_merge():
    marks = re.compile(r"^(<<<<<<<|>>>>>>>) ", re.MULTILINE)
    assert not [p for p in [*PAGES, BOOK / "references.bib", BOOK / "claims.yml"] if marks.search(p.read_text("utf-8"))]
