"""Promises of the progress display: plain, rare lines off a terminal, a bar on one."""

from __future__ import annotations

import io

import pytest

from elign.common.progress import show_progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_are_rate_limited_and_the_last_unit_always_shows() -> None:
    stream, now = io.StringIO(), [0.0]
    with show_progress("sampling", stream=stream, interval_s=5.0, clock=lambda: now[0]) as progress:
        for done in range(1, 21):
            now[0] = float(done)
            progress(done, 20, "loss 0.5" if done == 20 else "")
    assert stream.getvalue().splitlines() == [
        "sampling 1/20 (1 s)",
        "sampling 6/20 (6 s)",
        "sampling 11/20 (11 s)",
        "sampling 16/20 (16 s)",
        "sampling 20/20 (20 s) loss 0.5",
    ]


def test_a_terminal_gets_a_bar_with_figures() -> None:
    stream = Terminal()
    with show_progress("training", stream=stream) as progress:
        progress(1, 2)
        progress(2, 2, "reward -3.1")
    assert "training" in stream.getvalue()
    assert "2/2" in stream.getvalue()
    assert "reward -3.1" in stream.getvalue()


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("sampling") as progress:
        progress(1, 1)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "sampling 1/1 (0 s)\n"
