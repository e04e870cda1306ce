"""Reading Parquet files that another process may be replacing."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from elign.common.errors import DataError


def read_table(path: Path) -> pa.Table:
    """All of ``path``. Raises FileNotFoundError, and DataError when it is no Parquet file or damaged.

    The file is opened once, so that what is read is one version of it, and no scanner is asked
    (``pyarrow.parquet.read_table``): that leaves a thread behind which can abort a short process at its end.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read(use_threads=False)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
