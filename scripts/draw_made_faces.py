"""Draw the picture of the README: families of made look-alikes, the part that differs named at the left."""

import sys
from pathlib import Path

import numpy as np

from madefaces.people import make_families, picture_seed, render
from xfrlib import plots

sys.path.append(str(Path(__file__).resolve().parents[1] / "notebooks"))  # the chapters draw such a sheet
from studies.figures import contact_sheet

ROOT = Path(__file__).resolve().parents[1]
SHEET_FAMILIES, SHEET_MEMBERS, SHEET_PICTURES = 4, 3, 2


def main() -> None:
    people = make_families(SHEET_FAMILIES, SHEET_MEMBERS, seed=0)
    shown = [(person, picture_seed(0, row, k)) for row, person in enumerate(people) for k in range(SHEET_PICTURES)]
    pictures = render([person for person, _ in shown], [seed for _, seed in shown])[0]
    rows = ["differ in " + " and ".join(person.differs) for person in people[::SHEET_MEMBERS]]
    figure = contact_sheet(np.asarray(pictures), columns=SHEET_MEMBERS * SHEET_PICTURES, rows=rows, width=5.5)
    plots.save(figure, ROOT / "book" / "_static" / "made_faces.png")


if __name__ == "__main__":
    main()
