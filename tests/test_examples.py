"""The examples run, and their planted tickets are right."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "own_network.py"


@pytest.mark.slow
def test_own_network(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    found = [
        re.fullmatch(r"(\w+): (\w+) keeps (\d+), accuracy ([\d.]+)", line).groups()
        for line in lines
    ]
    assert [row[:2] for row in found] == [
        (network, ticket)
        for network in ("module", "list")
        for ticket in ("planted", "synflow", "edge_popup")
    ]
    for network, ticket, kept, accuracy in found:
        assert ticket != "planted" or float(accuracy) == 1.0, network
        assert int(kept) > 0
    assert len(EXAMPLE.read_text().splitlines()) < 60
