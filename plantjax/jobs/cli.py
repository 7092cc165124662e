"""The command line that all scripts share: parsing, one-line errors, exit codes.

Exit codes: 0 done, 1 failed on the way (what is done is saved), 2 bad input (one line on stderr,
nothing written), 130 interrupted.
"""

import contextlib
import gc
import io
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeVar

import jax
import tyro

from plantjax.jobs import plugins, processes
from plantjax.jobs.chunks import StoreError
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
        with _notes():
            main(argv)
    except InputError as error:
        _leave(_fail(error, 2))
    except (StoreError, processes.MachineError) as error:
        _leave(_fail(error, 1))
    except KeyboardInterrupt:
        print("Interrupted. What is done is saved; the same command goes on.", file=sys.stderr)
        _leave(130)
    except BrokenPipeError as error:  # most often whoever read our output has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(_fail(error, 1))
    except Exception:
        if not jax.distributed.is_initialized():
            raise
        traceback.print_exc()
        _leave(1)


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
    """Exits at once if JAX would otherwise wait for other processes of the job."""
    if jax.distributed.is_initialized():
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
