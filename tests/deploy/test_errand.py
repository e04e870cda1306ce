"""What a short job on the head printed, wherever Ray's own line about it stands."""

from __future__ import annotations

import pytest

from elign.jobs.errand import _BEGIN, _without_ray

RAY = f"2026-01-01 INFO Running entrypoint for job elign-errand-1: echo {_BEGIN}; python probe.py\n"


@pytest.mark.parametrize(
    "printed",
    [
        f'{RAY}{_BEGIN}\n{{\n  "a": 1\n}}\n',
        f'{_BEGIN}\n{RAY}{{\n  "a": 1\n}}\n',
        f'{_BEGIN}\n{{\n{RAY}  "a": 1\n}}\n',
        f'{_BEGIN}\n{{\n  "a": 1\n}}\n{RAY}',
    ],
)
def test_the_answer_is_what_the_command_printed(printed: str) -> None:
    assert _without_ray(printed, "elign-errand-1") == '{\n  "a": 1\n}\n'


def test_a_job_that_never_began_answers_nothing() -> None:
    assert _without_ray(f"no worker\n{RAY}", "elign-errand-1") == ""
