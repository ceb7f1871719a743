"""Whether a site may be published, and what it gets only where its public address is known: launch buttons, a card
for links to it, absolute addresses.

The publishing workflow gives the address of the site in SITE_URL and that of the repository in GITHUB_REPOSITORY;
without SITE_URL nothing here is used, and a local site has no button that would lead nowhere.

python tools/publishing.py colab FOLDER     the notebooks, each with a first cell that sets up its machine
"""

from __future__ import annotations

import copy
import os
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nbformat
import yaml
from dependencies import artefacts_of
from nbformat.v4 import new_code_cell

ROOT = Path(__file__).resolve().parents[1]
CARD = (1200, 630)  # pixels of the picture that is shown beside a link
COLAB_BRANCH = "colab"
SETUP = """# This machine has neither the book nor its packages, nor what the chapters before this one have made.
import sys

!git clone --quiet --depth 1 {repository} /content/book
%cd /content/book
!{{sys.executable}} -m pip install --quiet --editable ".[all]"
{earlier}%cd notebooks
sys.path[:0] = ["/content/book", "/content/book/notebooks"]"""


def require_publishable(profile: str) -> None:
    """Stop unless the profile allows its site to be published."""
    from xfrlib.profile import load_profile

    if not load_profile(profile).publishable:
        sys.exit(f"the profile {profile} is not publishable: its site shows pictures that may not be passed on")


def repository(config: dict[str, Any]) -> str:
    """Address of the repository: where the workflow runs, or else the one of _config.yml."""
    name = os.environ.get("GITHUB_REPOSITORY")
    return f"https://github.com/{name}" if name else str(config["repository"]["url"])


def with_address(config: dict[str, Any], address: str) -> dict[str, Any]:
    """The configuration of the book for a site at a public address.

    Raises `ValueError` when the address is not one of the web.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(
            f"SITE_URL={address!r} is no address of a site; it looks like https://somebody.github.io/book/"
        )
    address, config = address.rstrip("/") + "/", copy.deepcopy(config)
    config["repository"]["url"] = repository(config)
    config["html"] |= {"baseurl": address, "use_repository_button": True}
    config["launch_buttons"] |= {
        "binderhub_url": "https://mybinder.org",
        "colab_url": "https://colab.research.google.com",
    }
    config["sphinx"]["extra_extensions"].append("sphinxext.opengraph")
    width, height = CARD
    config["sphinx"]["config"] |= {
        "notfound_urls_prefix": urlsplit(address).path,
        "html_show_search_summary": True,
        "ogp_site_url": address,
        "ogp_site_name": config["title"],
        "ogp_social_cards": {"enable": False},
        "ogp_image": f"{address}_static/card.png",
        "ogp_image_alt": "The title of the book above made faces in families of look-alikes.",
        "ogp_custom_meta_tags": [
            '<meta name="twitter:card" content="summary_large_image" />',
            f'<meta property="og:image:width" content="{width}" />',
            f'<meta property="og:image:height" content="{height}" />',
        ],
    }
    return config


def draw_card(target: Path) -> None:
    """The picture beside a link to the site: its title and the made faces, 1200 by 630 pixels."""
    from matplotlib.figure import Figure
    from matplotlib.image import imread

    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    figure = Figure(figsize=(CARD[0] / 100, CARD[1] / 100), dpi=100, facecolor="white")
    figure.text(0.05, 0.83, config["title"], fontsize=38, fontweight="bold", color="#1f2328")
    figure.text(0.05, 0.74, "Why this person, and not a look-alike? A book that runs.", fontsize=22, color="#59636e")
    axes = figure.add_axes((0.05, 0.05, 0.9, 0.62))
    axes.imshow(imread(ROOT / "book" / "_static" / "made_faces.png"))
    axes.set_anchor("W")
    axes.axis("off")
    figure.savefig(target)


def colab_notebooks(folder: Path) -> list[Path]:
    """Write the notebooks with a first cell that fetches the book and runs the chapters they need."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    written = []
    for source in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")):
        notebook = nbformat.read(source, as_version=4)
        needed = artefacts_of(source)
        earlier = f"!{{sys.executable}} tools/make_book.py run quick {' '.join(needed)}\n" if needed else ""
        code = SETUP.format(repository=repository(config), earlier=earlier)
        notebook.cells.insert(0, new_code_cell(code, metadata={"id": "setup"}))
        target = folder / "notebooks" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, target)
        written.append(target)
    return written


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "colab":
        sys.exit(__doc__)
    colab_notebooks(Path(sys.argv[2]))
