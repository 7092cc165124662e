"""The command line that all scripts share: parsing, one-line errors, exit codes.

Exit codes: 0 done, 1 failed on the way (what is done is saved), 2 bad input (one line on stderr,
nothing written), 130 interrupted, 141 the reader of the output has left (without a word).
"""

import contextlib
import gc
import io
import os
import re
import select
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TextIO, TypeVar

import jax
import tyro

from plantjax.jobs import plugins, processes, waiting
from plantjax.jobs.chunks import StoreError
from plantjax.jobs.folder import SAVED
from plantjax.jobs.job import InputError, Operation

Options = TypeVar("Options")


def known(names: Collection[str]) -> Any:
    """Lists the names of a registry at the end of an option's help, as of the time it is shown."""
    return tyro.conf.arg(
        help_behavior_hint=lambda default: f"Known: {', '.join(names)} (default: {default})"
    )


def parse(options: type[Options], argv: Sequence[str] | None, prog: str) -> Options:
    """Parses a command line into a frozen dataclass; prints help and exits if asked.

    Raises:
      ValueError: with one line, where the parser would print a box.
    """
    for plugin in plugins.named(sys.argv[1:] if argv is None else argv):
        plugins.load(plugin)
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(options, args=argv, prog=prog, config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(_one_line(errors.getvalue())) from None


def command(script: str, options: Operation, usual: Operation) -> str:
    """The command that reproduces a script's results, without options at their defaults.

    Args:
      script: its path, as in "experiments/seek.py".
      options: the options that it was given.
      usual: the same with all options at their defaults.
    """
    words, defaults = ["python", script], usual.settings()
    for name, value in [*options.settings().items(), ("plugin", list(options.plugin))]:
        if value != defaults.get(name, []):
            values = value if isinstance(value, list) else [value]
            words += ["--" + name.replace("_", "-"), *map(str, values)]
    return shlex.join(words)


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Runs a script's main function and exits with its code."""
    gc.freeze()  # what was imported is no garbage: tracing is a tenth faster if none looks for it
    try:
        code = _code(main, argv)
    except BaseException as error:
        if _reader_left(error):
            _leave(141)  # 128 and the number of SIGPIPE, as of other programs
        if isinstance(error, SystemExit) or not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        _leave(1)
    if code:
        _leave(code)


def _code(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None) -> int:
    """Runs a main function, prints what was wrong on one line, and returns the exit code."""
    try:
        try:
            with _notes():
                main(argv)
        finally:
            sys.stdout.flush()  # at exit it would be too late to see that the reader has left
    except InputError as error:
        return _fail(error, 2)
    except (StoreError, processes.MachineError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print(f"Interrupted. {SAVED}", file=sys.stderr)
        return waiting.INTERRUPTED
    return 0


def _reader_left(error: BaseException) -> bool:
    """Whether an error tells that whoever read our output has left; closes the output then."""
    cause = error.__context__ if isinstance(error, SystemExit) else error  # rich exits by itself
    if not isinstance(cause, BrokenPipeError):
        return False
    broken = [stream for stream in (sys.stdout, sys.stderr) if _broken(stream)]
    if not (broken or cause is not error):  # another pipe, such as a worker's
        return False
    for stream in broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _broken(stream: TextIO) -> bool:
    """Whether a stream is a pipe or socket that nobody reads."""
    if not hasattr(select, "poll"):  # on Windows
        return True
    poll = select.poll()
    try:
        poll.register(stream.fileno(), select.POLLOUT)
    except (OSError, ValueError):  # closed, or no file
        return False
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


@contextlib.contextmanager
def _notes() -> Iterator[None]:
    """Shows each of plantjax's own warnings as one line, and once; all others as usual."""
    usual, shown = warnings.showwarning, set()

    def show(message: Any, category: Any, filename: str, *where: Any, **further: Any) -> None:
        if filename != "plantjax":
            usual(message, category, filename, *where, **further)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"note: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = usual


def _leave(code: int) -> None:
    """Exits at once if Python or JAX would otherwise wait, for a thread or other processes."""
    if jax.distributed.is_initialized() or waiting.busy():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _fail(error: Exception, code: int) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return code


def _one_line(box: str) -> str:
    """The message inside the parser's box, on one line; its first line is a title."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box).partition("Argument helptext:")[0]
    lines = [line.strip(" │\t") for line in plain.splitlines()[1:] if line[:1] != "╰"]
    words = [line for line in lines if line.strip("─-") and not line.startswith("For full help")]
    return " ".join(" ".join(words).split()) or "bad command line"
