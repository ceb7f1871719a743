"""What chapter 12 says of a step to the side: only what the interval of the paired difference carries."""

import pytest

from studies import stability
from xfrlib.intervals import Estimate


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (
            Estimate(0.1, 0.05, 0.15, 0.01),
            "paired, is 0.10 [0.05, 0.15]. So part of the loss comes from the sampling of the grid.",
        ),
        (Estimate(0.1, -0.05, 0.25, 0.2), "So the two are not told apart. The grid alone would cost 0.10 of the 0.40"),
        (Estimate(-0.1, -0.15, -0.05, 0.01), "So the maps are even less alike there. The grid alone would cost 0.10"),
    ],
)
def test_the_grid_is_blamed_only_where_a_whole_cell_is_clearly_better(again, said):
    value = {"sdd_sum": 0.6, "cam": 0.7, "disc": 0.8, "the grid alone": 0.9}
    at = {(n, d): {"overlap": Estimate(v, v - 0.1, v + 0.1, 0.5)} for n, v in value.items() for d in (1, 8, 16)}
    decision = {8: dict.fromkeys(("log_odds", "points", "changed"), Estimate(-0.2, -0.3, -0.1, 0.01))}
    against_disc = {name: Estimate(-0.2, -0.3, -0.1, 0.01) for name in ("sdd_sum", "cam")}
    found = stability.moved_findings(at, against_disc, decision, again, stride=16)
    assert said in found and ("sampling of the grid" in found) == (again.low > 0)
    assert "at 8 pixels: the calibrated margin changes by −0.2 [−0.3, −0.1]" in found
