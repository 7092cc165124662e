"""Chaos: kills and damage end with the same table; what differs is noticed; bad input."""

import shutil
from pathlib import Path

import pytest

import chaos
import scripting
import subject
from plantjax.jobs import InputError, chunks, folder


@pytest.mark.slow
def test_a_disturbed_sweep_ends_with_the_same_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", "")
    sweep = "--tasks relu --depth 3 --width 8 --epochs 0 --finders magnitude --rounds 2 --chunk 2"
    words = ["--kills", "2", f"--sweep={sweep} --densities ticket 0.5 --seeds 4"]
    chaos.main(["--out", str(tmp_path / "chaos"), "--trials", "kill", "damage", *words])
    shown = capsys.readouterr().out
    for trial in ("kill", "damage"):
        assert f"{trial}: " in shown
    assert shown.count("the same table") == 2
    compared_with_what_differs(tmp_path / "chaos" / "undisturbed", tmp_path / "copy")


def compared_with_what_differs(out: Path, copy: Path) -> None:
    shutil.copytree(out, copy)
    subject.compare(copy, out)
    chunk, *_ = folder.load(copy)
    changed = chunks.Chunk(chunk.labels, chunk.results | {"mask": ~chunk.results["mask"]})
    folder.save(copy, changed)
    with pytest.raises(subject.ChaosError, match=r"masks of .* differ"):
        subject.compare(copy, out)
    (copy / "results.csv").write_text((out / "results.csv").read_text().replace("ok", "no", 1))
    with pytest.raises(subject.ChaosError, match=r"results\.csv differs"):
        subject.compare(copy, out)


def test_processes_that_fail_or_do_nothing_are_chaos(tmp_path: Path) -> None:
    failing = scripting.start("tools/chaos.py", "--kills", "0")
    subject.wait(tmp_path, 1, failing)  # until it ends
    with pytest.raises(subject.ChaosError, match=r"exit code 2: .*--kills must be"):
        subject.finish(failing)


def test_finders_backwards() -> None:
    words = ("--tasks", "relu", "--finders", "snip", "grasp", "--seeds", "1")
    backwards = ("--tasks", "relu", "--finders", "grasp", "snip", "--seeds", "1")
    assert subject.Job(words).backwards().words == backwards
    assert subject.Job(words[:2]).backwards().words == words[:2]


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
    with pytest.raises(InputError, match=message):
        chaos.main(words.format(tmp_path).split())
