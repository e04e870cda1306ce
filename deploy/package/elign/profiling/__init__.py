"""Where the time and memory of post-training go: ``elign profile``."""
