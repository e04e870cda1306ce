"""Promises of ``one_thread``: it holds OpenMP and BLAS to one, and leaves no trace."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from elign.common.threads import one_thread


def blas_threads() -> list[int]:
    return [entry["num_threads"] for entry in threadpool_info() if entry["user_api"] == "blas"]


def test_one_thread_holds_openmp_and_blas_and_leaves_no_trace() -> None:
    scipy.linalg.cholesky(np.eye(3))  # its BLAS is there
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with threadpool_limits(2, user_api="blas"):
            with one_thread():
                assert torch.get_num_threads() == 1
                assert set(blas_threads()) == {1}
            assert torch.get_num_threads() == 2
            assert 2 in blas_threads()
    finally:
        torch.set_num_threads(before)
