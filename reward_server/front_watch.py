"""Looks after the reward server's front: one that does not answer is restarted.

The front looks after its replicas (``dispatcher``), and Ray restarts a front that dies. One that hangs, with
its node for example, is only seen by somebody who asks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

ASK_EVERY_S = 10.0
log = logging.getLogger("elign")


@contextmanager
def watched_front(server: Any, timeout_s: float) -> Iterator[None]:
    """While the block runs, ``server`` (see ``start_reward_server``) is restarted when silent for so long.

    What it had not answered is asked again by Ray, and comes out the same. One that cannot be reached for
    another reason is left to Ray.
    """
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(server, timeout_s, over), name="front-watch", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()


def _watch(server: Any, timeout_s: float, over: threading.Event) -> None:
    while not over.wait(ASK_EVERY_S):
        try:
            _look_after(server, timeout_s, over)
        except RayError as error:
            log.warning("the reward server could not be asked whether it is well: %s", error)


def _look_after(server: Any, timeout_s: float, over: threading.Event) -> None:
    answer = server.ping.remote()
    if _answered(answer, timeout_s, over):
        return
    log.warning("the reward server has not answered for %.0f s; it is restarted", timeout_s)
    ray.kill(server, no_restart=False)
    _answered(answer, timeout_s, over)  # by the new one: time to start


def _answered(answer: Any, timeout_s: float, over: threading.Event) -> bool:
    """Whether there was an answer in time, or nobody wants to know any more.

    That it died is an answer too: then Ray restarts it.
    """
    end = time.monotonic() + timeout_s
    while not over.is_set() and time.monotonic() < end:
        if ray.wait([answer], timeout=1.0)[0]:
            return True
    return over.is_set()
