"""Several processes: who owns what, which options fit together, real processes on loopback."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plantjax.jobs import processes
from plantjax.jobs.processes import Team

ROOT = Path(__file__).parents[2]
TINY = ["--tasks", "relu", "--depth", "3", "--width", "8", "--seeds", "3", "--epochs", "1"]
TINY += ["--finders", "snip", "--densities", "ticket", "0.5", "--chunk", "2"]


@pytest.mark.parametrize("devices", [(1,), (1, 1), (4, 1), (2, 3, 1)])
def test_every_block_has_one_owner_by_the_share_of_devices(devices: tuple[int, ...]) -> None:
    team = [Team(process, devices) for process in range(len(devices))]
    owned = np.array([[member.owns(block) for block in range(60)] for member in team])
    np.testing.assert_array_equal(owned.sum(axis=0), 1)
    np.testing.assert_array_equal(owned.sum(axis=1) * sum(devices), 60 * np.array(devices))
    assert [member.leads for member in team] == [True] + [False] * (len(devices) - 1)


BAD = [
    (("localhost", 2, 0), "--coordinator must be HOST:PORT or 'auto', got 'localhost'"),
    ((":80", 2, 0), "--coordinator must be HOST:PORT"),
    (("host:80", None, 0), "--coordinator needs --processes"),
    (("host:80", 2, None), "--coordinator needs --process,"),
    (("host:80", 0, 0), "--processes must be an integer of at least 1, got 0"),
    (("host:80", 2, 2), "--process must be an integer of at least 0 and at most 1, got 2"),
    ((None, 2, None), "--processes goes with --coordinator HOST:PORT, got 2 alone"),
    (("auto", None, 1), "--process goes with --coordinator HOST:PORT, got 1 alone"),
]


@pytest.mark.parametrize(("options", "message"), BAD)
def test_options_that_do_not_fit_are_refused(options: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processes.check(*options)


@pytest.mark.parametrize("options", [(None,) * 3, ("auto", None, None), ("10.0.0.1:80", 3, 2)])
def test_options_that_fit(options: tuple) -> None:
    processes.check(*options)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"TPU_WORKER_HOSTNAMES": "a"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ],
)
def test_launchers_of_several_processes_are_recognised(environment: dict, wanted: bool) -> None:
    assert processes.several(environment) == wanted


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "experiments/seek.py", *TINY, "--out", str(folder), *words],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def team(folders: list[Path], devices: list[int]) -> list[subprocess.Popen[str]]:
    """The processes of one job, with so many devices each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ("--coordinator", f"127.0.0.1:{port}", "--processes", str(len(devices)))
    return [
        start(folder, *words, "--process", str(index), "--devices", str(number))
        for index, (folder, number) in enumerate(zip(folders, devices, strict=True))
    ]


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "results.csv", dtype=str).drop(columns="seconds")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    _, error = (process := start(folder, "--devices", "1")).communicate(timeout=300)
    assert process.returncode == 0, error
    return folder


@pytest.mark.parametrize(
    "devices",
    [
        pytest.param([1, 1], marks=pytest.mark.slow),
        pytest.param([1, 2], marks=pytest.mark.slow),
        pytest.param([4, 4], marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_processes_share_a_job_and_change_nothing(
    alone: Path, tmp_path: Path, devices: list[int]
) -> None:
    members = team([tmp_path] * len(devices), devices)
    for index, member in enumerate(members):
        out, error = member.communicate(timeout=300)
        assert member.returncode == 0, error
        assert ("strong (masked only)" in out) == (index == 0)
    pd.testing.assert_frame_equal(table(tmp_path), table(alone), check_exact=True)
    assert not list(tmp_path.glob("lock*"))


@pytest.mark.slow
def test_processes_that_share_no_folder_are_refused(tmp_path: Path) -> None:
    one, two = team([tmp_path / "one", tmp_path / "two"], [1, 1])
    _, error = two.communicate(timeout=300)
    assert two.returncode == 2
    assert "--out must be a folder that all processes of the job share" in error
    one.kill()
    one.communicate()
