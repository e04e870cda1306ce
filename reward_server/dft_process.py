"""DFT in a process of its own, so that a calculation can be ended: by its time limit, or by what it wants of
the machine.

    with DftProcess(level, time_limit_s=600) as calculate:
        answer = calculate((numbers, positions))
"""

from __future__ import annotations

import multiprocessing
from multiprocessing.connection import Connection
from types import TracebackType

from elign.common.child_process import end_with_parent
from elign.common.errors import ForceFieldError
from elign.common.scoring import Failure
from elign.reward_server.dft import DftAnswer, DftLevel, single_point
from elign.reward_server.one_by_one import Structure

_START_LIMIT_S = 300.0
_READY = "ready"


class DftProcess:
    """One calculation at a time; the process is started when needed and serves many molecules."""

    def __init__(self, level: DftLevel, *, time_limit_s: float) -> None:
        """time_limit_s: of one molecule, by the clock."""
        self._level, self._time_limit_s = level, time_limit_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def __enter__(self) -> DftProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return None if self._process is None else self._process.pid

    def __call__(self, structure: Structure) -> DftAnswer | Failure:
        """The answer; TIME_LIMIT when the process was ended for it, WORKER_DIED when it died."""
        connection = self._connection or self._start()
        try:
            connection.send(structure)
            if not connection.poll(self._time_limit_s):
                self.close()
                return Failure.TIME_LIMIT
            answer = connection.recv()
        except (EOFError, OSError):  # such as the kernel's end of a process that took all memory
            self.close()
            return Failure.WORKER_DIED
        if isinstance(answer, DftAnswer | Failure):
            return answer
        self.close()
        raise ForceFieldError(f"DFT failed: {answer}")

    def close(self) -> None:
        """End the process, at work or not."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        if self._connection is not None:
            self._connection.close()
        self._process = self._connection = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        own, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, self._level), daemon=True)
        self._process.start()
        other.close()
        self._connection = own
        # a process that never gets ready must not count as a molecule that takes long
        try:
            ready = own.poll(_START_LIMIT_S) and own.recv() == _READY
        except (EOFError, OSError):
            ready = False
        if not ready:
            self.close()
            raise ForceFieldError("the DFT process did not start")
        return own


def _serve(connection: Connection, level: DftLevel) -> None:
    end_with_parent()
    from pyscf import lib

    lib.num_threads(1)
    connection.send(_READY)
    while True:
        try:
            numbers, positions = connection.recv()
        except EOFError:
            return
        connection.send(_answer(level, numbers, positions))


def _answer(level: DftLevel, *structure: object) -> DftAnswer | Failure | str:
    """A string says what kept this level from working at all."""
    try:
        return single_point(level, *structure)  # type: ignore[arg-type]
    except ForceFieldError as error:
        return str(error)
    except (ArithmeticError, LookupError, ValueError, RuntimeError, NotImplementedError):
        return Failure.CALCULATION_FAILED  # what PySCF and LAPACK raise about a molecule
