"""The frame of all reports: one HTML file that needs no network."""

from __future__ import annotations

from html import escape
from importlib.resources import files


def html_page(title: str, body: str) -> str:
    """A whole page around ``body`` (HTML); title: plain text."""
    assets = files("elign.learner").joinpath("assets")
    style, script = (
        assets.joinpath(name).read_text(encoding="utf-8") for name in ("report.css", "report.js")
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Elign: {escape(title)}</title><style>{style}</style></head>"
        f"<body><main>{body}</main><script>{script}</script></body></html>\n"
    )
