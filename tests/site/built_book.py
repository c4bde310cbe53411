"""The built book as files: which pages it has, and what stands in their HTML. Needs neither a browser nor a server."""

import posixpath
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
FOREIGN = ("http", "https", "mailto")  # links that leave the book; a reader follows them on purpose


@dataclass
class Document(HTMLParser):
    """Elements of one page, with the texts of its scripts and style sheets."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def __post_init__(self):
        super().__init__(convert_charrefs=True)
        self._inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if "style" in attributes:
            self.styles.append(attributes["style"])
        data = attributes.get("type", "").endswith("json")
        self._inside = "" if tag == "script" and data else tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside == "style":
            self.styles.append(data)

    @property
    def anchors(self) -> set[str]:
        return {a[key] for _, a in self.elements for key in ("id", "name") if key in a}

    @property
    def links(self) -> list[str]:
        """Targets of links inside the book, as written."""
        written = [a["href"] for _, a in self.elements if "href" in a]
        written += [a["src"] for _, a in self.elements if "src" in a]
        written += [a["content"].split("url=")[1] for tag, a in self.elements if redirects(tag, a)]
        return [link for link in written if urlsplit(link).scheme not in (*FOREIGN, "data", "javascript")]


def redirects(tag: str, attributes: dict[str, str]) -> bool:
    return tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh"


def parse(markup: str) -> Document:
    document = Document()
    document.feed(markup)
    document.close()
    return document


@cache
def document(file: Path) -> Document:
    return parse(file.read_text(encoding="utf-8"))


def pages(site: Path) -> list[str]:
    """Every page that a reader can open, relative to the book; fragments of the theme and redirects are none."""
    files = (f for f in sorted(site.rglob("*.html")) if f.relative_to(site).parts[0] != "_static")
    return [f.relative_to(site).as_posix() for f in files if not any(redirects(*e) for e in document(f).elements)]


def pages_with(site: Path, text: str) -> list[str]:
    """Pages whose HTML contains ``text``."""
    return [page for page in pages(site) if text in (site / page).read_text(encoding="utf-8")]


def target(page: str, link: str) -> tuple[str, str]:
    """File, relative to the book, and anchor that ``link`` on ``page`` points to."""
    parts = urlsplit(link)
    path = posixpath.normpath(posixpath.join(posixpath.dirname(page), unquote(parts.path))) if parts.path else page
    return path, unquote(parts.fragment)
