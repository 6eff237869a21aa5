"""A queue of calls, run in order of their times, until ``stop``."""

import heapq
import itertools
import threading
import time

_calls = []
_order = itertools.count()
_woken = threading.Condition()
_running = True


def callLater(delay, function, *arguments):
    with _woken:
        heapq.heappush(_calls, (time.monotonic() + delay, next(_order), function, arguments))
        _woken.notify()


def callFromThread(function, *arguments):
    callLater(0, function, *arguments)


def stop():
    global _running
    _running = False


def run():
    while _running:
        with _woken:
            if not _calls:
                _woken.wait()
                continue
            wait = _calls[0][0] - time.monotonic()
            if wait > 0:
                _woken.wait(wait)
                continue
            _, _, function, arguments = heapq.heappop(_calls)
        function(*arguments)
