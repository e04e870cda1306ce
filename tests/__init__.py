"""A package, so that ``tests`` means this folder and not one that some library installs under that name."""
