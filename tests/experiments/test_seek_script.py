"""Tiny runs of the scripts: results, resuming, bad input, interruption."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

import seek
from plantjax import metrics
from plantjax.finders import FINDERS, REFERENCES
from plantjax.jobs import cli, figures, folder, runner, summary
from plantjax.tasks import TASKS

pytestmark = pytest.mark.optimised

TINY = ["--tasks", "relu", "--depth", "3", "--width", "8", "--seeds", "3", "--epochs", "1"]
TINY += ["--finders", "magnitude", "snip", "--densities", "ticket", "0.5"]
CELLS = 3 * (2 * 2 + 1 + 1 + 2)  # finders x densities, dense, planted, oracle_random


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seek") / "run"
    seek.main([*TINY, "--out", str(folder)])
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """One compilation cache for all tests and their subprocesses, not the user's."""
    folder = tmp_path_factory.getbasetemp() / "xla"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(folder))


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv").drop(columns="seconds")


def masks(folder: Path) -> dict[str, bytes]:
    return {
        name: mask.tobytes()
        for chunk in folder.load(folder)
        for name, mask in zip(chunk.ids, chunk.results["mask"], strict=True)
    }


def files(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_writes_table_settings_and_figure(finished: Path) -> None:
    result = pd.read_csv(finished / "results.csv")
    assert list(result.columns) == [*metrics.COLUMNS, "rescale"]
    assert len(result) == 2 * CELLS
    assert set(result["finder"]) == {"magnitude", "snip", *REFERENCES}
    assert set(result["status"]) == {"ok"}
    assert set(result["stage"]) == {"pruned", "trained"}
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["seeds"] == 3
    assert (finished / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_planted_rows_are_as_good_as_the_target(finished: Path) -> None:
    rows = table(finished).query("finder == 'planted' and stage == 'pruned'")
    np.testing.assert_array_equal(rows["value"], rows["ticket_value"])
    np.testing.assert_allclose(rows["value"], rows["target_value"], rtol=1e-4)
    np.testing.assert_array_equal(rows["recall"], 1.0)
    np.testing.assert_array_equal(rows["kept"], 2)


def test_a_second_run_computes_nothing(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(finished / "chunks")
    seek.main([*TINY, "--out", str(finished)])
    assert "nothing was computed" in capsys.readouterr().out
    assert files(finished / "chunks") == before


@pytest.mark.parametrize("chunk", ["1", "2", "5", "100"])
def test_chunks_do_not_change_results(finished: Path, tmp_path: Path, chunk: str) -> None:
    seek.main([*TINY, "--out", str(tmp_path), "--chunk", chunk])
    pd.testing.assert_frame_equal(table(tmp_path), table(finished), check_exact=True)
    assert masks(tmp_path) == masks(finished)


def test_order_of_groups_does_not_change_results(finished: Path, tmp_path: Path) -> None:
    order = ["--finders", "snip", "magnitude", "--densities", "0.5", "ticket"]
    seek.main([*TINY, "--out", str(tmp_path), *order])
    keys = ["finder", "density_name", "seed", "stage"]
    one, other = (table(path).sort_values(keys, ignore_index=True) for path in (tmp_path, finished))
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert masks(tmp_path) == masks(finished)


def test_damaged_and_missing_chunks_are_redone(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seek.main([*TINY, "--out", str(tmp_path), "--chunk", "4"])
    first, second, third, *_ = sorted((tmp_path / "chunks").glob("*.npz"))
    first.write_bytes(first.read_bytes()[:-200])
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 0xFF
    second.write_bytes(bytes(content))
    third.unlink()
    seek.main([*TINY, "--out", str(tmp_path)])
    assert capsys.readouterr().err.count("is damaged") == 2
    pd.testing.assert_frame_equal(table(tmp_path), table(finished), check_exact=True)


@pytest.mark.slow
def test_other_settings_are_refused_and_forced(tmp_path: Path) -> None:
    few = ["--tasks", "relu", "--depth", "3", "--width", "8", "--epochs", "0", "--seeds", "1"]
    few += ["--finders", "random", "--densities", "0.5", "--out", str(tmp_path)]
    seek.main(few)
    before = files(tmp_path)
    with pytest.raises(cli.InputError, match=r"width: 8 there, 9 here"):
        seek.main([*few, "--width", "9"])
    assert files(tmp_path) == before
    seek.main([*few, "--width", "9", "--force"])
    assert set(table(tmp_path)["width"]) == {9}
    assert set(table(tmp_path)["stage"]) == {"pruned"}


BAD = {
    "--tasks nowhere": "--tasks .*circle.*nowhere",
    "--tasks": "--tasks .*none",
    "--finders guess": "--finders .*magnitude.*guess",
    "--scope all": "--scope .*global.*all",
    "--densities 0": r"--densities .*\(0, 1\].*0",
    "--densities -0.5": "--densities",
    "--densities 1.5": r"--densities .*\(0, 1\].*1.5",
    "--densities nan": r"--densities .*\(0, 1\].*nan",
    "--densities lots": "--densities .*lots",
    "--densities": "--densities .*none",
    "--depth 2": "--depth .*at least 3.*2",
    "--width 19": "width .*20.*circle.*layer_02.*19",
    "--seeds 0": "--seeds .*at least 1.*0",
    "--seeds -1": "--seeds .*at least 1.*-1",
    "--seeds many": "--seeds.*many",
    "--first-seed -1": "--first-seed .*at least 0",
    "--noise -0.1": r"--noise .*\[0, 1\].*-0.1",
    "--noise 1.1": r"--noise .*\[0, 1\].*1.1",
    "--noise nan": "--noise .*nan",
    "--rounds 0": "--rounds .*at least 1.*0",
    "--epochs -1": "--epochs .*at least 0.*-1",
    "--batch-size 0": "--batch-size .*at least 1.*9000.*0",
    "--batch-size 9001": "--batch-size .*9000.*9001",
    "--learning-rate nan": "--learning-rate .*nan",
    "--learning-rate 0": "--learning-rate",
    "--chunk 0": "--chunk .*at least 1.*0",
    "--colour red": "--colour",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_names_argument_value_and_allowed(words: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with pytest.raises(ValueError, match=BAD[words]) as caught:
        seek.main([*words.split(), "--out", str(folder)])
    assert isinstance(caught.value, cli.InputError)
    assert not folder.exists()


def test_bad_folders(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(cli.InputError, match="--out must be a folder"):
            seek.main([*TINY, "--out", str(out)])
    with pytest.raises(cli.InputError, match="written"):
        seek.main([*TINY, "--out", "/proc/nowhere"])
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"my": "project"}')
    with pytest.raises(cli.InputError, match="cannot be read"):
        seek.main([*TINY, "--out", str(other)])
    (other / "config.json").write_text('{"settings": {}, "format": 999}')
    with pytest.raises(cli.InputError, match="format 999"):
        seek.main([*TINY, "--out", str(other)])
    assert file.read_text() == "mine"
    assert [path.name for path in other.iterdir()] == ["config.json"]


def test_a_link_to_nothing_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for out in ("link", "link/run"):
        with pytest.raises(cli.InputError, match="link is a link to nothing"):
            seek.main([*TINY, "--out", str(tmp_path / out)])
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    seek.main(["--list"])
    shown = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
    assert set(shown) >= {*TASKS, *FINDERS, *REFERENCES}


def test_summary_marks_dead_and_diverged_networks() -> None:
    labels = {
        "task": ["circle"] * 2,
        "finder": ["snip"] * 2,
        "density_name": ["0.1"] * 2,
        "seed": [0, 1],
        "metric": ["accuracy"] * 2,
        "ticket_density": [0.006] * 2,
    }
    results = {
        "pruned/value": np.array([0.17, np.nan], np.float32),
        "pruned/value_raw": np.array([0.17, np.nan], np.float32),
        "pruned/constant": np.array([True, False]),
        "pruned/seconds": np.zeros(2),
        "ticket/value": np.full(2, 0.98),
        "target/value": np.full(2, 0.98),
    }
    console = Console(record=True, width=100)
    summary.show(metrics.to_frame(results, labels), console)
    shown = console.export_text()
    assert "0.170 1† 1‡" in shown
    assert "planted ticket 0.980 at density 0.006" in shown


@pytest.mark.slow
def test_figure_of_all_tasks_and_finders(tmp_path: Path) -> None:
    rows = [
        {
            **{"task": task, "finder": finder, "density": d, "density_name": str(d)},
            **{"stage": stage, "metric": TASKS[task].metric, "value": 0.3 * d, "seed": 0},
            **{"constant": d < 0.1, "ticket_value": 0.01, "ticket_density": 0.01},
        }
        for task in TASKS
        for finder in [*FINDERS, *REFERENCES]
        for d in (0.01, 0.1, 1.0)
        for stage in ("pruned", "trained")
    ]
    panels = figures.stage_panels(tuple(TASKS), ("pruned", "trained"))
    figures.density_figure(pd.DataFrame(rows), panels, 2, tmp_path / "figure.png", "small print")
    assert (tmp_path / "figure.png").stat().st_size > 20_000


@pytest.mark.slow
def test_chunk_size_follows_the_option(finished: Path, tmp_path: Path) -> None:
    seek.main([*TINY, "--out", str(tmp_path), "--chunk", "3"])
    sizes = sorted(len(chunk.ids) for chunk in folder.load(tmp_path))
    assert sizes == [3] * 8  # 6, 6, 3, 3 and 6 cells a group
    assert all(table.empty for table in runner.tables(tmp_path, []))


HEEDING = """import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"""
"""Runs a script that heeds Ctrl-C: where the tests run in a shell's background, none would."""


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HEEDING, "experiments/seek.py", *TINY]
    command += ["--chunk", "2", "--out", str(folder)]
    return subprocess.Popen(
        [*command, *words],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "COLUMNS": "200", "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_chunks(folder: Path, number: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while len(list((folder / "chunks").glob("*.npz"))) < number:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for words in (["--width", "x"], ["--densities", "2"]):
        process = start(tmp_path / "out", *words)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert out == ""
        assert err.count("\n") == 1
        assert err.startswith("error: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_killed_three_times_then_finished(finished: Path, tmp_path: Path) -> None:
    survivors: dict[str, bytes] = {}
    for number in (1, 4, 8):
        process = start(tmp_path)
        wait_for_chunks(tmp_path, number, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        now = files(tmp_path / "chunks")
        assert survivors.items() <= now.items()
        survivors = {name: content for name, content in now.items() if name.endswith(".npz")}
    process = start(tmp_path)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "cells are done" in out
    assert survivors.items() <= files(tmp_path / "chunks").items()
    assert not list((tmp_path / "chunks").glob("*.tmp"))
    pd.testing.assert_frame_equal(table(tmp_path), table(finished), check_exact=True)
    assert masks(tmp_path) == masks(finished)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [3, 8])
def test_devices_change_nothing(finished: Path, tmp_path: Path, devices: int) -> None:
    process = start(tmp_path, "--devices", str(devices))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["device"].endswith(f"({devices})")
    pd.testing.assert_frame_equal(table(tmp_path), table(finished), check_exact=True)
    assert masks(tmp_path) == masks(finished)


def test_more_devices_than_there_are_are_refused(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "experiments/seek.py", "--devices", "2", "--out", str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    assert process.stderr.splitlines() == [
        "error: --devices must be at most 1, the devices there are, got 2."
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_interrupt_saves_and_says_how_to_go_on(finished: Path, tmp_path: Path) -> None:
    process = start(tmp_path)
    wait_for_chunks(tmp_path, 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "same command goes on" in err
    assert "Traceback" not in err
    part = table(tmp_path)
    assert 0 < len(part) < 2 * CELLS
    process = start(tmp_path)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    pd.testing.assert_frame_equal(table(tmp_path), table(finished), check_exact=True)


@pytest.mark.slow
def test_a_reader_that_leaves_gets_one_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-u", "experiments/seek.py", "--help"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=root)
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "error: [Errno 32] Broken pipe\n")
