"""Sent to a cluster and run there: asks Ray to empty a node, as ``ray drain-node`` does (Ray 2.60)."""

from __future__ import annotations

import os
import sys
import time

if __name__ == "__main__":
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    node, deadline_s = sys.argv[1], float(sys.argv[2])
    accepted, why = GcsClient(address=os.environ["RAY_ADDRESS"]).drain_node(
        node,
        DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION"),
        "asked for by elign drain",
        int(1000 * (time.time() + deadline_s)),
    )
    if not accepted:
        sys.exit(f"Ray refuses to drain the node: {why}")
