"""No file of the built book loads anything from another host. Reads the files; needs no browser.

A link that a reader may follow is no load; nor is an address in a comment or a namespace.
"""

import re
from pathlib import Path

import built_book
import pytest
from built_book import Document, parse

pytestmark = pytest.mark.site

ELSEWHERE = r"""["'`]?\s*(?:(?:https?|wss?|ftp):)?//"""
STYLE_LOADS = re.compile(rf"(?:@import\s+(?:url\(\s*)?|url\(\s*){ELSEWHERE}[^\s\"')]+", re.IGNORECASE)
SCRIPT_LOADS = re.compile(
    rf"(?:\b(?:fetch|import|importScripts|Worker|WebSocket|EventSource|sendBeacon)\(\s*{ELSEWHERE}"
    rf"|\bfrom\s*[\"']https?://"
    rf"|\.open\(\s*[\"'`][A-Z]+[\"'`]\s*,\s*{ELSEWHERE}"
    rf"|\.src\s*=\s*[\"'`](?:https?:)?//)[^\s\"'`)]*"
)
LOADING = {
    "script": ("src",), "img": ("src", "srcset"), "source": ("src", "srcset"), "iframe": ("src",), "frame": ("src",),
    "embed": ("src",), "audio": ("src",), "video": ("src", "poster"), "track": ("src",), "input": ("src",),
    "object": ("data",), "image": ("href", "xlink:href"), "use": ("href", "xlink:href"), "base": ("href",),
    "feimage": ("href", "xlink:href"), "a": ("ping",),
}  # fmt: skip
# What <link> may point to without making the browser fetch it.
PASSIVE = {"alternate", "author", "bookmark", "canonical", "help", "index", "license", "next", "prev", "search", "up"}


def loads(page: Document) -> list[str]:
    """Everything that a browser would fetch from another host on opening the page."""
    found = []
    for tag, attributes in page.elements:
        written = [attributes.get(name, "") for name in LOADING.get(tag, ())]
        if tag == "link" and not set(attributes.get("rel", "").lower().split()) <= PASSIVE:
            written.append(attributes.get("href", ""))
        if built_book.redirects(tag, attributes):
            written.append(attributes["content"].partition("=")[2])
        found += [f"<{tag}> {address}" for address in written if re.match(rf"{ELSEWHERE}|.*,\s*https?://", address)]
    found += [hit[0] for text in page.styles for hit in STYLE_LOADS.finditer(text)]
    return found + [hit[0] for text in page.scripts for hit in SCRIPT_LOADS.finditer(text)]


def test_no_page_loads_anything_from_another_host(site: Path, page: str):
    assert loads(built_book.document(site / page)) == []


@pytest.mark.parametrize(("suffix", "pattern"), [("css", STYLE_LOADS), ("js", SCRIPT_LOADS)], ids=["css", "js"])
def test_no_style_sheet_or_script_loads_anything_from_another_host(site: Path, suffix: str, pattern: re.Pattern):
    files = sorted(site.rglob(f"*.{suffix}"))
    texts = {file.relative_to(site): file.read_text(encoding="utf-8", errors="replace") for file in files}
    assert files
    assert {file: hits for file, text in texts.items() if (hits := [hit[0] for hit in pattern.finditer(text)])} == {}


@pytest.mark.parametrize(
    "markup",
    [
        '<script src="https://example.org/a.js"></script>',
        '<script src="//example.org/a.js"></script>',
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<link rel="preconnect" href="https://example.org">',
        '<img alt="" src="http://example.org/a.png">',
        '<img alt="" srcset="a.png 1x, https://example.org/a.png 2x">',
        '<iframe src="https://example.org"></iframe>',
        '<p style="background: url(https://example.org/a.png)"></p>',
        '<style>@import "https://example.org/a.css";</style>',
        "<style>@import url(//example.org/a.css);</style>",
        '<script>fetch("https://example.org")</script>',
        '<script>import("https://example.org/a.js")</script>',
        '<script>new WebSocket("wss://example.org")</script>',
        '<script>request.open("GET", "https://example.org")</script>',
        '<meta http-equiv="Refresh" content="0; url=https://example.org">',
    ],
)
def test_a_load_from_another_host_is_seen(markup: str):
    assert loads(parse(markup))


@pytest.mark.parametrize(
    "markup",
    [
        '<a href="https://example.org">a paper</a>',
        '<link rel="canonical" href="https://example.org">',
        '<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        '<script src="../_static/a.js"></script>',
        '<script>// see https://example.org\nconst address = "https://example.org";</script>',
        '<script type="application/json">{"$schema": "https://example.org/v6.json"}</script>',
        '<img alt="" src="data:image/png;base64,//8=">',
        "<style>p { background: url(data:image/svg+xml,http://www.w3.org) }</style>",
    ],
)
def test_a_link_or_a_name_is_no_load(markup: str):
    assert loads(parse(markup)) == []
