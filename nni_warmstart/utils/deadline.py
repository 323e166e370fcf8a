"""Deadlines for calls that may wait for ever, such as those to servers."""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

TIME_OUTS = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)
"""What is raised when something takes too long; one class from Python 3.11 on."""

LONGEST_SILENCE = 30
"""Seconds for which a download waits for an answer."""

T = TypeVar('T')


def in_time(seconds: float, function: Callable[[], T]) -> T:
    """Return the result of a function, which runs in a thread that nobody waits for any longer than ``seconds``.

    Raises
    ------
    TimeoutError
        If it takes longer, as one of :data:`TIME_OUTS`; the thread ends with the process if it does not end before.
    """
    future: concurrent.futures.Future[T] = concurrent.futures.Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # it belongs to the caller's thread
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


@contextmanager
def silence_limited() -> Iterator[None]:
    """Limit the time for which downloads of torch and torchvision wait for an answer, which set no limit."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(LONGEST_SILENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
