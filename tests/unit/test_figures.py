"""Figures live in two themes, without ids that clash, and never without words for those who cannot see them."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import altair as alt
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firststep.book import charts, figures

pytestmark = pytest.mark.usefixtures("clean_environment")
WORDS = {"alt": "a line that rises", "caption": "The line rises.", "seeds": "0–9", "dtype": "float64"}


@pytest.fixture(autouse=True)
def style_put_back():
    with plt.rc_context():
        yield


@pytest.fixture
def shown(monkeypatch):
    bundles = []
    monkeypatch.setattr(figures, "display", lambda bundle, raw: bundles.append(bundle))
    return bundles


def drawn():
    """A figure with everything that makes SVG hard: clip paths, markers, mathematics, a legend and an image."""
    fig, axes = figures.new(1, 2)
    figures.predicted(axes[0], [1, 2, 3], [1, 4, 9])
    figures.band(axes[0], [1, 2, 3], np.arange(12.0).reshape(3, 4), r"$\sigma_1 < 2$ & more", "blue", marker="o")
    axes[1].imshow(np.eye(3))
    axes[0].set(xlabel=r"$\eta$ <b>bold</b> -- #1", title="a --> b")
    axes[0].legend()
    return fig


def ids(markup):
    return re.findall(r'\bid="([^"]*)"', markup)


class Seen(HTMLParser):
    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.comments = [], [], []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes.append(dict(attributes))


# SVG


def test_the_ink_of_a_figure_is_the_text_colour_of_the_page():
    markup = figures.svg(drawn())
    assert figures._INK not in markup
    assert "currentColor" in markup


def test_every_reference_finds_its_target_in_the_same_figure():
    markup = figures.svg(drawn())
    targets = set(re.findall(r'href="#([^"]*)"', markup)) | set(re.findall(r"url\(#([^)]*)\)", markup))
    assert len(targets) > 5
    assert targets <= set(ids(markup))
    assert len(ids(markup)) == len(set(ids(markup)))


def test_two_figures_share_no_id_even_if_they_are_equal():
    first, second = figures.svg(drawn()), figures.svg(drawn())
    assert not set(ids(first)) & set(ids(second))


def test_equal_figures_differ_in_nothing_but_the_prefix_of_their_ids():
    bare = [re.sub(r"\bf\d+-", "", figures.svg(drawn())) for _ in range(2)]
    assert bare[0] == bare[1]


def test_a_figure_scales_with_the_page_and_is_hidden_from_screen_readers_that_get_the_words_instead():
    root = ElementTree.fromstring(figures.svg(drawn()))
    assert "width" not in root.attrib and "height" not in root.attrib
    assert "viewBox" in root.attrib
    assert root.attrib["aria-hidden"] == "true"


def test_texts_in_a_figure_become_outlines_that_no_font_is_needed_for():
    seen = Seen(figures.svg(drawn()))
    assert not {"text", "b", "script"} & set(seen.tags)
    assert "path" in seen.tags


def test_a_figure_loads_nothing():
    for attributes in Seen(figures.svg(drawn())).attributes:
        for name in ("href", "xlink:href", "src"):
            assert not (attributes.get(name) or "").startswith(("http", "//", "file"))


def test_a_figure_is_never_open_so_that_no_notebook_shows_it_a_second_time():
    fig = drawn()
    assert plt.get_fignums() == []
    assert "<svg" in figures.svg(fig)
    assert plt.get_fignums() == []


def test_what_is_added_to_a_figure_in_a_later_cell_has_the_style_of_the_book():
    _, ax = figures.new()
    ax.plot([0, 1], label="later")
    assert ax.legend().get_texts()[0].get_color() == figures._INK
    assert ax.set_title("later").get_color() == figures._INK


# Theory and measurement


def test_theory_is_dashed_in_the_colour_of_the_text():
    _, ax = figures.new()
    figures.predicted(ax, [0, 1], [2, 3])
    (line,) = ax.lines
    assert (line.get_linestyle(), line.get_color(), line.get_label()) == ("--", figures._INK, "predicted")
    assert line.get_xydata().tolist() == [[0, 2], [1, 3]]


def test_theory_may_be_drawn_otherwise_where_a_figure_needs_it():
    _, ax = figures.new()
    figures.predicted(ax, [0, 1], [2, 3], None, lw=0.5, color="red")
    assert (ax.lines[0].get_linewidth(), ax.lines[0].get_color()) == (0.5, "red")


@settings(max_examples=15)
@given(seeds=st.integers(1, 9), steps=st.integers(1, 5), level=st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_a_band_holds_the_central_part_of_the_seeds_around_their_median(seeds, steps, level):
    y = np.random.default_rng(seeds).normal(size=(steps, seeds))
    _, ax = figures.new()
    figures.band(ax, range(steps), y, "measured", "blue", level=level)
    assert np.allclose(ax.lines[0].get_ydata(), np.median(y, axis=1))
    corners = ax.collections[0].get_paths()[0].vertices
    for x in range(steps):
        inside = corners[corners[:, 0] == x, 1]
        assert np.isclose(inside.min(), np.quantile(y[x], (1 - level) / 2))
        assert np.isclose(inside.max(), np.quantile(y[x], (1 + level) / 2))


def test_a_band_leaves_out_seeds_that_diverged():
    y = np.array([[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]])
    _, ax = figures.new()
    figures.band(ax, [0, 1], y, "measured", "green")
    assert ax.lines[0].get_ydata().tolist() == [2.0, 2.0]


# On the page


def test_a_shown_figure_has_its_alternative_text_its_caption_and_where_it_came_from(shown):
    figures.show(drawn(), **WORDS, tolerance="d·ε·σ₁")
    (bundle,) = shown
    seen = Seen(bundle["text/html"])
    assert {"role": "img", "aria-label": WORDS["alt"]} in seen.attributes
    caption = re.search(r"<figcaption>(.*)</figcaption>", bundle["text/html"])[1]
    assert caption == "The line rises. Seeds 0–9; cpu scale; float64; tolerance d·ε·σ₁."
    assert bundle["text/plain"] == "[figure: a line that rises]"


@settings(max_examples=30)
@given(text=st.text(alphabet="<>&\"'a$ ", min_size=1, max_size=20).filter(str.strip))
def test_no_text_of_a_figure_becomes_markup(text):
    with pytest.MonkeyPatch.context() as patch:
        bundles = []
        patch.setattr(figures, "display", lambda bundle, raw: bundles.append(bundle))
        patch.setattr(figures, "svg", lambda fig, **options: "")
        figures.show(drawn(), alt=text, caption=text, seeds=text, dtype=text)
    seen = Seen(bundles[0]["text/html"])
    assert [tag for tag in seen.tags if tag != "span"] == ["figure", "div", "div", "figcaption"]
    assert seen.attributes[1] == {"role": "img", "aria-label": text}


def test_the_book_has_a_narrow_picture_for_phones_with_its_panels_below_each_other(shown, monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_BUILD", "1")
    fig, axes = figures.new(1, 3)
    for ax in axes:
        ax.plot([0, 1], [0, 1], label="line")
    fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figures.show(fig, **WORDS)
    sizes = [(float(w), float(h)) for w, h in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', shown[0]["text/html"])]
    (wide, _), (narrow, high) = sizes
    assert narrow < 1.1 * 72 * figures.PHONE < wide and high > 2 * narrow
    assert len({ax.get_subplotspec().colspan.start for ax in axes}) == 1


def test_mathematics_in_a_caption_is_escaped_and_marked(shown):
    figures.show(drawn(), **WORDS | {"caption": "If $a<b$ & c."})
    assert r'<span class="math notranslate nohighlight">\(a&lt;b\)</span> &amp; c.' in shown[0]["text/html"]


@pytest.mark.parametrize("name", ["alt", "caption"])
@pytest.mark.parametrize("value", ["", "  \n", None])
def test_a_figure_without_words_is_not_shown(shown, name, value):
    with pytest.raises(ValueError, match=re.escape(f"got {name}={value!r}")):
        figures.show(drawn(), **WORDS | {name: value})
    assert shown == []


def test_the_conditions_name_seeds_scale_dtype_and_tolerance(monkeypatch):
    monkeypatch.setenv("FIRSTSTEP_SCALE", "smoke")
    assert figures.conditions(seeds="0–3", dtype="float32") == "Seeds 0–3; smoke scale; float32."


def test_a_vega_chart_gets_the_ink_of_the_page_and_no_background():
    spec = charts.themed(alt.Chart(alt.NamedData("d")).mark_point().encode(x="a:Q")).to_dict()
    assert spec["config"]["background"] == "transparent"
    assert spec["config"]["axis"]["labelColor"] == spec["config"]["legend"]["titleColor"] == figures._INK


def test_colours_of_the_palette_are_distinct_and_readable_on_white_and_on_black():
    def lightness(colour):
        return float(np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) @ [0.299, 0.587, 0.114])

    assert len(set(figures.COLORS.values())) == len(figures.COLORS)
    assert all(70 < lightness(colour) < 190 for colour in figures.COLORS.values())
