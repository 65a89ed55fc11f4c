"""Parquet files as tables of text, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from lexarium.corpora.reading import TextFile, near
from lexarium.foundation.types import UserError, gist


def rows(file: TextFile) -> list[int]:
    """Rows of every row group; raises UserError for what is no Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.ParquetFile(file.path).metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{file.path}: not a Parquet file ({error})") from None
    return [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]


def column_bytes(file: TextFile, name: str) -> int:
    """Bytes of a column, uncompressed."""
    import pyarrow.parquet as pq

    rows(file)  # refuses what is no Parquet file
    metadata = pq.ParquetFile(file.path).metadata
    columns = [
        metadata.row_group(i).column(j)
        for i in range(metadata.num_row_groups)
        for j in range(metadata.num_columns)
    ]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == name)


def batches(file: TextFile, group: int, wanted: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    """Rows of a row group as dictionaries of the wanted columns; the first is the text's."""
    import pyarrow.parquet as pq

    handle = pq.ParquetFile(file.path)
    names = handle.schema_arrow.names
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            f"{file.path}: no column {missing[0]!r}{near(missing[0], names)} (columns: {', '.join(names)}); say"
            " which is corpus.text"
        )
    try:
        for batch in handle.iter_batches(batch_size=1024, row_groups=[group], columns=list(wanted)):
            yield batch.to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file.path}: row group {group}: damaged ({gist(error)}); mend the download"
        ) from None
