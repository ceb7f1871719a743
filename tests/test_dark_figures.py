"""The variants of figures for a dark page: what changes and what does not, how a site shows them, text alternatives."""

import base64
import colorsys
import io
import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import make_book
import matplotlib as mpl
import nbformat
import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex, to_rgb
from matplotlib.text import Text
from PIL import Image
from sphinx_build import sphinx_build
from test_plots import HISTORY, interval_table

from studies import dark_figures as dark
from studies import figures
from xfrlib import plots
from xfrlib.artifacts import build_root
from xfrlib.geometry import upsampled

SITES = sorted(path.parent for path in build_root().glob("*/html/index.html"))
GENERATED = ("genindex.html", "search.html", "py-modindex.html", "404.html")  # Sphinx's own; 404 belongs on a server
# Bytes of a page with its images. The page with the explorer loads more beside them, which is not counted here: by
# script come weights.js, whose size tests/test_page_explorer.py limits, and faces.js. Readers come to it for these two.
LIMIT = 3_000_000

# sRGB in linear light as the colour-blind see it: Machado, Oliveira and Fernandes (2009), severity 1
SEEN_BY = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def curves():
    return figures.training_curves(HISTORY)


def intervals():
    return figures.interval_plot(interval_table())


def maps():
    cams = torch.linspace(-1, 1, 8).reshape(2, 2, 2)
    cams = upsampled(cams, (16, 16))
    return figures.cam_row(torch.full((3, 16, 16), 0.5), cams, ["one", "two"], outlines=torch.eye(16).expand(2, 16, 16))


def numbers():
    """A map with a number in each cell, a bar chart beside it, a legend for the figure, and marks of every kind."""
    with plots.style():
        figure, axes = plots.subplots(1, 2, size=(6, 3))
        axes[0].imshow([[0, 1], [1, 0]])
        axes[0].text(0, 0, "9", color="white")
        axes[0].text(1.8, 0, "beside")
        axes[0].plot([], [], "s", color="#882255", label="key")
        axes[1].bar([0, 1], [2, 3], color=["#cfe3f5", "white"], edgecolor="black", hatch="//")
        axes[1].scatter([0, 1], [1, 1], color=["#777777", "#0072B2"])
        axes[1].fill_between([0, 1], [1, 2], alpha=0.2)
        axes[1].annotate("here", (0, 1), (1, 2), arrowprops={"arrowstyle": "->"}, bbox={"facecolor": "white"})
        axes[1].set_title("a pale title", color="#bbbbbb")
        figure.legend(loc="outside lower center", frameon=True)
    return figure


@pytest.fixture(params=[curves, intervals, maps, numbers], ids=lambda make: make.__name__)
def figure(request):
    return settled(request.param())


def settled(figure):
    """The figure after a drawing, its layout fixed: each new drawing would move it by a millionth of a point."""
    plots.save(figure, io.BytesIO(), "svg")
    figure.set_layout_engine("none")
    return figure


def drawn(figure, save=plots.save):
    buffer = io.BytesIO()
    save(figure, buffer, "svg")
    return buffer.getvalue()


def test_a_figure_is_the_same_after_its_dark_variant(figure):
    before = drawn(figure)
    in_the_dark = drawn(figure, dark.save_dark)
    assert drawn(figure) == before != in_the_dark
    assert drawn(figure, dark.save_dark) == in_the_dark
    assert dark.BACKGROUND in in_the_dark.decode() and dark.BACKGROUND not in before.decode()
    with pytest.raises(KeyError), dark.in_the_dark(figure):
        raise KeyError
    assert drawn(figure) == before


def test_all_text_can_be_read_in_the_dark(figure):
    with dark.in_the_dark(figure):
        assert to_hex(figure.get_facecolor()) == dark.BACKGROUND
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_text() != "9"]
        found = {text.get_text(): dark.contrast(text.get_color(), dark.BACKGROUND) for text in texts}
    assert len(found) > 4 and {text: ratio for text, ratio in found.items() if ratio < 4.5} == {}


def test_pictures_their_marks_and_their_keys_stay():
    figure = settled(numbers())
    before = drawn(figure)
    cells, bars = figure.axes
    (key,) = figure.legends[0].legend_handles
    with dark.in_the_dark(figure):
        assert cells.texts[0].get_color() == "white"
        assert to_hex(cells.texts[1].get_color()) == dark.INK
        assert key.get_color() == "#882255" and to_hex(figure.legends[0].texts[0].get_color()) == dark.INK
        assert to_hex(cells.spines["left"].get_edgecolor()) != to_hex("#444444")
        assert [to_hex(bar.get_facecolor()) for bar in bars.patches][1] == dark.BACKGROUND
        assert {to_hex(bar.get_edgecolor()) for bar in bars.patches} == {dark.INK}
        assert to_hex(bars.collections[0].get_facecolor()[1]) == dark.PALETTE["#0072b2"]
        assert bars.collections[1].get_alpha() == 0.2
        assert to_hex(bars.texts[0].get_bbox_patch().get_facecolor()) == dark.BACKGROUND
        assert to_hex(bars.texts[0].arrow_patch.get_edgecolor()) == dark.INK
    assert drawn(figure) == before
    figure = settled(maps())
    outlines = [tuple(c.get_edgecolor()[0]) for axis in figure.axes[1:3] for c in axis.collections]
    bar = figure.axes[-1]
    with dark.in_the_dark(figure):
        assert [tuple(c.get_edgecolor()[0]) for axis in figure.axes[1:3] for c in axis.collections] == outlines
        assert to_hex(bar.xaxis.label.get_color()) == dark.INK
        assert {to_hex(label.get_color()) for label in bar.get_xticklabels()} == {dark.INK}


def lab(colour, matrix):
    channels = np.asarray(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
    xyz = np.array(to_xyz) @ np.clip(np.array(matrix) @ linear, 0, 1) / (0.95047, 1, 1.08883)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("eyes", SEEN_BY)
def test_the_palette_can_be_told_apart_on_either_page(eyes):
    for colours in (plots.COLOURS, dark.PALETTE.values()):
        seen = [lab(colour, SEEN_BY[eyes]) for colour in colours]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 14


def test_the_palette_in_the_dark_keeps_hues_and_stands_out():
    assert list(dark.PALETTE) == [colour.lower() for colour in plots.COLOURS]
    for light, partner in list(dark.PALETTE.items()):
        assert dark.contrast(partner, dark.BACKGROUND) >= 4.5  # text may be coloured; lines need 3
        if light != "#000000":
            apart = colorsys.rgb_to_hls(*to_rgb(light))[0] - colorsys.rgb_to_hls(*to_rgb(partner))[0]
            assert abs(apart) < 10 / 360


@pytest.mark.parametrize("colour", ["white", "#dddddd", "#777777", "#444444", "#cfe3f5", "#882255"])
def test_other_colours_keep_hue_alpha_and_contrast(colour):
    found = dark.on_dark((*to_rgb(colour), 0.3))
    assert found[3] == 0.3
    assert dark.contrast(found, dark.BACKGROUND) == pytest.approx(dark.contrast(colour, "white"), rel=0.03)
    hue, _, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    if saturation:
        assert colorsys.rgb_to_hls(*found[:3])[0] == pytest.approx(hue, abs=0.01)


def test_contrast_is_that_of_wcag():
    assert dark.contrast("black", "white") == pytest.approx(21)
    assert dark.contrast("#767676", "white") == pytest.approx(4.54, abs=0.005)  # the palest grey of WCAG AA


def test_the_background_is_the_page_of_the_theme():
    import sphinx_book_theme

    (css,) = Path(sphinx_book_theme.__file__).parent.glob("theme/*/static/styles/sphinx-book-theme.css")
    rule = re.search(r"html\[data-theme=dark\]\{[^}]*--pst-color-background:(#\w+)", css.read_text())
    assert rule and rule[1] == dark.BACKGROUND


def test_lines_of_the_style_differ_without_colour():
    with plots.style():
        cycle = list(mpl.rcParams["axes.prop_cycle"])
    assert len({str(line["linestyle"]) for line in cycle}) == len({line["color"] for line in cycle}) == len(cycle) == 7
    _, axis = plots.subplots()
    with plots.style():
        lines = [axis.plot([0, 1])[0] for _ in cycle]
    assert len({str(line._dash_pattern) for line in lines}) == len(cycle)
    tones = [dark.luminance(colour) for colour in mpl.colormaps[plots.SEQUENTIAL](np.linspace(0, 1, 64))]
    assert (np.diff(tones) > 0).all()  # a map reads in grey as in colour


def test_notebooks_carry_both_variants_as_text(tmp_path):
    for make, kind, partner in ((curves, "image/svg+xml", "svg"), (maps, "image/png", "webp")):
        data = dark.both_variants(make())
        assert list(data) == [kind, f"{dark.MIME}{partner}"]
        assert data[kind] == make()._repr_mimebundle_()[kind]
        held = data | {"image/png": base64.b64encode(data["image/png"]).decode()} if "image/png" in data else data
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("", outputs=[nbformat.v4.new_output("display_data", held)])]
        )
        nbformat.validate(notebook)
        nbformat.write(notebook, tmp_path / "page.ipynb")
        again = nbformat.read(tmp_path / "page.ipynb", as_version=4).cells[0].outputs[0].data
        assert dict(again) == held
    with Image.open(io.BytesIO(base64.b64decode(data[f"{dark.MIME}webp"]))) as picture:
        assert picture.format == "WEBP"
        assert np.abs(np.array(picture.getpixel((0, 0))[:3]) - 0x12).max() <= 1


def test_make_gives_the_figures_of_a_notebook_their_dark_variant(tmp_path):
    source = "from xfrlib import plots\nfigure, axis = plots.subplots()\naxis.plot([0, 1])\nfigure"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "chapter.ipynb")
    (cell,) = make_book.execute(tmp_path / "chapter.ipynb", {"profile": "quick"}).cells[-1:]
    (output,) = cell.outputs
    assert "image/svg+xml" in output.data
    assert dark.BACKGROUND in output.data[f"{dark.MIME}svg"]


class Images(HTMLParser):
    """The images of a page, each with its attributes, and whether it lies within a figure."""

    def __init__(self, page):
        super().__init__()
        self.found, self.figures, self.captions = [], 0, 0
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.figures += tag == "figure"
        self.captions += tag == "figcaption"
        if tag == "img":
            self.found.append(dict(attributes))

    handle_startendtag = handle_starttag


def notebook_of(*figures):
    """A notebook that shows figures, each with a caption and a text alternative, as papermill leaves it."""
    cells = [nbformat.v4.new_markdown_cell("# Page")]
    for number, data in enumerate(figures):
        about = {"figure": {"caption": f"Caption {number}", "name": f"fig-{number}"}, "image": {"alt": f"Alt {number}"}}
        output = nbformat.v4.new_output("execute_result", data, execution_count=1)
        cells.append(nbformat.v4.new_code_cell("figure", metadata={"mystnb": about}, outputs=[output]))
    meta = {"kernelspec": {"name": "python3", "display_name": "Python 3"}, "language_info": {"name": "python"}}
    return nbformat.v4.new_notebook(cells=cells, metadata=meta)


def build(folder, builder="html"):
    """Build the pages of a folder with warnings as errors."""
    config = {
        "extensions": ["myst_nb", "figures"], "root_doc": "index", "html_theme": "pydata_sphinx_theme",
        "nb_execution_mode": "off", "numfig": True, "exclude_patterns": ["_build"],
    }  # fmt: skip
    assert sphinx_build(folder, config, builder) == (0, "")
    return folder / "_build" / builder


@pytest.fixture
def pages(tmp_path):
    """A site of a notebook, two of whose figures have a dark variant, and of a page with a drawing that has one."""
    bundles = [dark.both_variants(curves()), dark.both_variants(maps())]
    bundles[1]["image/png"] = base64.b64encode(bundles[1]["image/png"]).decode()
    old = {"image/svg+xml": drawn(intervals()).decode()}
    nbformat.write(notebook_of(*bundles, old), tmp_path / "notebook.ipynb")
    (tmp_path / "figures").mkdir()
    (tmp_path / "book").mkdir()
    plots.save(curves(), tmp_path / "figures" / "drawing.svg")
    dark.save_dark(curves(), tmp_path / "figures" / "drawing-dark.svg")
    drawing = "```{figure} ../figures/drawing.svg\n:alt: A drawing\n:width: 80%\n:name: drawing\nDrawn.\n```"
    (tmp_path / "book" / "page.md").write_text(f"# Drawing\n\n{drawing}\n\n{{numref}}`drawing`")
    (tmp_path / "index.md").write_text("# Site\n\n```{toctree}\nnotebook\nbook/page\n```\n")
    return tmp_path


def test_a_site_shows_one_variant_of_each_figure(pages):
    site = build(pages)
    page = Images(site / "notebook.html")
    assert page.figures == page.captions == 3
    images = [(image["alt"], image.get("class", ""), Path(image["src"]).suffix) for image in page.found]
    assert images == [
        ("Alt 0", "only-light no-scaled-link wide", ".svg"),
        ("Alt 0", "only-dark no-scaled-link wide", ".svg"),
        ("Alt 1", "only-light no-scaled-link wide", ".webp"),
        ("Alt 1", "only-dark no-scaled-link wide", ".webp"),
        ("Alt 2", "wide", ".svg"),
    ]
    for image in page.found:
        assert image["loading"] == "lazy" and int(image["width"]) > 300 and int(image["height"]) > 100
        assert (site / image["src"]).is_file()
    light, partner = ((site / image["src"]).read_text() for image in page.found[:2])
    assert dark.BACKGROUND in partner and dark.BACKGROUND not in light
    text = (site / "notebook.html").read_text()
    assert re.findall(r'caption-number">Fig. (\d+)', text) == ["1", "2", "3"]
    assert len(re.findall('class="[^"]*only-', text)) == 4  # the images alone: a caption is for both
    pairs = re.findall(r'<div class="light-or-dark docutils container">.*?</div>', text, re.S)
    assert len(pairs) == 2 and "figcaption" not in "".join(pairs)
    drawing = Images(site / "book" / "page.html")
    assert [(image["alt"], image["src"].rsplit("/")[-1]) for image in drawing.found] == [
        ("A drawing", "drawing.svg"),
        ("A drawing", "drawing-dark.svg"),
    ]
    assert {image["style"] for image in drawing.found} == {"width: 80%;"}
    assert 'href="../_images' not in (site / "book" / "page.html").read_text()  # no link around an image that is hidden
    assert (drawing.figures, drawing.captions) == (1, 1)


def test_other_formats_get_the_light_variant_alone(tmp_path):
    data = dark.both_variants(maps())
    data["image/png"] = base64.b64encode(data["image/png"]).decode()
    nbformat.write(notebook_of(data), tmp_path / "index.ipynb")
    folder = build(tmp_path, "latex")
    written = "".join(path.read_text() for path in folder.glob("*.tex"))
    assert len(re.findall("includegraphics{", written)) == 1
    (picture,) = folder.glob("*.png")
    assert picture.read_bytes() == base64.b64decode(data["image/png"])
    assert not [*folder.glob("*dark*"), *folder.glob("*.webp")]


def test_the_figure_with_the_tag_stands_at_the_opening_too(tmp_path):
    figures = [{"image/svg+xml": drawn(curves()).decode()}, {"image/svg+xml": drawn(intervals()).decode()}]
    notebook = notebook_of(*figures)
    notebook.cells[0]["source"] = "# Page\n\nThe answer."
    notebook.cells.insert(2, nbformat.v4.new_markdown_cell("## Proof"))
    notebook.cells[3]["metadata"]["tags"] = ["hide-input", "opening-figure"]
    nbformat.write(notebook, tmp_path / "index.ipynb")
    page = build(tmp_path) / "index.html"
    assert [image["alt"] for image in Images(page).found] == ["Alt 1", "Alt 0", "Alt 1"]
    text = page.read_text()
    opening = text[text.index('class="opening-figure') : text.index("Caption 0")]
    assert text.index("The answer.") < text.index('class="opening-figure')
    assert 'href="#fig-1"' in opening and "Fig. 2" in opening and text.count('id="fig-1"') == 1
    assert re.findall(r'caption-number">Fig. (\d+)', text) == ["1", "2"]


def shown(site):
    """(page, its images) for each page of a site that a reader is led to."""
    for page in sorted(site.rglob("*.html")):
        if not {"_static", "_sources"} & set(page.parts) and page.name not in GENERATED:
            yield page, Images(page).found


needs_site = pytest.mark.skipif(not SITES, reason="no site is built: make book")


@needs_site
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)
def test_every_image_says_what_it_shows(site):
    silent = [
        f"{page.relative_to(site)}: {image['src']}"
        for page, images in shown(site)
        for image in images
        if len(image.get("alt") or "") < 10 or image["alt"] == image["src"]
    ]
    assert silent == []


@needs_site
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)
def test_a_page_and_what_it_loads_is_small(site):
    for page, images in shown(site):
        for other in ("only-dark", "only-light"):
            files = {(page.parent / image["src"]).resolve() for image in images if other not in image.get("class", "")}
            size = page.stat().st_size + sum(file.stat().st_size for file in files)
            assert size < LIMIT, f"{page.relative_to(site)} and its images take {size / 1e6:.1f} MB"


@needs_site
@pytest.mark.parametrize("site", SITES, ids=lambda site: site.parent.name)
def test_executed_figures_have_a_dark_variant(site):
    bare = [
        f"{page.relative_to(site)}: {image['alt']}"
        for page, images in shown(site)
        for image in images
        if re.search(r"/([0-9a-f]{64}|landing)\.\w+$", image["src"])  # drawn by a notebook
        and not re.search("only-(light|dark)", image.get("class", ""))
    ]
    assert bare == []
