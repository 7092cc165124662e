"""Signals while a thread works: heeded at once, and what is on its way is still finished."""

import signal
import threading
import time
from collections.abc import Iterator

import pytest

from plantjax.jobs import waiting


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Signals as in a terminal: a shell's background jobs ignore Ctrl-C."""
    before = {number: signal.getsignal(number) for number in waiting.SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, usual in before.items():
        signal.signal(number, usual)


def send(number: int) -> None:
    signal.pthread_kill(threading.main_thread().ident, number)


@pytest.mark.parametrize("number", waiting.SIGNALS)
def test_the_first_signal_is_told_at_once_and_the_running_program_ends(number: int) -> None:
    told: list[float] = []
    ended: list[float] = []

    def work(stop: waiting.Stop) -> Iterator[str]:
        yield "first"
        send(number)
        time.sleep(0.3)  # as a program of JAX, which heeds nothing
        ended.append(time.monotonic())
        yield "second"
        if not stop():
            yield "third"

    before = signal.getsignal(number)
    found: list[str] = []
    items = waiting.iterated(work, lambda: told.append(time.monotonic()))
    with pytest.raises(KeyboardInterrupt):
        found.extend(items)
    assert found == ["first", "second"]
    assert told[0] < ended[0] - 0.1
    assert signal.getsignal(number) is before
    assert not waiting.busy()


def test_the_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left = threading.Event()
    monkeypatch.setattr(waiting, "leave", left.set)

    def work(stop: waiting.Stop) -> Iterator[int]:
        for asked in (True, False):
            send(signal.SIGINT)
            while asked and not stop():
                time.sleep(0.001)
        assert left.wait(10)
        yield 1

    with pytest.raises(KeyboardInterrupt):
        list(waiting.iterated(work, lambda: None))


def test_results_errors_and_an_early_end() -> None:
    def failing(stop: waiting.Stop) -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    assert list(waiting.iterated(lambda stop: iter((1, 2)), lambda: None)) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        list(waiting.iterated(failing, lambda: None))
    finished = []

    def endless(stop: waiting.Stop) -> Iterator[int]:
        while not stop():
            yield 1
        finished.append(True)

    items = waiting.iterated(endless, lambda: None)
    next(items)
    items.close()
    assert finished


def test_a_call_is_left_at_once() -> None:
    begun, end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        send(signal.SIGINT)
        end.wait(10)

    assert waiting.called(lambda: 3) == 3
    with pytest.raises(KeyboardInterrupt):
        waiting.called(wait)
    assert waiting.busy()
    end.set()


def test_a_thread_that_is_not_the_main_one_handles_no_signals() -> None:
    found: list[list[int]] = []
    work = lambda: found.append(list(waiting.iterated(lambda stop: iter((1,)), print)))  # noqa: E731
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[1]]
