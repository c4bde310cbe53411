"""What the pages need in a browser, from this host; and what the theme would do wrong without a network or a server."""

from pathlib import Path

import vl_convert
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config

from firststep_book.page_keys import PACKAGE


def add_assets(app: Sphinx) -> None:
    """The Vega bundle and the script that replays explorables, the book's style and icon."""
    folder = Path(app.outdir).parent / "firststep_assets"
    folder.mkdir(parents=True, exist_ok=True)
    bundle = vl_convert.javascript_bundle(snippet="window.firststepVega = { vegaEmbed };")
    # The bundle's top-level names would clash with the theme's, so they stay inside a function.
    (folder / "vega.js").write_text(f"(() => {{\n{bundle}\n}})();\n", encoding="utf-8")
    for asset in (PACKAGE / "book" / "assets").iterdir():
        (folder / asset.name).write_bytes(asset.read_bytes())
    app.config.html_static_path.append(str(folder))
    app.add_css_file("book.css")


def leave_thebe_out(app: Sphinx, config: Config) -> None:
    """Jupyter Book always loads Thebe, which runs cells on other hosts; no page of this book has a button for it."""
    for event in ("env-before-read-docs", "doctree-resolved"):
        for listener in list(app.events.listeners[event]):
            if listener.handler.__module__ == "sphinx_thebe":
                app.disconnect(listener.id)


def add_scripts_and_icon(app: Sphinx, pagename: str, template: str, context: dict, doctree: nodes.document) -> None:
    """Every page gets the icon and a colour mode; pages with an explorable get its scripts."""
    context["favicon_url"] = context["pathto"]("_static/favicon.svg", resource=True)
    # The theme reports an error on a reader's first visit unless a mode is chosen before its script runs.
    app.add_js_file(None, body='document.documentElement.dataset.mode ||= "auto";')
    if pagename == "search":
        # A page opened as a file may not fetch the others, so its results come without excerpts.
        app.add_js_file(None, body='DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY &&= location.protocol !== "file:";')
    if '<section class="landscape"' in context.get("body", ""):
        app.add_css_file("title.css")
        app.add_js_file("landscape.js", loading_method="defer")
    if '<table class="claims"' in context.get("body", ""):
        app.add_css_file("overview.css")
        app.add_js_file("overview.js", loading_method="defer")
    if '<details class="fold' in context.get("body", ""):
        app.add_js_file("folds.js", loading_method="defer")
    if '<section class="explorable"' in context.get("body", ""):
        app.add_js_file("vega.js", loading_method="defer")
        app.add_js_file("explore.js", loading_method="defer")
