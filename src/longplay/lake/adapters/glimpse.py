"""A sample of a log from the head, middle and end of its files, and the format of its CSV files."""

from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.json_lines import read_json_lines
from longplay.lake.adapters.record_files import JSON_LINES, PARQUET, find_files

HEAD_BYTES = 512_000
PLACE_BYTES = 96_000
PLACES = (0.2, 0.4, 0.6, 0.8, 1.0)  # of a CSV file, as shares of its length, beside the head
PLACE_ROWS = 1_500  # of a Parquet file, at each of the places
MOST_FILES = 5  # of a folder: the first, the last and some between
# CSV files up to this size are read whole for the span of their times, of larger ones a sample
WHOLE_BYTES = 64_000_000
GZIP_BYTES = 8_000_000  # compressed CSV files up to this size are unpacked
SEPARATORS = (",", ";", "\t", "|")
BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


@dataclass(frozen=True)
class Glimpse:
    """A sample of a log, with the number of rows and the file format.

    Attributes:
        path: as it was given.
        files: all files of the log, in order.
        sample: rows from several places, in order of file and place; CSV columns are text.
        rows: of all files; estimated from their size for CSV.
        separator: of CSV files, where they are not the usual comma and UTF-8; else None.
        encoding: of CSV files, where they are not the usual comma and UTF-8; else None.
        complete: whether the sample holds all rows of the log.
    """

    path: Path
    files: tuple[Path, ...]
    sample: pl.DataFrame
    rows: int
    separator: str | None
    encoding: str | None
    complete: bool

    @property
    def is_parquet(self) -> bool:
        """Whether the files are Parquet."""
        return self.files[0].suffix.lower() in PARQUET

    def column(self, name: str) -> pl.Series:
        """A column of the whole log where that is quick to read, else of the sample."""
        size = sum(file.stat().st_size for file in self.files)
        if (
            self.complete
            or self.files[0].name.lower().endswith(".gz")
            or (size > WHOLE_BYTES and not self.is_parquet)
        ):
            return self.sample[name]
        try:
            if self.is_parquet:
                return (
                    pl.scan_parquet(list(self.files), glob=False, hive_partitioning=False)
                    .select(name)
                    .collect()[name]
                )
            parts = [
                pl.read_csv(
                    file,
                    columns=[name],
                    infer_schema=False,
                    glob=False,
                    separator=self.separator or ",",
                    encoding="utf8-lossy",
                    truncate_ragged_lines=True,
                    ignore_errors=True,
                )[name]
                for file in self.files
            ]
            return pl.concat(parts)
        except pl.exceptions.PolarsError:
            return self.sample[name]


def glimpse(path: str | Path) -> Glimpse:
    """Look at a file, a folder or a pattern of Parquet or CSV files.

    Raises:
        ConfigError: nothing there, or files of another kind.
        DataError: a file cannot be read, is empty, or has only a header.
    """
    _, files = find_files(path)
    chosen = _spread(files)
    if all(file.suffix.lower() in PARQUET for file in files):
        parts = [_parquet_places(file) for file in chosen]
        sample = pl.concat([part for part, _ in parts], how="diagonal_relaxed")
        rows = sum(_parquet_rows(file) for file in files)
        _refuse_empty(path, sample, rows)
        return Glimpse(Path(path), tuple(files), sample, rows, None, None, complete=False)
    if any(file.suffix.lower() in PARQUET for file in files):
        raise ConfigError(
            f"{path}: holds CSV and Parquet files; name one kind, e.g. {Path(path) / '*.parquet'}"
        )
    chunks = [_csv_places(file) for file in chosen]
    encoding = _encoding(b"".join(part for chunk, _ in chunks for part in chunk), chosen[0])
    texts = [
        [part.decode(encoding or "utf-8", errors="replace") for part in chunk]
        for chunk, _ in chunks
    ]
    header_line = texts[0][0].lstrip("\ufeff").split("\n", 1)[0].rstrip("\r")
    separator = _separator(texts[0][0])
    header = next(csv.reader([header_line], delimiter=separator), [])
    _refuse_no_header(chosen[0], header)
    records = [
        record
        for parts in texts
        for number, part in enumerate(parts)
        for record in _records(part, separator, len(header), number == 0)
    ]
    sample = pl.DataFrame(
        {name: [record[place] or None for record in records] for place, name in enumerate(header)},
        schema=dict.fromkeys(header, pl.String),
    )
    read = sum(len(part) for chunk, _ in chunks for part in chunk)
    size = (
        sum(_text_bytes(file, chunk) for file, (chunk, _) in zip(chosen, chunks))
        * len(files)
        // len(chosen)
    )
    is_complete = len(files) == len(chosen) and all(done for _, done in chunks)
    rows = sample.height if is_complete else round(sample.height * size / max(read, 1))
    _refuse_empty(path, sample, rows)
    usual = "\t" if ".tsv" in files[0].name else ","
    return Glimpse(
        Path(path),
        tuple(files),
        sample,
        rows,
        None if separator == usual else separator,
        encoding,
        is_complete,
    )


def sample_of(file: Path) -> pl.DataFrame:
    """Rows of one file; a file with a JSON object per line is read whole.

    Raises:
        ConfigError: a file of another kind.
        DataError: it cannot be read, is empty, or has only a header.
    """
    if file.suffix.lower() not in JSON_LINES:
        return glimpse(file).sample
    rows = read_json_lines(file).rows
    _refuse_empty(file, rows, rows.height)
    return rows


def headers(files: list[Path]) -> dict[Path, tuple[str, ...]]:
    """The columns of every file that can be read."""
    columns_of_file = {}
    for file in files:
        try:
            columns_of_file[file] = tuple(glimpse(file).sample.columns)
        except (ConfigError, DataError):
            continue
    return columns_of_file


def _spread(files: list[Path]) -> list[Path]:
    if len(files) <= MOST_FILES:
        return files
    return [
        files[round(place * (len(files) - 1) / (MOST_FILES - 1))] for place in range(MOST_FILES)
    ]


def _parquet_rows(file: Path) -> int:
    try:
        return int(
            pl.scan_parquet(file, glob=False, hive_partitioning=False)
            .select(pl.len())
            .collect()
            .item()
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{file}: cannot be read, expected a Parquet file: {str(error).splitlines()[0]}"
        ) from error


def _parquet_places(file: Path) -> tuple[pl.DataFrame, bool]:
    rows = _parquet_rows(file)
    scan = pl.scan_parquet(file, glob=False, hive_partitioning=False)
    if rows <= PLACE_ROWS * (len(PLACES) + 1):
        return scan.collect(), True
    starts = [0, *(min(round(place * rows), rows - PLACE_ROWS) for place in PLACES)]
    return pl.concat([scan.slice(start, PLACE_ROWS).collect() for start in starts]), False


def _csv_places(file: Path) -> tuple[list[bytes], bool]:
    """Complete lines from several places of a CSV file, its head first, and whether they are all of
    its lines."""
    try:
        if file.name.lower().endswith(".gz"):
            with gzip.open(file) as packed:
                content = packed.read(-1 if file.stat().st_size <= GZIP_BYTES else 8 * HEAD_BYTES)
            handle: io.BufferedIOBase = io.BytesIO(content)
            size = len(content)
        else:
            handle = file.open("rb")
            size = file.stat().st_size
        with handle:
            if size <= HEAD_BYTES + len(PLACES) * PLACE_BYTES:
                return [handle.read()], True
            parts = [handle.read(HEAD_BYTES)]
            for place in PLACES:
                handle.seek(max(HEAD_BYTES, round(place * size) - PLACE_BYTES))
                parts.append(handle.read(PLACE_BYTES).partition(b"\n")[2])
    except (OSError, EOFError) as error:
        raise DataError(f"{file}: cannot be read: {error}") from error
    return [
        part.rpartition(b"\n")[0] if number < len(parts) - 1 else part
        for number, part in enumerate(parts)
    ], False


def _text_bytes(file: Path, chunk: list[bytes]) -> int:
    packed = file.name.lower().endswith(".gz")
    if packed:
        return max(sum(map(len, chunk)), file.stat().st_size * (4 if packed else 1))
    return file.stat().st_size


def _encoding(content: bytes, file: Path) -> str | None:
    """The encoding of the text, None for UTF-8."""
    for mark, encoding in BOMS:
        if content.startswith(mark):
            return None if encoding == "utf-8" else encoding
    if b"\0" in content:
        raise DataError(
            f"{file}: holds NUL bytes, so it is no text; expected a CSV file, or Parquet with the "
            "ending .parquet"
        )
    try:
        content.decode()
    except UnicodeDecodeError as error:
        if error.start > len(content) - 4:
            return None  # a character cut at the end of a place
        bad = content.decode("utf-8", errors="replace").count("\ufffd")
        control = sum(content.count(bytes([byte])) for byte in range(1, 9))
        if control > len(content) // 1_000 or bad > len(content) // 4:
            raise DataError(
                f"{file}: is no text in any encoding that is known here; expected a CSV file, or "
                "Parquet (.parquet)"
            ) from error
        return "windows-1252" if any(0x80 <= byte < 0xA0 for byte in content) else "latin-1"
    return None


def _separator(head: str) -> str:
    """The character that splits most lines of the head into the same number of fields, at least
    two. A comma where none does."""
    lines = [line for line in head.splitlines()[:200] if line]
    scores = {}
    for separator in SEPARATORS:
        fields = [len(record) for record in csv.reader(lines, delimiter=separator)]
        if fields and fields[0] > 1:
            scores[separator] = (
                sum(count == fields[0] for count in fields) / len(fields) > 0.9,
                fields[0],
            )
    return max(scores, key=lambda separator: scores[separator]) if scores else ","


def _records(text: str, separator: str, width: int, has_header: bool) -> list[list[str]]:
    records = [
        record
        for record in csv.reader(io.StringIO(text.lstrip("\ufeff")), delimiter=separator)
        if len(record) == width
    ]
    return records[1:] if has_header else records


def _refuse_no_header(file: Path, header: list[str]) -> None:
    if not any(name.strip() for name in header):
        raise DataError(f"{file}: the file is empty; expected a header line and rows")
    if len(set(header)) < len(header):
        doubled = next(name for name in header if header.count(name) > 1)
        raise DataError(
            f"{file}: column {doubled!r} stands twice in the header; expected every name once, "
            "rename one of them"
        )
    numbers = sum(name.strip().lstrip("-").replace(".", "", 1).isdigit() for name in header)
    if numbers * 2 >= len(header):
        raise DataError(
            f"{file}: its first line holds values ({', '.join(header[:4])}), expected the names "
            "of the columns; add a header line"
        )


def _refuse_empty(path: str | Path, sample: pl.DataFrame, rows: int) -> None:
    if sample.is_empty() or rows == 0:
        raise DataError(
            f"{path}: has the columns {', '.join(sample.columns)} and no rows; expected a log in "
            "which something happens"
        )
