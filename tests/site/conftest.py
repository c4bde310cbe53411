"""A browser over the built book: once through a server of this machine, once from the disk, and never a network."""

import datetime
import functools
import http.server
import os
import re
import shutil
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import built_book
import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip
PATIENCE = 120  # seconds; a page takes one or two, unless the machine is busy with something else
DESKTOP = {"width": 1280, "height": 900}
ORIGINS = ("http", "file")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--site", type=Path, help="the built book (default: _build/html of this project)")
    parser.addoption("--share", type=int, default=1, metavar="N", help="open one page in N, on each day others")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "pages_with(text): run on the pages whose HTML contains the text")
    config.addinivalue_line("markers", "served: run on pages from the server only; from the disk they look the same")


def location(config: pytest.Config) -> Path:
    # The option is unknown where pytest was not asked for this folder and so met this file late.
    return (config.getoption("--site", default=None) or built_book.ROOT / "_build" / "html").resolve()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``page`` runs on every page; one that takes ``visit``, on every page from either origin."""
    site = location(metafunc.config)
    marker = metafunc.definition.get_closest_marker("pages_with")
    found = built_book.pages_with(site, *marker.args) if marker else built_book.pages(site)
    if not (site / "index.html").is_file():
        found = ["no book"]  # the fixture `site` says why
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", found)
    if "visit" in metafunc.fixturenames:
        # All tests of a page share one load, also where workers share the tests (--dist loadgroup).
        served = metafunc.definition.get_closest_marker("served")
        visits = [
            pytest.param((page, origin), id=f"{page}-{origin}", marks=pytest.mark.xdist_group(f"{page}-{origin}"))
            for page in share(found, metafunc.config.getoption("--share", default=1))
            for origin in (ORIGINS if not served and (site / page).is_file() and special(site, page) else ORIGINS[:1])
        ]
        metafunc.parametrize("visit", visits, indirect=True, scope="session")


def share(found: list[str], n: int) -> list[str]:
    """The title page and one page in ``n``: every page has its turn within ``n`` days, and a day has its pages."""
    today = datetime.date.today().toordinal()
    return [page for page in found if page.endswith("intro.html") or (zlib.crc32(page.encode()) + today) % n == 0]


def special(site: Path, page: str) -> bool:
    """Whether a page is opened from the disk too: one with a panel, and an index. They stand for all others."""
    panel = 'class="explorable"' in (site / page).read_text(encoding="utf-8")
    return panel or page.endswith(("index.html", "intro.html"))


def required(what: str) -> None:
    """Continuous integration must have what a reader's machine may lack."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@pytest.fixture(scope="session")
def site(pytestconfig: pytest.Config) -> Path:
    """The folder of the built book."""
    folder = location(pytestconfig)
    if not (folder / "index.html").is_file():
        required(f"there is no built book in {folder}: run `make book` first")
    return folder


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """One browser for all tests of a worker."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        required(f"there is no browser: none of {', '.join(BROWSERS)} is on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Playwright hides scrollbars unless told not to; readers see them.
        browser = playwright.chromium.launch(
            executable_path=path, args=list(FLAGS), ignore_default_args=["--hide-scrollbars"]
        )
        yield browser
        browser.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="session")
def bases(site: Path) -> Iterator[dict[str, str]]:
    """Where the book starts, by origin. The server puts it below its root, as hosts of project pages do."""
    handler = functools.partial(Quiet, directory=str(site.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"http": f"http://127.0.0.1:{server.server_port}/{site.name}/", "file": site.as_uri() + "/"}
        server.shutdown()


@dataclass
class Visit:
    """A page open in the browser, and what happened there since.

    Attributes:
        page: the live page, a ``playwright`` object.
        base: where the book starts.
        asked: addresses outside the book that something on the page asked for; none got through.
        missing: addresses inside the book that did not answer.
        errors: console errors and uncaught exceptions.
    """

    page: object
    base: str
    asked: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def inside(self, address: str) -> bool:
        return address.startswith((self.base, "data:", "blob:", "about:"))

    def watch(self) -> None:
        """Note what goes wrong, and let nothing leave the book."""

        def refuse(route) -> None:
            self.asked.append(route.request.url)
            route.abort()

        def failed(request) -> None:
            # A busy browser may give up the icon of its tab on its own account; a missing one it reports otherwise.
            given_up = request.failure == "net::ERR_ABORTED" and request.url.endswith("favicon.svg")
            if self.inside(request.url) and not given_up:
                self.missing.append(f"{request.url}: {request.failure}")

        def answered(response) -> None:
            if response.status >= 400:
                self.missing.append(f"{response.url}: {response.status}")

        def said(message) -> None:
            if message.type == "error":
                self.errors.append(f"{message.text} ({message.location.get('url', '')})")

        context = self.page.context
        context.route(re.compile(f"^(?!{re.escape(self.base)}|data:|blob:)"), refuse)
        context.on("requestfailed", failed)
        context.on("response", answered)
        self.page.on("websocket", lambda socket: self.asked.append(socket.url))
        self.page.on("console", said)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def probe(self, name: str, *arguments: object) -> object:
        """Ask the page something: a function of ``probes.js``."""
        return self.page.evaluate(f"(given) => probes.{name}(...given)", list(arguments))

    def open(self, path: str) -> None:
        """Load a page of the book, and wait until its mathematics and its explorables have had their time."""
        self.page.goto(self.base + path)
        self.page.evaluate("async () => { await window.MathJax?.startup?.promise; }")
        waiting = "section.explorable:not([data-ready])"
        self.page.wait_for_function(
            f"!document.querySelector('{waiting}') || document.querySelector('{waiting} .controls').textContent"
        )


@contextmanager
def visiting(chromium, base: str, path: str, script: str = "") -> Iterator[Visit]:
    """Open a page in a browser profile of its own, as on a reader's first visit; ``script`` runs before the page's."""
    context = chromium.new_context(viewport=DESKTOP, service_workers="block")
    context.set_default_timeout(1000 * PATIENCE)
    context.add_init_script(path=Path(__file__).with_name("probes.js"))
    context.add_init_script(script)
    try:
        visit = Visit(context.new_page(), base)
        visit.watch()
        visit.open(path)
        yield visit
    finally:
        context.close()


@pytest.fixture(scope="session")
def visit(request: pytest.FixtureRequest, chromium, bases: dict[str, str]) -> Iterator[Visit]:
    """An open page. The tests of a page share it, so each leaves it in working order."""
    path, origin = request.param
    with visiting(chromium, bases[origin], path) as found:
        yield found


@pytest.fixture
def opened(chromium, bases: dict[str, str]) -> Iterator[Callable[..., Visit]]:
    """Open a page that no other test shares: ``opened(path, origin)``."""
    with ExitStack() as stack:
        yield lambda path, origin, **how: stack.enter_context(visiting(chromium, bases[origin], path, **how))


@pytest.fixture(params=ORIGINS)
def start(request: pytest.FixtureRequest, opened: Callable[..., Visit], site: Path) -> Visit:
    """A page with a notebook, from either origin, for a test that walks away from it."""
    offered = built_book.pages_with(site, '.ipynb" target=')
    return opened(min(offered, key=lambda page: (site / page).stat().st_size), request.param)
