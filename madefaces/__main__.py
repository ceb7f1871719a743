"""Write made people to a folder of pictures, as a profile with ``dataset: folder`` reads it.

    python -m madefaces data/heads --families 30 --family-size 1 --pictures 20

`<folder>/<person>/<nnn>.png` are heads in three dimensions, cut to 112x112 pixels as ArcFace's alignment cuts a
photograph; with ``--drawn``, faces drawn in two dimensions. Beside the folder lie the masks of their parts and what is
known of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from madefaces.heads import ALIGNED
from madefaces.people import DRAWN, write_faces
from xfrlib.artifacts import in_sentences


@in_sentences()
def main(arguments: list[str] | None = None) -> None:
    """The command line; see the top of this file."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m madefaces", description=__doc__, formatter_class=form)
    parser.add_argument("folder", type=Path, help="is made; what is in it already stays or is written again")
    parser.add_argument("--families", type=int, default=30, help="families of look-alikes (30)")
    parser.add_argument("--family-size", type=int, default=1, help="members of each, 1 for strangers (1)")
    parser.add_argument("--pictures", type=int, default=20, help="of each person (20)")
    parser.add_argument("--seed", type=int, default=0, help="of everything (0)")
    parser.add_argument("--drawn", action="store_true", help="faces in two dimensions in place of heads")
    given = parser.parse_args(arguments)
    write_faces(
        given.folder,
        families=given.families,
        family_size=given.family_size,
        pictures_per_identity=given.pictures,
        seed=given.seed,
        kind=DRAWN if given.drawn else ALIGNED,
    )


if __name__ == "__main__":
    main()
