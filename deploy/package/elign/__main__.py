"""``python -m elign`` is the same as the ``elign`` command."""

from elign.cli import main

main()
