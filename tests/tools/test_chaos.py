"""Chaos: a short run of every trial, and bad input."""

from pathlib import Path

import pytest

import chaos
from plantjax.jobs import cli


@pytest.mark.slow
@pytest.mark.parametrize("trial", chaos.TRIALS)
def test_a_disturbed_sweep_ends_with_the_same_table(
    trial: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    chaos.main(["--out", str(tmp_path / "chaos"), "--trials", trial, "--kills", "3"])
    shown = capsys.readouterr().out
    assert f"{trial}: " in shown
    assert "the same table" in shown or "left out" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--trials fire", "--trials must be one of ways, .*, got 'fire'"),
        ("--kills 0", "--kills must be an integer of at least 1, got 0"),
        ("--seed -1", "--seed must be an integer of at least 0, got -1"),
        ("--out {}", "--out must be a new or empty folder"),
    ],
)
def test_bad_input_is_refused(words: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(cli.InputError, match=message):
        chaos.main(words.format(tmp_path).split())
