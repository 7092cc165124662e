"""The script of the leak audit: a small table, resumed, and what it refuses."""

import pandas as pd
import pytest

import audit
from plantjax.jobs.job import InputError

FEW = ("large", "twins")
SMOKE = ["--tasks", "relu", "--depth", "3", "--width", "8", "--seeds", "2"]


@pytest.mark.slow
def test_a_case_is_computed_once_and_its_table_has_every_detector(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(audit, "DETECTORS", {name: audit.DETECTORS[name] for name in FEW})
    for _ in range(2):
        audit.main([*SMOKE, "--out", str(tmp_path)])
    assert capsys.readouterr().out.count("relu he norm 0 ...") == 1
    table = pd.read_csv(tmp_path / "audit.csv")
    assert set(table["detector"]) == set(FEW)
    assert set(table["rule"]) == {"norm", "paper"}
    assert (table["recall"] >= 0).all()
    text = (tmp_path / "audit.md").read_text()
    assert "--tasks relu" in text
    assert "seeds 0 to 1" in text


def test_all_tasks_schemes_and_rules_have_a_case():
    cases = audit.Settings().cases()
    assert {case.task for case in cases} == set(audit.KNOWN)
    assert len({case.scheme for case in cases}) == 5
    assert len({case.id for case in cases}) == len(cases)


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(InputError, match="--tasks must be one of circle"):
        audit.main(["--tasks", "square", "--out", str(tmp_path)])
