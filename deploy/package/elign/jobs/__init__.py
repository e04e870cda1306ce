"""Starting Ray clusters on this machine, and sending training jobs to clusters anywhere."""
