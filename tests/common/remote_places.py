"""Real file systems with an address, for tests: one of this machine, and an S3 server of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

PLACES = ("file", "s3")


def remote_place(kind: str, folder: Path, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """``{}`` in what it yields stands for a path below an empty folder or bucket."""
    if kind == "file":
        yield f"{(folder / 'remote').as_uri()}/{{}}"
        return
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        patch.setenv(name, "testing")
    server.start()
    host, port = server.get_host_and_port()
    requests.post(f"http://{host}:{port}/moto-api/reset", timeout=20)  # all servers of a process share it
    requests.put(f"http://{host}:{port}/bucket", timeout=20).raise_for_status()
    yield f"s3://bucket/{{}}?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()
