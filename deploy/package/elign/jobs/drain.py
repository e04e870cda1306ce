"""Emptying a node of a cluster before its machine goes: nothing new comes, what is there finishes and leaves.

    drain(connect("http://127.0.0.1:8265"), "10.0.0.7", 120)

Rollout actors finish what they sample and are replaced elsewhere; see ``elign.actors.roster``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from elign.common.errors import ClusterError, ConfigError
from elign.jobs import drain_request
from elign.jobs.connection import Connection
from elign.jobs.errand import run_script

_POLL_S = 1.0


@dataclass(frozen=True)
class Node:
    """A living node. identifier: Ray's, hexadecimal."""

    identifier: str
    hostname: str
    ip: str
    is_head: bool

    def __str__(self) -> str:
        return f"{self.identifier[:12]} ({self.hostname}, {self.ip}{', head' if self.is_head else ''})"


def drain(connection: Connection, name: str, deadline_s: float) -> Node:
    """Empty a node and wait until no actor is left there.

    name: the node's id or the beginning of it, its address, or its host's name. Raises ConfigError where that
    names no node that can be emptied, and ClusterError when something is left after ``deadline_s``.
    """
    node = find_node(living_nodes(connection), name)
    if node.is_head:
        raise ConfigError(
            f"node {node} is the cluster's head, which cannot go alone: stop the runs with elign stop first"
        )
    begin = time.monotonic()
    run_script(connection, Path(drain_request.__file__), [node.identifier, str(deadline_s)])
    while left := _actors_on(connection, node):
        if time.monotonic() - begin > deadline_s:
            raise ClusterError(f"after {deadline_s:g} s there still is on node {node}: {', '.join(left)}")
        time.sleep(_POLL_S)
    return node


def living_nodes(connection: Connection) -> list[Node]:
    """All that are up now."""
    found = []
    for node in connection.get("/nodes?view=summary")["data"]["summary"]:
        raylet = node["raylet"]
        if raylet.get("state") == "ALIVE":
            found.append(Node(raylet["nodeId"], node["hostname"], node["ip"], bool(raylet["isHeadNode"])))
    return found


def find_node(nodes: list[Node], name: str) -> Node:
    """The only one with that name; raises ConfigError and shows what there is otherwise."""
    fitting = [node for node in nodes if name in (node.ip, node.hostname)]
    fitting += [node for node in nodes if name and node.identifier.startswith(name) and node not in fitting]
    if len(fitting) == 1:
        return fitting[0]
    problem = "is the name of several nodes" if fitting else "names no node that is up"
    raise ConfigError(f"{name!r} {problem}; there are: {', '.join(map(str, nodes))}")


def _actors_on(connection: Connection, node: Node) -> list[str]:
    """Class names of the actors that live there."""
    query = "filter_keys=node_id&filter_predicates=%3D&filter_values=" + node.identifier
    answer = connection.get(f"/api/v0/actors?limit=10000&{query}")["data"]["result"]["result"]
    return sorted(str(actor["class_name"]) for actor in answer if actor["state"] not in ("DEAD",))
