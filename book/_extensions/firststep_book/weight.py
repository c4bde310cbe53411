"""What a reader does not have to load: icons that no page shows, and bundles that no page asks for."""

import re
from pathlib import Path

import pydata_sphinx_theme
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx

THEME = Path(pydata_sphinx_theme.__file__).parent / "theme" / "pydata_sphinx_theme" / "static"
TYPESETTER = "tex-chtml.js"
_OF_THE_THEME = re.compile(
    r'<link rel="preload" as="font"[^>]*>|<link rel="preload" as="script"[^>]*fontawesome[^>]*>'
    r"|<script[^>]*fontawesome\.js[^>]*></script>"
)
_NAMELESS = re.compile(r'<summary>(<span class="toctree-toggle")')  # a switch in the sidebar that says nothing


def lighten(app: Sphinx, failure: Exception | None) -> None:
    """Replace the theme's two icon libraries by a font of the icons in use; keep one of MathJax's bundles."""
    if failure is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    write_icon_font(icons(Path(app.outdir)), static / "icons.woff")
    # The theme draws every icon twice, by a script of half a megabyte and by a font; one of the icons in use will do.
    for page in Path(app.outdir).rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        text = _NAMELESS.sub(r'<summary aria-label="Pages of this chapter">\1', _OF_THE_THEME.sub("", text))
        page.write_text(text, encoding="utf-8")
    for bundle in (static / "mathjax").glob("*-*.js"):
        if bundle.name != TYPESETTER:
            bundle.unlink()


def icons(site: Path) -> set[int]:
    """Code points of the icons that the site's pages, its scripts, and rules of its style sheets show."""
    text = "".join(path.read_text(encoding="utf-8") for path in site.glob("_static/**/*.css"))
    rules = re.findall(r'([^{}]*)\{[^{}]*?(?:content|--fa):\s*["\']\\(f[0-9a-f]{3})["\']', text)
    sources = [*site.rglob("*.html"), *site.glob("_static/*.js"), *site.glob("_static/scripts/*book*.js")]
    named = set(re.findall(r"\bfa-[a-z0-9-]+", " ".join(path.read_text(encoding="utf-8") for path in sources)))
    found = set()
    for selectors, code in rules:
        classes = set(re.findall(r"\.(fa-[a-z0-9-]+)", selectors))
        if not classes or classes & named:
            found.add(int(code, 16))
    return found


def write_icon_font(codes: set[int], path: Path) -> None:
    """A font of these glyphs of Font Awesome's solid style."""
    font = TTFont(THEME / "vendor" / "fontawesome" / "webfonts" / "fa-solid-900.ttf")
    options = subset.Options(flavor="woff", notdef_outline=False, name_IDs=[0, 1, 2, 13], layout_features=[])
    wanted = subset.Subsetter(options)
    wanted.populate(unicodes=codes)
    wanted.subset(font)
    font.flavor = "woff"
    font.save(path)
