"""Elign: post-train E(3)-equivariant diffusion models of molecules with force-field rewards."""

__version__ = "0.1.0"
