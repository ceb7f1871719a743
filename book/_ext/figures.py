"""Figures in two variants, for a light page and for a dark one, of which a reader sees, hears and loads one.

A cell of a notebook brings its dark variant in its output, beside the light one; a figure of a page has it in a file of
its own, ``name-dark.svg`` beside ``name.svg``. Both stand in one figure with one caption, one number and the same text
alternative, under the theme's classes ``only-light`` and ``only-dark``. Figures of pixels are written as WebP, a
quarter of their size. Each image says how large it is and is loaded when it comes into sight. Other formats than HTML
get the light variants, as they are.

The figure of a cell with the tag `opening-figure` also stands at the end of its chapter's opening, which says where it
is explained: a chapter begins with its answer, and what the answer rests on is computed later.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from PIL import Image
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.images import get_image_size
from sphinx.writers.html5 import HTML5Translator

MIME = "application/vnd.xfrlib.dark+"  # as notebooks/studies/dark_figures.py writes it
FOLDER = "_dark"  # below the sources
OPENING = "opening-figure"  # tag of a cell
WIDE = 700  # pixels: the letters of a wider figure are too small on a phone


def take_out(app: Sphinx, docname: str, source: list[str]) -> None:
    """Write the dark variants of a notebook's figures to files, named after the light ones as MyST-NB names these."""
    if MIME not in source[0]:
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for kind in [kind for kind in data if kind.startswith(MIME)]:
                dark, suffix = "".join(data.pop(kind)), kind.removeprefix(MIME)
                if "image/svg+xml" in data:
                    light = os.linesep.join("".join(data["image/svg+xml"]).splitlines()).encode()
                else:
                    light = base64.b64decode("".join(data["image/png"]))
                path = Path(app.srcdir, FOLDER, f"{hashlib.sha256(light).hexdigest()}-dark.{suffix}")
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(dark.encode() if suffix == "svg" else base64.b64decode(dark))
    source[0] = json.dumps(notebook)


def set_beside(app: Sphinx, doctree: nodes.document) -> None:
    """Set the dark variant of each image beside it, and offer a WebP of each light one that was drawn by a notebook."""
    for image in list(doctree.findall(nodes.image)):
        if "://" in image["uri"] or image["uri"].startswith("data:"):
            continue
        image["loading"] = "lazy"
        path = Path(app.env.relfn2path(image["uri"])[1])
        dark = [*path.parent.glob(f"{path.stem}-dark.*"), *Path(app.srcdir, FOLDER).glob(f"{path.stem}-dark.*")]
        if path.suffix == ".png" and "jupyter_execute" in path.parts:
            with Image.open(path) as pixels:
                pixels.convert("RGB").save(path.with_suffix(".webp"), quality=90)
            image["uri"] = image["uri"].removesuffix("png") + "*"  # Sphinx takes the kind that its writer likes best
        if dark:
            twin = image.deepcopy()
            twin["uri"] = "/" + os.path.relpath(dark[0], app.srcdir)
            image["classes"] += ["only-light", "no-scaled-link"]  # no link around an image that is not shown
            twin["classes"] += ["only-dark", "no-scaled-link"]
            twin["ids"], twin["names"] = [], []
            pair = nodes.container("", classes=["light-or-dark"])  # the theme would hide the caption after its image
            image.parent.replace(image, pair)  # not replace_self, which hands the classes on
            pair += [image, twin]


def show_at_opening(app: Sphinx, doctree: nodes.document) -> None:
    """Show a chapter's main figure above its first section, too: of those with the tag the first that was drawn."""
    marked = (cell for cell in doctree.findall(nodes.container) if f"tag_{OPENING}" in cell["classes"])
    figure = next((figure for cell in marked for figure in cell.findall(nodes.figure)), None)
    if figure is None:
        return
    name = figure["names"][0]
    number = addnodes.pending_xref(
        "", nodes.inline(), refdomain="std", reftype="numref", reftarget=name, refdoc=app.env.docname,
        refexplicit=False, refwarn=True,
    )  # fmt: skip
    copy = nodes.container("", figure[0].deepcopy(), classes=[OPENING])
    for image in copy.findall(nodes.image):
        image["ids"], image["names"] = [], []
    before, after = (
        nodes.Text("The answer in one figure. Below it stands again, as "),
        nodes.Text(", and is explained."),
    )
    copy += nodes.paragraph("", "", before, number, after)
    opening = next(iter(doctree.findall(nodes.section)))
    first = next(child for child in opening if "cell" in child.get("classes", []) or isinstance(child, nodes.section))
    opening.insert(opening.index(first), copy)


class LightAlone(SphinxPostTransform):
    """Take the dark variants out where the page cannot choose."""

    default_priority = 5

    def run(self, **options: Any) -> None:
        if self.app.builder.format != "html":
            for image in list(self.document.findall(nodes.image)):
                if "only-dark" in image["classes"]:
                    image.parent.remove(image)


def visit_image(writer: HTML5Translator, image: nodes.image) -> None:
    """Write an image as Sphinx does, and its size in pixels, so that the page does not jump when it comes."""
    size = get_image_size(str(Path(writer.builder.srcdir, image["uri"])))
    if size and size[0] > WIDE:
        image["classes"] += ["wide"]  # on a phone it is moved sideways, see custom.css
    HTML5Translator.visit_image(writer, image)
    if size:
        writer.body[-1] = writer.body[-1].replace("<img ", f'<img width="{size[0]}" height="{size[1]}" ', 1)


def prefer_webp(app: Sphinx) -> None:
    if app.builder.format == "html":
        app.builder.supported_image_types = ["image/webp", *app.builder.supported_image_types]


def setup(app: Sphinx) -> dict[str, bool]:
    """Read and write figures in two variants."""
    app.connect("source-read", take_out)
    app.connect("doctree-read", set_beside, priority=400)  # before Sphinx collects the images
    app.connect("doctree-read", show_at_opening, priority=600)  # after the clock: a figure is looked at once
    app.connect("builder-inited", prefer_webp)
    app.add_post_transform(LightAlone)
    app.add_node(nodes.image, override=True, html=(visit_image, HTML5Translator.depart_image))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
