"""Several processes: who owns what, which options fit together, two real ones on loopback."""

import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scripting
import seek
from plantjax.jobs import processes
from plantjax.jobs.processes import Team

TINY = [*scripting.SHAPE, "--epochs", "0", "--seeds", "3", "--finders", "magnitude"]
TINY += ["--rounds", "2", "--densities", "ticket", "0.5"]


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


def test_a_process_alone_joins_nobody() -> None:
    with processes.joined(None, None, None) as team:
        assert team == Team(0, (2,))
        assert team.broadcast(5) == 5


@pytest.mark.slow
def test_processes_share_a_job_and_change_nothing(tmp_path: Path) -> None:
    """One of one device and one of two, beside one process alone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--chunk", "2"]
    words += [*TINY, "--out", str(tmp_path / "team")]
    members = [
        scripting.start("experiments/seek.py", *words, "--process", str(p), "--devices", str(p + 1))
        for p in (0, 1)
    ]
    for index, member in enumerate(members):
        out, error = member.communicate(timeout=300)
        assert member.returncode == 0, error
        assert ("strong (masked only)" in out) == (index == 0)
    seek.main([*TINY, "--out", str(tmp_path / "alone")])
    found, wanted = (scripting.table(tmp_path / name) for name in ("team", "alone"))
    pd.testing.assert_frame_equal(found, wanted, check_exact=True)
    assert scripting.masks(tmp_path / "team") == scripting.masks(tmp_path / "alone")
    assert not list((tmp_path / "team").glob("lock*.json"))
