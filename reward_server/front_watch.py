"""Looks after the reward server's front: one that does not answer is restarted.

The front looks after its replicas (``dispatcher``), and Ray restarts a front that dies. One that hangs, with
its node for example, is only seen by somebody who asks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError

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
            _ask(server, timeout_s, over)
        except RayActorError:
            continue  # it died, and Ray restarts it
        except RayError as error:
            log.warning("the reward server could not be asked whether it is well: %s", error)


def _ask(server: Any, timeout_s: float, over: threading.Event) -> None:
    answer, waited = server.is_there.remote(), 0.0
    while not over.is_set() and waited < timeout_s:
        try:
            ray.get(answer, timeout=1.0)
            return
        except GetTimeoutError:
            waited += 1.0
    if not over.is_set():
        log.warning("the reward server has not answered for %.0f s; it is restarted", timeout_s)
        ray.kill(server, no_restart=False)
        ray.wait([answer], timeout=timeout_s)  # answered by the new one: time to start
