"""The table of results as a file: what goes in comes out, and what is wrong is said."""

import sys

import pandas as pd
import pytest

from plantjax import results
from plantjax.results import table as module

ROWS = pd.DataFrame(
    [
        dict.fromkeys(module.NEEDED, "x")
        | {"seed": seed, "density_name": name, "value": 1 / 3, "ticket_value": 0.9}
        for seed in (0, 1)
        for name in ("0.50", "ticket")
    ]
)


def test_a_table_comes_back_to_the_last_digit(tmp_path):
    about = {"command": "python a.py --x '#'", "device": "cpu: cpu (2)"}
    for name in ("a", "b"):
        results.write(ROWS, tmp_path / f"{name}.csv.gz", about)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    found = results.load(tmp_path / "a.csv.gz")
    assert found.attrs == about
    pd.testing.assert_frame_equal(found, ROWS, check_exact=True)
    ROWS.to_csv(tmp_path / "plain.csv", index=False)
    pd.testing.assert_frame_equal(results.load(str(tmp_path / "plain.csv")), ROWS)


def test_a_column_whose_first_rows_are_empty_has_one_type(tmp_path):
    rows = [ROWS.assign(tuned=float("nan"))] * 20_000 + [ROWS.assign(tuned="rounds=10")]
    results.write(pd.concat(rows), tmp_path / "a.csv.gz", {})
    found = results.load(tmp_path / "a.csv.gz")  # a warning would fail
    assert found["tuned"].isna().sum() == 80_000
    assert set(found["tuned"].dropna()) == {"rounds=10"}


def test_what_is_missing_or_wrong_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ASSET", tmp_path / "none.csv.gz")
    with pytest.raises(FileNotFoundError, match=r"no table of its own: .*leaderboard.py page"):
        results.load()
    with pytest.raises(FileNotFoundError, match="there is no elsewhere"):
        results.load("elsewhere.csv")
    broken = tmp_path / "broken.csv.gz"
    broken.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match="must be a table of results"):
        results.load(broken)
    results.write(ROWS.drop(columns="stage"), broken, {})
    with pytest.raises(ValueError, match="without stage"):
        results.load(broken)
    with pytest.raises(ValueError, match="about must have"):
        results.write(ROWS, broken, {"a": "1\n2"})
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match=r"plantjax\[experiments\]"):
        results.load()
