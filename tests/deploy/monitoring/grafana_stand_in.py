"""A small HTTP server that keeps the part of Grafana's documented contract that is used here.

No Grafana: it stores what it gets and enforces authentication, roles, uids and versions (401, 403, 404, 409,
412). A real server cannot be installed where the tests run.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ADMIN, VIEWER = "token-of-an-admin", "token-of-a-viewer"


class Grafana:
    """What it stores; ``writes`` counts the requests that changed something."""

    def __init__(self) -> None:
        self.folders: dict[str, Any] = {}
        self.sources: dict[str, Any] = {}
        self.dashboards: dict[str, Any] = {}
        self.rules: dict[str, Any] = {}
        self.writes: list[str] = []
        self.reaches_prometheus = True

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if method != "GET":
            self.writes.append(f"{method} {path}")
        match path.strip("/").split("/"):
            case ["folders", uid] if method == "GET":
                return _lookup(self.folders, uid)
            case ["folders"] if method == "POST":
                return self._create(self.folders, body)
            case ["datasources", "uid", uid, "health"] if uid in self.sources:
                if self.reaches_prometheus:
                    return 200, {"status": "OK", "message": "Successfully queried the Prometheus API."}
                return 400, {"status": "ERROR", "message": "connection refused"}
            case ["datasources", "uid", uid] if method == "GET":
                return _lookup(self.sources, uid)
            case ["datasources", "uid", uid] if method == "PUT":
                if uid not in self.sources:
                    return 404, {"message": "Data source not found"}
                self.sources[uid] = {**self.sources[uid], **body}
                return 200, {"message": "Datasource updated"}
            case ["datasources"] if method == "POST":
                return self._create(self.sources, body)
            case ["dashboards", "uid", uid] if method == "GET":
                return _lookup(self.dashboards, uid)
            case ["dashboards", "db"] if method == "POST":
                return self._save_dashboard(body)
            case ["v1", "provisioning", "folder", folder, "rule-groups", name]:
                key = f"{folder}/{name}"
                if method == "GET":
                    return _lookup(self.rules, key)
                if folder not in self.folders:
                    return 400, {"message": "folder does not exist"}
                if any(rule["data"][0]["datasourceUid"] not in self.sources for rule in body["rules"]):
                    return 400, {"message": "data source does not exist"}
                self.rules[key] = json.loads(json.dumps(body))
                for number, rule in enumerate(self.rules[key]["rules"], 1):
                    rule |= {"id": number, "provenance": "api", "updated": "2026-01-01T00:00:00Z"}
                return 200, self.rules[key]
        return 404, {"message": f"Not found: {method} {path}"}

    def _create(self, store: dict[str, Any], body: Any) -> tuple[int, Any]:
        if body["uid"] in store:
            return 409, {"message": "exists already"}
        store[body["uid"]] = {**body, "id": len(store) + 1, "version": 1}
        return 200, store[body["uid"]]

    def _save_dashboard(self, body: Any) -> tuple[int, Any]:
        new = body["dashboard"]
        if body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        old = self.dashboards.get(new["uid"], {}).get("dashboard")
        if old is not None and not body["overwrite"] and new.get("version") != old["version"]:
            return 412, {"status": "version-mismatch", "message": "changed by someone else"}
        version = 1 if old is None else old["version"] + 1
        stored = {**new, "id": 1, "version": version}
        self.dashboards[new["uid"]] = {"dashboard": stored, "meta": {"folderUid": body["folderUid"]}}
        return 200, {"uid": new["uid"], "version": version, "status": "success"}


@contextmanager
def serving(grafana: Grafana) -> Iterator[str]:
    """Its address, on localhost, for the block."""

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if token not in (ADMIN, VIEWER):
                status, answer = 401, {"message": "Unauthorized"}
            elif token == VIEWER and self.command != "GET":
                status, answer = 403, {"message": "You'll need additional permissions"}
            else:
                status, answer = grafana.answer(self.command, self.path.removeprefix("/api"), body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = _handle  # noqa: N815

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _lookup(store: dict[str, Any], key: str) -> tuple[int, Any]:
    return (200, store[key]) if key in store else (404, {"message": "not found"})
