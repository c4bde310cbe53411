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

import jupyter_cache
import nbformat
import pytest
from docutils import nodes
from jupyter_cache.base import CacheBundleIn
from sphinx.errors import SphinxError

import firststep
from firststep import claims

ROOT, PACKAGE = Path(__file__).parents[2], Path(firststep.__file__).parent
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


@pytest.fixture(scope="module")
def extension():
    """The extension, loaded from its file as Sphinx does."""
    spec = importlib.util.spec_from_file_location("firststep_book", ROOT / "book" / "_extensions" / "firststep_book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
    prose = {"cell_type": "markdown", "source": "import firststep.data", "metadata": {}}
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
def test_code_reaches_what_it_imports_directly_and_through_other_modules(extension, toy_package, code, reached):
    assert extension.modules_reached(code, toy_package) == reached


@pytest.mark.parametrize("name", sorted(
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
))  # fmt: skip
def test_no_module_is_loaded_that_reading_the_imports_misses(extension, monkeypatch, name):
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
    assert files <= extension.modules_reached(f"import {name}")


def test_every_import_inside_the_package_is_absolute_because_others_are_not_followed():
    for path in PACKAGE.rglob("*.py"):
        assert not [line for line in path.read_text("utf-8").splitlines() if line.lstrip().startswith("from .")], path


# The key


@pytest.fixture
def key(extension, book, package):
    def key(*cells):
        return extension.page_key(notebook(*cells or ("from firststep import spectra",)), book, package)

    return key


def test_the_key_changes_with_a_module_that_the_page_can_reach(key, package):
    before = key()
    for name in ("spectra.py", "checks.py", "__init__.py"):
        (package / name).write_text((package / name).read_text("utf-8") + "\n# changed\n", encoding="utf-8")
        assert key() != before, name
        before = key()


def test_the_key_does_not_change_with_a_module_that_the_page_cannot_reach(key, package):
    before = key()
    for name in ("nets.py", "data.py", "panels/full_rank.py"):
        (package / name).write_text("raise RuntimeError", encoding="utf-8")
    assert key() == before


def test_the_key_changes_with_the_images_that_every_page_may_read(key, package):
    before = key()
    (package / "fashion_mnist").mkdir()
    (package / "fashion_mnist" / "train.gz").write_bytes(b"1")
    assert key() != before


@pytest.mark.parametrize("reads, changes", [("from firststep import recorded", True), ("import math", False)])
def test_the_key_of_a_page_that_reads_recorded_runs_holds_them(key, book, package, reads, changes):
    (package / "recorded.py").write_text("", encoding="utf-8")
    before = key(reads)
    (book / "results" / "toy").mkdir(parents=True)
    (book / "results" / "toy" / "0123456789abcdef.json").write_text("{}", encoding="utf-8")
    assert (key(reads) != before) is changes


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
def test_the_key_of_a_page_holds_the_words_of_its_own_claims_only(extension, book, id, changes):
    def key():
        return extension.page_key(notebook("import math"), book, docname=PAGE)

    before = key()
    (book / "book" / "claims.yml").write_text(LEDGER.replace(f"Title of {id}", "Another title"), encoding="utf-8")
    assert (key() != before) is changes


def test_the_key_reads_code_cells_only_and_passes_over_magics(key, package):
    before = key("import math")
    assert key("%matplotlib inline\nimport math\n!ls") == before
    (package / "data.py").write_text("", encoding="utf-8")  # named in a text cell
    assert key("import math") == before


def test_the_key_goes_into_the_kernelspec_where_the_cache_sees_it(extension, book):
    app = application(book, "book/1/page")
    source = [json.dumps(notebook("import firststep"))]
    extension.put_key_into_kernelspec(app, "book/1/page", source)
    changed = json.loads(source[0])
    assert changed["metadata"]["kernelspec"]["firststep_key"] == app.env.firststep_keys["book/1/page"]
    assert len(app.env.firststep_keys["book/1/page"]) == 64
    changed["metadata"] = {}
    assert changed == notebook("import firststep")


def test_a_kernelspec_that_is_there_keeps_its_entries(extension, book):
    source = [json.dumps(notebook("import firststep") | {"metadata": {"kernelspec": {"name": "python3"}}})]
    extension.put_key_into_kernelspec(application(book, "book/1/page"), "book/1/page", source)
    spec = json.loads(source[0])["metadata"]["kernelspec"]
    assert spec["name"] == "python3" and "firststep_key" in spec


def test_a_page_of_prose_is_left_as_it_is(extension, book):
    app = application(book, "book/intro")
    app.env.doc2path = lambda docname: f"{docname}.md"
    source = ["# Not JSON"]
    extension.put_key_into_kernelspec(app, "book/intro", source)
    assert source == ["# Not JSON"] and app.env.firststep_keys == {}


def test_a_page_is_read_again_exactly_if_its_key_changed(extension, book, monkeypatch):
    app = application(book, "book/1/page", "book/1/other")
    for page, code in (("page", "from firststep import spectra"), ("other", "import math")):
        path = book / "book" / "1" / f"{page}.ipynb"
        path.write_text(json.dumps(notebook(code)), encoding="utf-8")
        extension.put_key_into_kernelspec(app, f"book/1/{page}", [path.read_text("utf-8")])
    assert list(extension.pages_whose_key_changed(app, app.env, set(), set(), set())) == []
    app.env.firststep_keys["book/1/page"] = "old"
    assert list(extension.pages_whose_key_changed(app, app.env, set(), set(), set())) == ["book/1/page"]


@pytest.mark.parametrize("added, changed", [({PAGE}, set()), (set(), {PAGE})])
def test_pages_that_read_the_verdicts_are_read_again_whenever_another_page_is(extension, book, added, changed):
    readers = set(extension.VERDICT_READERS)
    app = application(book, PAGE, *readers)
    assert set(extension.pages_whose_key_changed(app, app.env, set(), set(), set())) == set()
    assert set(extension.pages_whose_key_changed(app, app.env, added, changed, set())) == readers


def test_verdicts_of_a_page_that_is_not_run_again_are_restored_from_its_outputs(extension, book):
    execute(book, PAGE, record("toy.one"))
    claims.write(record("toy.one", verdict="inconclusive", scale="smoke"))  # somebody ran the notebook by hand
    app = application(book, PAGE)
    assert list(extension.pages_whose_key_changed(app, app.env, set(), set(), set())) == []
    assert claims.records()["toy.one"] == record("toy.one")


# Verdicts


def record(id, **changes):
    whole = {
        "id": id, "verdict": "holds", "prediction": "p", "measured": "m", "criterion": "c", "control": "k",
        "repair": None, "reduced": None, "undecided": None, "scale": "cpu", "dtype": "float64", "seeds": "0",
        "seconds": 1.0, "versions": {},
    }  # fmt: skip
    return claims.Record(**whole | changes)


def execute(book, page, *records):
    """Leave an executed page behind whose outputs carry these records."""
    outputs = [{"output_type": "display_data", "data": {}, "metadata": {"firststep": asdict(r)}} for r in records]
    outputs += [{"output_type": "stream", "name": "stdout", "text": "no metadata"}]
    executed = book / "_build" / "jupyter_execute" / f"{page}.ipynb"
    executed.parent.mkdir(parents=True, exist_ok=True)
    executed.write_text(json.dumps(notebook("settle()", outputs=outputs)), encoding="utf-8")


def test_verdicts_in_the_outputs_of_a_page_become_records(extension, book):
    execute(book, "book/1/page", record("toy.one"), record("toy.two", verdict="refuted"))
    extension.collect_verdicts(application(book, "book/1/page"), None)
    assert {id: r.verdict for id, r in claims.records().items()} == {"toy.one": "holds", "toy.two": "refuted"}


def test_verdicts_of_a_page_whose_outputs_come_from_the_cache_become_records(extension, book):
    execute(book, PAGE, record("toy.one"))
    executed = book / "_build" / "jupyter_execute" / f"{PAGE}.ipynb"
    whole = nbformat.read(executed, as_version=4)
    cache = jupyter_cache.get_cache(book / "_build" / ".jupyter_cache")
    cache.cache_notebook_bundle(CacheBundleIn(whole, PAGE), check_validity=False)
    executed.write_text(json.dumps(notebook("settle()")), encoding="utf-8")  # what MyST-NB writes on a cache hit
    extension.collect_verdicts(application(book, PAGE), None)
    assert claims.records() == {"toy.one": record("toy.one")}
    executed.write_text(json.dumps(notebook("other()")), encoding="utf-8")
    extension.collect_verdicts(application(book, PAGE), None)
    assert claims.records() == {}


def test_a_verdict_that_a_page_no_longer_makes_is_dropped(extension, book):
    for id in ("toy.one", "toy.two", "toy.none"):
        claims.write(record(id))
    execute(book, "book/1/page", record("toy.one"))
    extension.collect_verdicts(application(book, "book/1/page"), None)
    assert set(claims.records()) == {"toy.one", "toy.none"}  # the last belongs to no page


def check(extension, book, *pages):
    extension.check_verdicts(None, application(book, *pages).env)


def test_a_book_that_settles_what_it_promises_passes(extension, book):
    (book / "book" / "claims.yml").write_text(ledger(("one", PAGE, "holds"), ("none", None, None)))
    claims.ledger.cache_clear()
    claims.write(record("toy.one"))
    claims.write(record("toy.forgotten"))  # left over from a claim that the ledger no longer has
    check(extension, book, PAGE)


@pytest.mark.parametrize("records, says", [
    ([], r"toy\.one: its page book/1/page does not settle it"),
    ([record("toy.one", verdict="refuted"), record("toy.two")], r"toy\.one: measured 'refuted', pinned 'holds'"),
    ([record("toy.one"), record("toy.two")], r"toy\.two: measured 'holds', pinned None"),
])  # fmt: skip
def test_a_ledger_and_a_book_that_disagree_end_the_build(extension, book, records, says):
    for each in records:
        claims.write(each)
    with pytest.raises(SphinxError, match=says):
        check(extension, book, "book/1/page")


def test_a_page_that_settles_a_claim_of_another_page_ends_the_build(extension, book):
    execute(book, "book/1/other", record("toy.one"))
    with pytest.raises(SphinxError, match=r"book/1/other settles toy\.one, which .* gives to book/1/page"):
        extension.collect_verdicts(application(book, "book/1/other"), None)


def test_a_claim_whose_page_does_not_exist_ends_the_build(extension, book):
    with pytest.raises(SphinxError, match=r"toy\.one: its page book/1/page does not exist"):
        check(extension, book, "book/1/other")


# Links, scripts and styles


def handlers(extension):
    """What the extension does at each event of the build."""
    found = {}
    extension.setup(SimpleNamespace(add_role=lambda *role: None, connect=found.__setitem__))
    return found


def link(extension, text, docname="book/intro"):
    reported = []

    def error(message, line):
        reported.append(message)
        return nodes.system_message(message)

    settings = SimpleNamespace(env=SimpleNamespace(docname=docname, temp_data={}))
    inliner = SimpleNamespace(
        document=SimpleNamespace(settings=settings, set_id=lambda *a: None),
        reporter=SimpleNamespace(error=error, get_source_and_line=lambda line: ("page", line)),
    )
    made, _ = extension.ClaimRole()("claim", f"{{claim}}`{text}`", text, 3, inliner)
    return made[0], reported


@pytest.mark.parametrize("docname, target", [
    ("book/intro", "1/page.html#toy.one"),
    ("book/7_ledger/ledger", "../1/page.html#toy.one"),
    ("book/1/page", "page.html#toy.one"),
])  # fmt: skip
def test_a_claim_links_to_the_place_where_it_is_settled(extension, book, docname, target):
    node, reported = link(extension, "toy.one", docname)
    assert node["refuri"] == target
    assert node.astext() == "toy.one"
    assert reported == []


def test_a_claim_without_a_page_is_not_a_link(extension, book):
    node, reported = link(extension, "toy.none")
    assert isinstance(node, nodes.literal) and reported == []


def test_a_claim_that_is_not_in_the_ledger_is_an_error(extension, book):
    node, reported = link(extension, "toy.typo")
    assert isinstance(node, nodes.problematic)
    assert reported == ["no claim 'toy.typo' in book/claims.yml"]


def test_only_pages_with_an_explorable_load_its_scripts(extension):
    def loaded(body):
        names = []
        app = SimpleNamespace(add_js_file=lambda name, **options: names.append(name))
        context = {"body": body, "pathto": lambda path, resource: path}
        handlers(extension)["html-page-context"](app, "page", "page.html", context, None)
        return [name for name in names if name]

    assert loaded("<p>prose</p>") == []
    assert loaded('<section class="explorable" id="explore-plateau">') == ["vega.js", "explore.js"]


def test_scripts_and_styles_come_from_this_host_and_kernels_learn_that_a_page_is_built(extension, book, monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_BUILD", "")  # put back afterwards
    monkeypatch.setattr(extension.vl_convert, "javascript_bundle", lambda snippet: f"const clash = 1;{snippet}")
    styles, app = [], application(book)
    app.config = SimpleNamespace(html_static_path=[])
    app.add_css_file = styles.append
    extension.add_assets(app)
    (folder,) = app.config.html_static_path
    assert {path.name for path in (PACKAGE / "assets").iterdir()} | {"vega.js"} == set(os.listdir(folder))
    vega = (Path(folder) / "vega.js").read_text("utf-8")
    assert vega.startswith("(() => {") and vega.endswith("})();\n") and "window.firststepVega" in vega
    assert styles == ["book.css"]
    assert extension.scale.building()


def test_the_extension_listens_to_every_stage_of_the_build(extension):
    stages = {"builder-inited", "env-get-outdated", "source-read", "doctree-read", "env-updated", "html-page-context"}
    assert stages <= set(handlers(extension))
    # Verdicts of pages that are read at the same time would overwrite each other.
    app = SimpleNamespace(add_role=lambda *role: None, connect=lambda *event: None)
    assert extension.setup(app)["parallel_read_safe"] is False
