"""The main job: one tiny run and all that is made of it, resuming, refusals, Ctrl-C."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

import scripting
import seek
from plantjax import metrics
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs import InputError, executors, folder, runner
from plantjax.tasks import TASKS

TINY = [*scripting.SHAPE, "--seeds", "3", "--finders", "magnitude", "snip", "--rounds", "2"]
TINY += ["--densities", "ticket", "0.5"]
CELLS = 3 * (2 * 2 + 1 + 1 + 2)  # finders x densities, dense, planted, oracle_random


class Finished(NamedTuple):
    out: Path
    shown: str


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    out = tmp_path_factory.mktemp("seek") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        seek.main([*TINY, "--out", str(out)])
    return Finished(out, shown.getvalue())


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.out, tmp_path / "copy"))


@pytest.fixture
def no_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("cells were computed")

    monkeypatch.setattr(runner, "EXECUTORS", {"local": refuse})


def test_a_run_writes_its_files(finished: Finished) -> None:
    result = pd.read_csv(finished.out / "results.csv")
    usual = [name for name in metrics.COLUMNS if "fresh" not in name]
    assert list(result.columns) == [*usual, "rescale", "kind", "mask"]
    equal = result[result["finder"] == "planted"].groupby("seed")["mask"].nunique()
    assert set(equal) == {1}  # at both stages
    assert len(result) == 2 * CELLS
    assert set(result["finder"]) == {"magnitude", "snip", *REFERENCES}
    assert set(result["status"]) == {"ok"}
    assert set(result["stage"]) == {"pruned", "trained"}
    levels = pd.read_csv(finished.out / "levels.csv")
    assert set(levels["finder"]) == {"magnitude", "snip"}
    assert levels.groupby("level").size().to_dict() == {1: 12, 2: 12}
    settings = json.loads((finished.out / "config.json").read_text())["settings"]
    assert (settings["seeds"], settings["densities"]) == (3, ["ticket", "0.5"])
    assert (finished.out / "figure.png").read_bytes()[:4] == b"\x89PNG"
    assert sum(len(chunk.ids) for chunk in folder.load(finished.out)) == CELLS


def test_a_run_shows_its_table(finished: Finished) -> None:
    for words in ("strong (masked only)", "weak (after training)", "oracle_random", "24/24 cells"):
        assert words in finished.shown
    assert str(finished.out) in finished.shown.replace("\n", "")


def test_the_planted_ticket_is_as_good_as_the_target(finished: Finished) -> None:
    rows = scripting.table(finished.out).query("finder == 'planted' and stage == 'pruned'")
    np.testing.assert_array_equal(rows["value"], rows["ticket_value"])
    np.testing.assert_allclose(rows["value"], rows["target_value"], rtol=1e-4)
    np.testing.assert_array_equal(rows["recall"], 1.0)
    np.testing.assert_array_equal(rows["kept"], 2)


def test_a_second_run_computes_nothing(
    copied: Path, no_compute: None, capsys: pytest.CaptureFixture[str]
) -> None:
    before = scripting.contents(copied)
    seek.main([*TINY, "--out", str(copied)])
    assert "nothing was computed" in capsys.readouterr().out
    assert scripting.contents(copied) == before
    for name in ("results.csv", "levels.csv", "figure.png"):
        (copied / name).unlink()
    seek.main([*TINY, "--out", str(copied)])
    assert "nothing was computed" in capsys.readouterr().out
    assert scripting.contents(copied) == before


@pytest.mark.slow
def test_interruptions_damage_chunks_and_order_change_no_result(
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--finders", "snip", "magnitude", "--densities", "0.5", "ticket"]
    words = [*TINY, *words, "--out", str(tmp_path)]

    def save(*arguments: object) -> None:
        folder.save(*arguments)
        if len(list((tmp_path / "chunks").iterdir())) == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(executors, "save", save)
        with pytest.raises(KeyboardInterrupt):
            seek.main([*words, "--chunk", "4"])
    assert sorted(len(chunk.ids) for chunk in folder.load(tmp_path)) == [2, 4, 4]
    assert len(scripting.table(tmp_path)) == 2 * 10
    first, second, _ = sorted((tmp_path / "chunks").iterdir())
    first.write_bytes(first.read_bytes()[:-200])
    content = bytearray(second.read_bytes())
    for place in range(len(content) // 2, len(content) // 2 + 200):  # more than a header's dates
        content[place] ^= 0xFF
    second.write_bytes(bytes(content))
    capsys.readouterr()
    seek.main([*words, "--chunk", "5"])
    shown = capsys.readouterr()
    assert "of 24 cells are done; going on with the others" in shown.out
    assert shown.err.count("is damaged") == 2
    keys = ["finder", "density_name", "seed", "stage"]
    found, wanted = (
        scripting.table(path).sort_values(keys, ignore_index=True)
        for path in (tmp_path, finished.out)
    )
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert scripting.masks(tmp_path) == scripting.masks(finished.out)


@pytest.mark.slow
def test_other_settings_are_refused_and_forced(copied: Path) -> None:
    before = scripting.contents(copied)
    words = [*TINY, "--first-seed", "3", "--rounds", "1", "--out", str(copied)]
    with pytest.raises(InputError, match=r"first_seed: 0 there, 3 here; rounds: 2 there, 1 here"):
        seek.main(words)
    assert scripting.contents(copied) == before
    seek.main([*words, "--finders", "magnitude", "--force"])
    assert set(scripting.table(copied)["seed"]) == {3, 4, 5}
    assert not (copied / "levels.csv").exists()


BAD = {
    "--tasks nowhere": "--tasks .*circle.*nowhere",
    "--tasks": "--tasks .*none",
    "--finders guess+shuffled": "--finders .*magnitude.*guess",
    "--scope all": "--scope .*global.*all",
    "--densities nan": r"--densities .*\(0, 1\].*nan",
    "--densities lots": "--densities .*lots",
    "--tasks circle --width 19": "width .*at least 20.*circle.*layer_00.*19",
    "--seeds many": "--seeds.*many",
    "--first-seed -1": "--first-seed .*at least 0",
    "--noise 1.1": r"--noise .*\[0, 1\].*1.1",
    "--search-epochs 2": "search_epochs is no option of magnitude, snip",
    "--options sharpen=0.5": "sharpen is no option of magnitude, snip",
    "--options sharpen": "--options must be pairs NAME=VALUE, got 'sharpen'",
    "--batch-size 9001": "--batch-size .*9000.*9001",
    "--learning-rate 0": "--learning-rate",
    "--devices 3": "--devices must be at most 2, the devices there are, got 3",
    "--out /proc/nowhere": "--out .*written",
    "--colour red": "--colour",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_names_option_value_and_allowed(words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=BAD[words]):
        seek.main([*TINY, "--out", str(tmp_path / "out"), *words.split()])
    assert not list(tmp_path.iterdir())


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    seek.main(["--list"])
    shown = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
    assert set(shown) >= {*TASKS, *FINDERS, *REFERENCES, *metrics.METRICS}


def test_bad_input_is_one_line_and_exit_code_2_from_any_folder(tmp_path: Path) -> None:
    process = scripting.start("experiments/seek.py", "--densities", "2", cwd=tmp_path)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (2, "")
    assert err == "error: --densities must lie in (0, 1], got 2.0.\n"
    assert not list(tmp_path.iterdir())


HEEDING = """import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""
"""Starts a script that heeds Ctrl-C: where the tests run in a shell's background, none would."""


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_saves_and_says_how_to_go_on(times: int, finished: Finished, tmp_path: Path) -> None:
    """Once it ends after the running program, twice at once."""
    words = [*TINY, "--chunk", "2", "--out", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", HEEDING, str(scripting.ROOT / "experiments/seek.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "chunks").glob("*.npz"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline().startswith("Stopping after this program")
    if times == 2:
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    if times == 1:
        assert err == "Interrupted. What is done is saved; the same command goes on.\n"
        assert 0 < len(scripting.table(tmp_path)) < 2 * CELLS
    seek.main(words)
    found, wanted = scripting.table(tmp_path), scripting.table(finished.out)
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)


@pytest.mark.slow
@pytest.mark.parametrize("words", ["-u seek.py --help", "seek.py --densities 2"])
def test_a_reader_that_leaves_hears_nothing(words: str) -> None:
    """Whether output is buffered or not, and errors as well."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *words.split()]
    both = subprocess.STDOUT if "2" in words else subprocess.PIPE
    done = subprocess.run(
        command,
        stdout=writer,
        stderr=both,
        text=True,
        check=False,
        cwd=scripting.ROOT / "experiments",
    )
    os.close(writer)
    assert (done.returncode, done.stderr or "") == (141, "")
