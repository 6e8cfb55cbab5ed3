"""Digest of a batch's content, which tells a retry from another batch with the same id."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime

import numpy as np
import polars as pl
import pyarrow as pa

from longplay.lake.schema import TABLES

# columns that older batches lack; while they are empty they do not change the digest
LATER = {
    name for columns in TABLES.values() for name, column in columns.items() if not column.digested
}
ARRIVAL = "ingested_at"  # left out: a retry arrives later than the first try, with the same content


def content_digest(frames: Mapping[str, pl.DataFrame], watermark: datetime | None) -> str:
    """SHA-256 of the given tables and the declared watermark, in hexadecimal.

    Equal for equal values in equal order, whatever the frames' chunks, and whatever their arrival
    times.

    >>> two_values = content_digest({"t": pl.DataFrame({"a": ["x", "y"]})}, None)
    >>> chunked = pl.concat([pl.DataFrame({"a": ["x"]}), pl.DataFrame({"a": ["y"]})], rechunk=False)
    >>> content_digest({"t": chunked}, None) == two_values
    True
    >>> content_digest({"t": pl.DataFrame({"a": ["xy", ""]})}, None) == two_values
    False
    """
    digest = hashlib.sha256(repr(watermark).encode())
    for table, frame in sorted(frames.items()):
        digest.update(f"{table} {frame.height}".encode())
        columns = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        for name in columns.column_names:
            says_nothing = name in LATER and columns[name].null_count == frame.height
            if name != ARRIVAL and not says_nothing:
                digest.update(f"{name} {frame.schema[name]}".encode())
                _update(digest, columns[name].combine_chunks())
    return digest.hexdigest()


def _update(digest: hashlib._Hash, values: pa.Array) -> None:
    """Feed a column: which values are null, then lengths and contents of the others."""
    digest.update(np.packbits(values.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    present = values.drop_null() if values.null_count else values
    if pa.types.is_large_list(present.type):
        digest.update(np.diff(present.offsets.to_numpy()).tobytes())
        _update(digest, present.flatten())
    elif pa.types.is_large_string(present.type):
        _, offset_bytes, text = present.buffers()
        if text is not None and len(present):
            offsets = np.frombuffer(offset_bytes, dtype=np.int64)[
                present.offset : present.offset + len(present) + 1
            ]
            digest.update(np.diff(offsets).tobytes())
            digest.update(memoryview(text)[offsets[0] : offsets[-1]])
    else:
        numbers = present.cast(pa.int64()) if pa.types.is_timestamp(present.type) else present
        digest.update(np.ascontiguousarray(numbers.to_numpy(zero_copy_only=False)).tobytes())
