"""Draw a sheet of made look-alikes, the part that differs named at the left: the README's, or one of heads.

``python scripts/draw_made_faces.py`` draws the first, and with ``--heads heads.png`` the other, in that file.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from madefaces import heads
from madefaces.people import make_families, picture_seed, render
from xfrlib import plots

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))  # the chapters draw such a sheet
from studies.figures import contact_sheet

ROOT = Path(__file__).resolve().parents[1]
SHEET_FAMILIES, SHEET_MEMBERS, SHEET_PICTURES = 4, 3, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", type=Path, metavar="FILE", help="draw heads instead, and write them there")
    file = parser.parse_args().heads
    if file:  # a row for each part that can differ, its members in one pose and light
        people = make_families(len(heads.DIFFERING), SHEET_MEMBERS, seed=0, kind=heads.HEADS)
        seeds = [picture_seed(0, row // SHEET_MEMBERS, 0) for row in range(len(people))]
        pictures = heads.render(people, seeds, nuisance=0.5)[0]
    else:
        people = make_families(SHEET_FAMILIES, SHEET_MEMBERS, seed=0)
        shown = [(person, picture_seed(0, row, k)) for row, person in enumerate(people) for k in range(SHEET_PICTURES)]
        pictures = np.asarray(render([person for person, _ in shown], [seed for _, seed in shown])[0])
    rows = ["differ in " + " and ".join(person.differs) for person in people[::SHEET_MEMBERS]]
    figure = contact_sheet(pictures, columns=len(pictures) // len(rows), rows=rows, width=5.5)
    plots.save(figure, file or ROOT / "book" / "_static" / "made_faces.png")


if __name__ == "__main__":
    main()
