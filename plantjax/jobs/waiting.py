"""Work in a thread, so that signals are heeded at once.

JAX holds the thread that compiles or computes until it is done, and Python handles signals in the
main thread alone. So the main thread waits, and another one works.
"""

import contextlib
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the polite request to end that schedulers send."""
INTERRUPTED = 130
"""The exit code after one of them."""
NAME = "plantjax"
"""The beginning of the names of all threads that may be busy when the process is to end."""
Stop: TypeAlias = Callable[[], bool]
"""Whether it is time to stop."""
Events: TypeAlias = "queue.SimpleQueue[Callable[[], Iterator[Any]]]"
"""Functions for the thread that waits: each returns what it is to yield, or raises."""


def iterated(
    make: Callable[[Stop], Iterator[T]], tell: Callable[[], None]
) -> Generator[T, None, None]:
    """Iterates in a thread of its own, and yields in this one.

    The first of SIGNALS asks the iterator to stop, the second one ends the process at once with
    exit code 130. If this generator is closed early, it stops the iterator and waits for it.

    Args:
      make: `(stop) -> iterator`, which ends early once `stop()` is true.
      tell: called when the iterator is asked to stop.

    Raises:
      KeyboardInterrupt: after the end of an iterator that was asked to stop.
    """
    asked = threading.Event()
    events: Events = queue.SimpleQueue()
    work = threading.Thread(target=_work, args=(make, asked.is_set, events), name=NAME, daemon=True)

    def told() -> Iterator[T]:
        tell()
        return iter(())

    def heed(*_: Any) -> None:
        if asked.is_set():
            leave()
        asked.set()
        events.put(told)  # the handler itself must not print: it may have interrupted a print

    with _handled(heed):
        work.start()
        try:
            while True:
                yield from events.get()()
        except _EndError:
            pass
        finally:
            stopped = asked.is_set()
            asked.set()
            work.join()
    if stopped:
        raise KeyboardInterrupt


def called(function: Callable[[], T]) -> T:
    """Calls a function in a thread of its own, so that Ctrl-C does not wait for its end."""
    events: Events = queue.SimpleQueue()
    arguments = (lambda stop: iter((function(),)), lambda: False, events)
    threading.Thread(target=_work, args=arguments, name=NAME, daemon=True).start()
    (result,) = events.get()()
    return result


def leave() -> None:
    """Ends the process at once; what is on disk stays valid."""
    if sys.stdout.isatty():
        os.write(sys.stdout.fileno(), b"\x1b[?25h\n")  # a progress bar hides the cursor
    os._exit(INTERRUPTED)


def busy() -> bool:
    """Whether a thread is at work for which the end of the process would wait."""
    return any(thread.name.startswith(NAME) for thread in threading.enumerate())


class _EndError(Exception):
    """The iterator has ended."""


def _work(make: Callable[[Stop], Iterator[Any]], stop: Stop, events: Events) -> None:
    """Iterates, and puts what comes out into the queue, also if it is an error."""
    try:
        for item in make(stop):
            events.put(partial(iter, (item,)))
        error: BaseException = _EndError()
    except BaseException as caught:
        error = caught

    def fail() -> Iterator[Any]:
        raise error

    events.put(fail)


@contextlib.contextmanager
def _handled(handler: Callable[..., None]) -> Iterator[None]:
    """Handles SIGNALS meanwhile, except those that the process ignores."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, usual in before.items():
            signal.signal(number, usual)
