"""JupyterLab as `make lab` opens it: cards in their colours, numbers in the text, a panel that calls the package."""

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import suppress
from time import monotonic, sleep

import built_book
import pytest

pytestmark = [pytest.mark.site, pytest.mark.xdist_group("lab")]
PAGE = "book/rank_collapse/rank_measures.ipynb"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab over this project, at smoke scale, with settings of its own."""
    home = tmp_path_factory.mktemp("lab")
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTERLAB_WORKSPACES_DIR": "workspaces", "IPYTHONDIR": "ipython"}
    environment = {**os.environ, "FIRSTSTEP_SCALE": "smoke", **{name: str(home / at) for name, at in folders.items()}}
    environment.pop("FIRSTSTEP_BUILD", None)
    options = ["--no-browser", "--allow-root", "--ServerApp.root_dir=.", "--IdentityProvider.token=", "--port=0"]
    command = [sys.executable, "-m", "jupyterlab", *options, "--LabApp.news_url=None"]
    with (home / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=built_book.ROOT, env=environment, stdout=log, stderr=log)
        try:
            yield address(home / "log", process)
        finally:
            process.terminate()
            process.wait(20)


def address(log, process):
    end = monotonic() + 60
    while monotonic() < end and process.poll() is None:
        if found := re.search(r"http://(?:localhost|127\.0\.0\.1):\d+/", log.read_text()):
            with suppress(urllib.error.URLError):  # it names its address before it listens there
                urllib.request.urlopen(found[0] + "api").read()
                return found[0].replace("localhost", "127.0.0.1")
        sleep(0.2)
    pytest.fail(log.read_text())


@pytest.fixture(scope="module")
def notebook(lab, chromium):
    """A page after *Run All Cells*, scrolled to its beginning."""
    page = chromium.new_page(viewport={"width": 1400, "height": 4000})
    page.goto(f"{lab}lab/tree/{PAGE}")
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for(timeout=60_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_text("Run All Cells", exact=True).first.click()
    page.locator("section.verdict").nth(1).wait_for(timeout=120_000)
    yield page
    page.close()


def test_a_card_has_the_colour_of_its_verdict(notebook):
    card = notebook.locator("section.verdict").first
    verdict = card.get_attribute("data-verdict")
    colours = {"holds": "rgb(42, 157, 106)", "inconclusive": "rgb(119, 129, 143)"}
    assert card.evaluate("e => getComputedStyle(e).borderLeftColor") == colours[verdict]


def test_the_text_shows_numbers_and_not_their_names(notebook):
    notebook.locator(".jp-WindowedPanel-outer").first.evaluate("e => { e.scrollTop = 0; }")
    notebook.get_by_role("heading", name="Four ranks").wait_for()
    notebook.wait_for_function("document.querySelectorAll('.jp-MarkdownCell [data-number]').length >= 2")
    words = notebook.locator(".jp-MarkdownCell").first.inner_text()
    assert "measures-" not in words
    assert re.search(r"up to \d+ times", words)
