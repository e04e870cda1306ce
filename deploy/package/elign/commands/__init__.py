"""One file per command of ``elign``: options, help with examples, and a few calls into the rooms."""
