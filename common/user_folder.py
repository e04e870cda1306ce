"""Where a user's own policies and force fields live, so that they can be called by name.

``policies/NAME`` and ``force_fields/NAME`` in there are folders; ``elign policies import`` and ``elign
force-fields train`` make them. Names are looked up among the shipped ones first.
"""

from __future__ import annotations

import os
from pathlib import Path


def user_folder() -> Path:
    """``$ELIGN_HOME``, by default ``~/.local/share/elign``; may not exist yet."""
    chosen = os.environ.get("ELIGN_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".local" / "share" / "elign"
