"""Chapter 6, and the pages of results: the paper's numbers, and how a reader sees what is measured."""

MEASURES = {  # column of the table -> how a reader sees it
    "drop_points": "confidence drop, points",
    "drop_relative": "confidence drop, % of the confidence",
    "prediction_change": "prediction change, %",
}

# Shadman et al. (2025), tables 1 and 2, in percent: SDD CAM, random CAM. It does not give the relative drop.
PAPER = {
    ("deletion", "drop_points"): (62.33, 42.50),
    ("deletion", "prediction_change"): (51.36, 29.73),
    ("retention", "drop_points"): (69.43, 82.21),
    ("retention", "prediction_change"): (57.68, 79.93),
}
AGREEMENT = ("agrees", "differs", "undecided")  # what an interval says of an expected ordering
