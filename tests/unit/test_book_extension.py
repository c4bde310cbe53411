"""The builder's own part: what re-runs a page, how verdicts travel, and what a page loads."""

import importlib
import importlib.util
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from docutils import nodes

import firststep
from firststep.book import claims, execute
from firststep.book.evidence import below

ROOT, PACKAGE = Path(__file__).parents[2], Path(firststep.__file__).parent
sys.path.insert(0, str(ROOT / "book" / "_extensions"))  # as Sphinx does
from firststep_book import assets, maps, page_keys, pages, setup, verdicts  # noqa: E402

pytestmark = pytest.mark.usefixtures("clean_environment")
ENTRY = """
  - id: toy.{id}
    title: Title of {id}
    locator: new
    statement: s
    criterion: c
    page: {page}
    needs: smoke
    pinned: {pinned}
"""


def ledger(*claims):
    """The text of a ledger with claims (id, page, pin)."""
    entries = (ENTRY.format(id=id, page=page or "null", pinned=pinned or "null") for id, page, pinned in claims)
    return "papers: {}\nclaims:" + "".join(entries)


PAGE = "book/1/page"
LEDGER = ledger(("one", PAGE, "holds"), ("two", PAGE, None), ("none", None, None))


@pytest.fixture
def book(tmp_path, clean_environment):
    """A checkout of a book with three claims and one page; also the working directory."""
    for folder in ("book/1", "_build/html", "_build/jupyter_execute/book/1"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "book" / "claims.yml").write_text(LEDGER, encoding="utf-8")
    (tmp_path / "requirements.txt").write_text("torch==2\n", encoding="utf-8")
    clean_environment.chdir(tmp_path)
    claims.ledger.cache_clear()
    yield tmp_path
    claims.ledger.cache_clear()


@pytest.fixture
def package(tmp_path):
    """A copy of the package's code, without its images."""
    copy = tmp_path / "firststep"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("fashion_mnist", "__pycache__", "assets"))
    return copy


def notebook(*cells, outputs=()):
    prose = {"cell_type": "markdown", "source": "import firststep.images", "metadata": {}}
    blank = {"cell_type": "code", "outputs": list(outputs), "metadata": {}, "execution_count": None}
    code = [blank | {"source": source} for source in cells]
    return {"cells": [prose, *code], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}


def application(root, *pages):
    """As much of Sphinx as the extension touches."""
    env = SimpleNamespace(
        docname=pages[0] if pages else None,
        found_docs=set(pages),
        firststep_keys={},
        doc2path=lambda docname: str(root / f"{docname}.ipynb"),
    )
    return SimpleNamespace(env=env, srcdir=str(root), outdir=str(root / "_build" / "html"))


# What a page can depend on


@pytest.fixture
def toy_package(tmp_path):
    files = {
        "__init__.py": "",
        "leaf.py": "import math",
        "middle.py": "from firststep import leaf",
        "lazy.py": "def f():\n    from firststep.middle import g\n",
        "loop_a.py": "import firststep.loop_b",
        "loop_b.py": "import firststep.loop_a",
        "folder/__init__.py": "from firststep import leaf",
        "folder/inner.py": "",
        "alone.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("code, reached", [
    ("import torch, math", set()),
    ("import firststep", {"__init__.py"}),
    ("import firststep.leaf as l", {"__init__.py", "leaf.py"}),
    ("from firststep import leaf, alone", {"__init__.py", "leaf.py", "alone.py"}),
    ("from firststep.leaf import something", {"__init__.py", "leaf.py"}),
    ("from firststep import middle", {"__init__.py", "middle.py", "leaf.py"}),
    ("from firststep import lazy", {"__init__.py", "lazy.py", "middle.py", "leaf.py"}),
    ("import firststep.loop_a", {"__init__.py", "loop_a.py", "loop_b.py"}),
    ("from firststep.folder import inner", {"__init__.py", "folder/__init__.py", "folder/inner.py", "leaf.py"}),
    ("import firststep.folder", {"__init__.py", "folder/__init__.py", "leaf.py"}),
    ("if True:\n    def f():\n        from firststep import alone", {"__init__.py", "alone.py"}),
    ("firststep = 'firststep.alone'", set()),
])  # fmt: skip
def test_code_reaches_what_it_imports_directly_and_through_other_modules(toy_package, code, reached):
    assert page_keys.modules_reached(code, toy_package) == reached


@pytest.mark.parametrize("name", sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
))  # fmt: skip
def test_no_module_is_loaded_that_reading_the_imports_misses(monkeypatch, name):
    for loaded in [key for key in sys.modules if key.split(".")[0] == "firststep"]:
        monkeypatch.delitem(sys.modules, loaded)
    importlib.import_module(name)
    files = {
        Path(module.__file__).relative_to(PACKAGE).as_posix()
        for key, module in sys.modules.items()
        if key.split(".")[0] == "firststep"
    }
    for key in [key for key in sys.modules if key.split(".")[0] == "firststep"]:
        monkeypatch.delitem(sys.modules, key)
    reached = page_keys.modules_reached(f"import {name}")
    if "book/recorded.py" in reached:  # it finds the modules of runs; a page's key has those whose sweeps it names
        runs = (PACKAGE / "book" / "runs").glob("*.py")
        reached |= page_keys.modules_reached("\n".join(f"import firststep.book.runs.{path.stem}" for path in runs))
    assert files <= reached


def test_every_import_inside_the_package_is_absolute_because_others_are_not_followed():
    for path in PACKAGE.rglob("*.py"):
        assert not [line for line in path.read_text("utf-8").splitlines() if line.lstrip().startswith("from .")], path


# The key


@pytest.fixture
def key(book, package):
    def key(*cells):
        return page_keys.page_key(notebook(*cells or ("from firststep import spectra",)), book, package)

    return key


def test_the_key_changes_with_a_module_that_the_page_can_reach(key, package):
    before = key()
    for name in ("spectra.py", "checks.py", "__init__.py"):
        (package / name).write_text((package / name).read_text("utf-8") + "\n# changed\n", encoding="utf-8")
        assert key() != before, name
        before = key()


def test_the_key_does_not_change_with_a_module_that_the_page_cannot_reach(key, package):
    before = key()
    for name in ("nets.py", "linear_tasks.py", "book/panels/full_rank.py"):
        (package / name).write_text("raise RuntimeError", encoding="utf-8")
    assert key() == before


def test_the_key_changes_with_the_images_that_every_page_may_read(key, package):
    before = key()
    (package / "fashion_mnist").mkdir()
    (package / "fashion_mnist" / "train.gz").write_bytes(b"1")
    assert key() != before


@pytest.mark.parametrize("reads, changes", [
    ("from firststep.book import recorded\nrecorded.load('toy/runs')", True),
    ("from firststep.book import recorded\nrecorded.load('toy/others')", False),
    ("import math", False),
])  # fmt: skip
def test_the_key_of_a_page_that_reads_recorded_runs_holds_them(key, book, package, reads, changes):
    (package / "book" / "recorded.py").write_text("", encoding="utf-8")
    before = key(reads)
    (book / "results" / "toy" / "runs").mkdir(parents=True)
    (book / "results" / "toy" / "runs" / "0123456789abcdef.json").write_text("{}", encoding="utf-8")
    assert (key(reads) != before) is changes


@pytest.mark.parametrize("sweep, changes", [("runs", True), ("others", False)])
def test_the_key_of_a_page_that_reads_recorded_runs_holds_the_module_that_made_them(key, package, sweep, changes):
    (package / "book" / "recorded.py").write_text("", encoding="utf-8")
    module = package / "book" / "runs" / "toy.py"
    module.write_text('SWEEPS = {"toy/runs": (run, points)}', encoding="utf-8")
    page = f"from firststep.book import recorded\nfor x in ['{sweep}']: recorded.load(f'toy/{{x}}')"
    before = key(page)
    module.write_text('SWEEPS = {"toy/runs": (run, more_points)}', encoding="utf-8")
    assert (key(page) != before) is changes


def test_the_key_changes_with_the_scale_the_device_and_the_lock(key, book, monkeypatch):
    keys = [key()]
    monkeypatch.setenv("FIRSTSTEP_SCALE", "smoke")
    keys.append(key())
    monkeypatch.setenv("FIRSTSTEP_DEVICE", "meta")
    keys.append(key())
    (book / "requirements.txt").write_text("torch==3\n", encoding="utf-8")
    keys.append(key())
    assert len(set(keys)) == 4


def test_the_key_changes_with_the_words_of_the_ledger_but_not_with_its_pins(key, book):
    before, path = key(), book / "book" / "claims.yml"
    path.write_text(LEDGER.replace("pinned: holds", "pinned: refuted"), encoding="utf-8")
    assert key() == before
    path.write_text(LEDGER.replace("criterion: c", "criterion: stricter"), encoding="utf-8")
    assert key() != before


@pytest.mark.parametrize("id, changes", [("one", True), ("none", False)])
def test_the_key_of_a_page_holds_the_words_of_its_own_claims_only(book, id, changes):
    def key():
        return page_keys.page_key(notebook("import math"), book, docname=PAGE)

    before = key()
    (book / "book" / "claims.yml").write_text(LEDGER.replace(f"Title of {id}", "Another title"), encoding="utf-8")
    assert (key() != before) is changes


@pytest.mark.parametrize("code, changes", [("claims.records()", True), ("import math", False)])
def test_the_key_of_a_page_that_shows_verdicts_holds_the_questions_of_the_chapters(book, code, changes):
    def key():
        return page_keys.page_key(notebook(code), book, docname="book/intro")

    papers = LEDGER.replace("papers: {}", "papers: {toy: {title: T, chapter: book/1/index}}")
    (book / "book" / "claims.yml").write_text(papers, encoding="utf-8")
    before = key()
    (book / "book" / "1" / "index.md").write_text("# One\n\n*Why?*\n", encoding="utf-8")
    assert (key() != before) is changes


def test_the_key_reads_code_cells_only_and_passes_over_magics(key, package):
    before = key("import math")
    assert key("%matplotlib inline\nimport math\n!ls") == before
    (package / "images.py").write_text("", encoding="utf-8")  # named in a text cell
    assert key("import math") == before


def test_the_key_goes_into_the_kernelspec_where_the_cache_sees_it(book):
    source = [json.dumps(notebook("import firststep"))]
    pages.put_key_into_kernelspec(application(book, PAGE), PAGE, source)
    changed = json.loads(source[0])
    assert len(changed["metadata"]["kernelspec"]["firststep_key"]) == 64
    assert [c["source"] for c in changed["cells"]] == [c["source"] for c in notebook("import firststep")["cells"]]


def test_a_kernelspec_that_is_there_keeps_its_entries(book):
    source = [json.dumps(notebook("import firststep") | {"metadata": {"kernelspec": {"name": "python3"}}})]
    pages.put_key_into_kernelspec(application(book, PAGE), PAGE, source)
    spec = json.loads(source[0])["metadata"]["kernelspec"]
    assert spec["name"] == "python3" and "firststep_key" in spec


def test_a_page_of_prose_is_left_as_it_is(book):
    app = application(book, "book/intro")
    app.env.doc2path = lambda docname: f"{docname}.md"
    source = ["# Not JSON"]
    pages.put_key_into_kernelspec(app, "book/intro", source)
    assert source == ["# Not JSON"]


def test_what_a_file_carries_never_counts_outputs_counts_times_and_widgets_go_before_anything_else(book):
    saved = notebook("settle(1)", outputs=[output(record("toy.one"))])
    saved["cells"][1] |= {"execution_count": 7, "metadata": {"execution": {"iopub.status.busy": "2026"}}}
    saved["metadata"] = {"widgets": {"state": {}}}
    plain = page_keys.keyed(json.dumps(notebook("settle(1)")), book, PAGE)
    assert page_keys.keyed(json.dumps(saved), book, PAGE) == plain
    assert execute.records_of(plain) == []


@pytest.mark.parametrize("change, says", [
    ({"tags": ["raises-exception"]}, "code cell 1 must not be tagged raises-exception"),
    ({"execution": {"allow_errors": True}}, "'execution' may change"),
    ({"mystnb": {"execution_allow_errors": True}}, "'mystnb' may change"),
])  # fmt: skip
def test_a_page_that_settles_claims_may_not_fail_unseen(book, change, says):
    page = notebook("settle(1)")
    if "tags" in change:
        page["cells"][1]["metadata"] = change
    else:
        page["metadata"] = change
    with pytest.raises(ValueError, match=says):
        page_keys.keyed(json.dumps(page), book, PAGE)
    page["cells"][1]["source"] = "1 / 0"
    page_keys.keyed(json.dumps(page), book, PAGE)  # a page that settles nothing may show an error


# Verdicts


MET, MISSED = below("error", 0.1, 1), below("error", 2, 1)
REFUTING = {"verdict": "refuted", "rows": {"printed": [MISSED]}}


def record(id, **changes):
    whole = {
        "id": id, "verdict": "holds", "prediction": "p", "rows": {"printed": [MET]}, "criterion": "c",
        "no_control": "k", "repair": None, "reduced": None, "undecided": None, "scale": "cpu", "dtype": "float64",
        "seeds": "0", "seconds": 1.0, "versions": {},
    }  # fmt: skip
    return claims.Record(**whole | changes)


def output(record):
    return {"output_type": "display_data", "data": {}, "metadata": {"firststep": asdict(record)}}


ONE = record("toy.one")
SHOWN = ("toy.one", "holds", "cpu")
WHOLE = {
    "found": {"toy.one": ONE},
    "made": {PAGE: [ONE]},
    "shown": {PAGE: [SHOWN], "book/ledger/ledger": [SHOWN, ("toy.none", "open", "")]},
}


def problems(book, **changes):
    text = ledger(("one", PAGE, "holds"), ("none", None, None))
    (book / "book" / "claims.yml").write_text(text, encoding="utf-8")
    return verdicts.disagreements(claims.ledger(book / "book" / "claims.yml"), **WHOLE | changes)


def test_a_book_in_which_page_record_ledger_and_pin_agree_passes(book):
    assert problems(book) == []


REFUTED, SMOKE = record("toy.one", **REFUTING), record("toy.one", scale="smoke")


@pytest.mark.parametrize("changes, says", [
    ({"found": {"toy.one": REFUTED}, "made": {PAGE: [REFUTED]}}, "toy.one: measured 'refuted', pinned 'holds'"),
    ({"found": {}, "made": {PAGE: []}}, "toy.one: its page book/1/page does not settle it"),
    ({"found": {"toy.one": SMOKE}, "made": {PAGE: [SMOKE]}}, "toy.one: settled at smoke scale in a book of cpu scale"),
    ({"made": {PAGE: [REFUTED]}}, "toy.one: book/1/page made another record than _build/verdicts holds"),
    ({"made": {PAGE: [ONE], "book/other": [ONE]}}, "book/other settles toy.one, which book/claims.yml gives to"),
    ({"shown": {PAGE: [], "book/ledger/ledger": [SHOWN]}}, "toy.one: book/1/page does not show its verdict"),
    ({"shown": {PAGE: [SHOWN], "book/ledger/ledger": []}}, "toy.one: book/ledger/ledger does not show its verdict"),
    ({"shown": {PAGE: [("toy.one", "refuted", "cpu")]}}, "toy.one: book/1/page shows 'refuted'"),
    ({"shown": {PAGE: [("toy.one", "holds", "smoke")]}}, "toy.one: book/1/page shows 'holds' at scale 'smoke'"),
    ({"shown": {PAGE: [SHOWN], "book/x": [("toy.none", "holds", "cpu")]}}, "toy.none: book/x shows 'holds'"),
    ({"shown": {"book/ledger/ledger": [SHOWN]}}, "toy.one: its page book/1/page does not exist"),
])  # fmt: skip
def test_each_thing_that_contradicts_another_is_named(book, changes, says):
    assert any(sentence.startswith(says) for sentence in problems(book, **changes)), problems(book, **changes)


def test_a_card_and_a_row_of_the_ledger_carry_what_is_compared(book):
    claim = claims.ledger(book / "book" / "claims.yml")["toy.one"]
    page = book / "page.html"
    page.write_text(claims.card(claim, ONE) + claims.badge(None, claims.marks("toy.none", None)), encoding="utf-8")
    assert verdicts.marks(page) == [("toy.one", "holds", "cpu"), ("toy.none", "open", "")]


# Links, scripts and styles


def handlers():
    """What the extension does at each event of the build."""
    found = {}
    nothing = {name: lambda *what: None for name in ("add_role", "add_directive", "add_node")}
    setup(SimpleNamespace(**nothing, connect=lambda event, handler, **how: found.__setitem__(event, handler)))
    return found


def link(text, docname="book/intro"):
    reported = []

    def error(message, line):
        reported.append(message)
        return nodes.system_message(message)

    settings = SimpleNamespace(env=SimpleNamespace(docname=docname, temp_data={}))
    inliner = SimpleNamespace(
        document=SimpleNamespace(settings=settings, set_id=lambda *a: None),
        reporter=SimpleNamespace(error=error, get_source_and_line=lambda line: ("page", line)),
    )
    made, _ = verdicts.ClaimRole()("claim", f"{{claim}}`{text}`", text, 3, inliner)
    return made[0], reported


@pytest.mark.parametrize("docname, target", [
    ("book/intro", "1/page.html#toy.one"),
    ("book/ledger/ledger", "../1/page.html#toy.one"),
    ("book/1/page", "page.html#toy.one"),
])  # fmt: skip
def test_a_claim_links_to_the_place_where_it_is_settled(book, docname, target):
    node, reported = link("toy.one", docname)
    assert node["refuri"] == target
    assert node.astext() == "toy.one"
    assert reported == []


def test_a_claim_without_a_page_is_not_a_link(book):
    node, reported = link("toy.none")
    assert isinstance(node, nodes.literal) and reported == []


def test_a_claim_that_is_not_in_the_ledger_is_an_error(book):
    node, reported = link("toy.typo")
    assert isinstance(node, nodes.problematic)
    assert reported == ["no claim 'toy.typo' in book/claims.yml"]


def test_only_pages_with_an_explorable_load_its_scripts():
    def loaded(body):
        names = []
        add = lambda name, **options: names.append(name)  # noqa: E731
        app = SimpleNamespace(add_js_file=add, add_css_file=add)
        context = {"body": body, "pathto": lambda path, resource: path}
        handlers()["html-page-context"](app, "page", "page.html", context, None)
        return [name for name in names if name]

    assert loaded("<p>prose</p>") == []
    assert loaded('<section class="explorable" id="explore-plateau">') == ["vega.js", "explore.js"]
    assert loaded('<section class="landscape" hidden>') == ["title.css", "landscape.js"]
    assert loaded('<table class="claims">') == ["overview.css", "overview.js"]


def test_a_map_stands_in_the_order_of_the_pages_and_shows_the_records(book):
    env = SimpleNamespace(
        toctree_includes={"book/1/index": ["book/1/page"]}, titles={"book/1/page": nodes.title("", "P")}
    )
    app = application(book)
    app.env, app.builder = env, SimpleNamespace(format="html", get_relative_uri=lambda a, b: f"{b}.html")
    document = nodes.section("", maps.claim_map("", chapter="toy"))
    claims.write(ONE, book / "_build" / "verdicts")
    maps.draw(app, document, "book/1/index")
    markup = document.astext()
    assert markup.count(claims.marks("toy.one", ONE)) == 2  # on the map and in the table
    assert markup.count(claims.marks("toy.none", None)) == 2
    assert 'href="book/1/page.html#toy.one"' in markup


def test_a_map_is_drawn_again_when_a_verdict_or_the_ledger_changes(book):
    (book / "book" / "1" / "index.md").write_text("# One\n\n```{claim-map} toy\n```\n", encoding="utf-8")
    (book / "book" / "1" / "other.md").write_text("# Two\n", encoding="utf-8")
    found = {"book/1/index", "book/1/other", "book/1/page"}
    path = {"book/1/page": "book/1/page.ipynb"}
    env = SimpleNamespace(found_docs=found, doc2path=lambda name: str(book / path.get(name, f"{name}.md")))
    stale = lambda: maps.find_stale(application(book), env, set(), set(), set())  # noqa: E731
    assert stale() == ["book/1/index"]
    assert stale() == []
    claims.write(ONE, book / "_build" / "verdicts")
    assert stale() == ["book/1/index"]
    (book / "book" / "claims.yml").write_text(LEDGER.replace("Title of one", "Another"), encoding="utf-8")
    assert stale() == ["book/1/index"]
    assert stale() == []


def test_scripts_and_styles_come_from_this_host_and_kernels_learn_that_a_page_is_built(book, monkeypatch):
    monkeypatch.setattr(assets.vl_convert, "javascript_bundle", lambda snippet: f"const clash = 1;{snippet}")
    styles, app = [], application(book)
    app.config = SimpleNamespace(html_static_path=[])
    app.add_css_file = styles.append
    assets.add_assets(app)
    (folder,) = app.config.html_static_path
    assert {path.name for path in (PACKAGE / "book" / "assets").iterdir()} | {"vega.js"} == set(os.listdir(folder))
    vega = (Path(folder) / "vega.js").read_text("utf-8")
    assert vega.startswith("(() => {") and vega.endswith("})();\n") and "window.firststepVega" in vega
    assert styles == ["book.css"]


def test_the_extension_listens_to_every_stage_of_the_build():
    stages = {"builder-inited", "env-get-outdated", "source-read", "html-page-context", "build-finished"}
    assert stages <= set(handlers())
