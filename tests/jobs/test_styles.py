"""A finder looks the same in all figures, whatever else is drawn or registered."""

from itertools import pairwise

import pytest

import scripting
from plantjax.finders import FINDERS
from plantjax.finders.registry import BUILT_IN
from plantjax.jobs.styles import COLORS, MARKERS, style
from plantjax.scores import SCORES


def test_no_two_finders_look_alike() -> None:
    assert set(BUILT_IN) == set(FINDERS)
    assert len({style(name) for name in BUILT_IN}) == len(BUILT_IN) < len(COLORS) * len(MARKERS)
    for before, name in pairwise(BUILT_IN):
        assert style(before).color != style(name).color
        assert style(before).marker != style(name).marker


@pytest.mark.parametrize("control", ["shuffled", "oracle", "shuffled+oracle", "of_a_user"])
def test_controls_are_other_lines_of_their_finder(control: str) -> None:
    plain, other = style("snip"), style(f"snip+{control}")
    assert plain[:2] == other[:2]
    assert plain.line != other.line


def test_users_finders_change_no_style() -> None:
    before, mine = style("edge_popup"), style("mine")
    with scripting.restored():
        SCORES["a_new_score"] = SCORES["snip"]
        FINDERS["mine"] = FINDERS["snip"]
        assert style("edge_popup") == before
        assert style("mine") == mine == style("mine+shuffled")._replace(line="-")
    assert mine[:2] not in {style(name)[:2] for name in BUILT_IN}
