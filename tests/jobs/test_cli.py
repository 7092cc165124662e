"""The command line of all scripts: exit codes, and parsers' boxes as one line."""

import gc
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest

from plantjax.jobs import InputError, StoreError, cli, processes


@dataclass(frozen=True)
class Settings:
    """What it is for."""

    number: int = 3
    """How many."""
    names: tuple[str, ...] = ()
    """Which."""


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("--width must\nbe wide."), 2, "error: --width must be wide.\n"),
        (StoreError("the disk is full."), 1, "error: the disk is full.\n"),
        (processes.MachineError("a machine died."), 1, "error: a machine died.\n"),
        (
            KeyboardInterrupt(),
            130,
            "Interrupted. What is done is saved; the same command goes on.\n",
        ),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def main(argv: object) -> None:
        raise error

    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    assert stop.value.code == code
    assert capsys.readouterr().err == message


def test_what_nobody_expects_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)
    with pytest.raises(ZeroDivisionError):
        cli.run(lambda argv: print(1 / 0))


def test_a_reader_that_leaves_is_told_from_another_broken_pipe(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rich sends its output to nowhere and exits; the pipe of a worker is an error like others."""
    monkeypatch.setattr(gc, "freeze", lambda: None)

    def worker(argv: object) -> None:
        raise BrokenPipeError("of a worker")

    def rich(argv: object) -> None:
        try:
            raise BrokenPipeError
        except BrokenPipeError:
            raise SystemExit(1)  # noqa: B904

    with (tmp_path / "out").open("w") as out:
        monkeypatch.setattr("sys.stdout", out)
        with pytest.raises(BrokenPipeError, match="of a worker"):
            cli.run(worker)
        with pytest.raises(SystemExit) as stop:
            cli.run(rich)
    assert stop.value.code == 141
    assert capsys.readouterr().err == ""


def test_options_become_a_dataclass() -> None:
    assert cli.parse(Settings, ["--number", "4", "--names", "a", "b"], "script.py") == Settings(
        4, ("a", "b")
    )


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--number", "many"], "--number.*many"),
        (["--colour", "red"], "--colour"),
        (["--number"], "--number"),
    ],
)
def test_parse_errors_are_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        cli.parse(Settings, argv, "script.py")
    assert "\n" not in str(caught.value)
    assert not set(str(caught.value)) & set("│─╭╰")
    assert capsys.readouterr() == ("", "")


def test_help_says_what_options_are_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.parse(Settings, ["--help"], "script.py")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for words in ("script.py", "What it is for.", "--number", "How many."):
        assert words in shown


def test_notes_are_one_line_each_and_shown_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc, "freeze", lambda: None)

    def main(argv: object) -> None:
        for text in ("the ticket is large", "another", "the ticket is large"):
            with warnings.catch_warnings():  # which makes Python forget what it has shown
                warnings.simplefilter("default")
                warnings.warn_explicit(text, UserWarning, "plantjax", 1)
        with pytest.warns(UserWarning, match="of others"):
            warnings.warn("of others", stacklevel=1)

    cli.run(main)
    assert capsys.readouterr().err == "note: the ticket is large\nnote: another\n"
