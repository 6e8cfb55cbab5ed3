"""One CSV file as rows of text, and the rows of it that cannot be read."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.csv as pa_csv

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.records import FAULTS, NOT_TEXT, Records

CHUNK_BYTES = 1 << 22
BLOCK_BYTES = 1 << 24  # bytes that the fast parser holds at a time
CHUNK_ROWS = 50_000
MOST_HEADER = 1_000  # characters of a header with line breaks in quotes
MOST_CHARACTERS = 1 << 24  # of one field
MOST_UNDECODED = 0.05  # share of undecoded rows above which the encoding must be another

# a character that Unicode keeps out of texts; the two digits after it are the byte that could not
# be decoded
UNDECODED = "\ufdd0"
HANDLER = "longplay-undecoded"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

TOO_FEW = "too few fields"
TOO_MANY = "too many fields"
TOO_LONG = "field too long"
UNCLOSED = "quote never closed"
NUL = "NUL byte"


def read_delimited(file: Path, separator: str, encoding: str) -> Records | None:
    """The records of a CSV file, gzipped where its name ends in .gz; null for an empty file.

    A field is text, an empty one null. Quotes are double quotes, doubled inside quotes; a field in
    quotes may hold line breaks. A record with too many or too few fields, with bytes that are not
    of the encoding, with a NUL byte or with a quote that is never closed is a fault.

    Args:
        file: the CSV file; its first record is the header.
        separator: one ASCII character.
        encoding: a text encoding that Python knows.

    Raises:
        DataError: the file is no CSV file, or more than 5% of its records are of another encoding.
    """
    try:
        header, skipped = _header(file, separator, encoding)
        if not header:
            return None
        text = _Utf8(file, encoding)
        parsed = _parse_fast(text, len(header), separator)
        if parsed is None:
            text = _Utf8(file, encoding)
            with _long_fields():
                parsed = _parse_carefully(text, len(header), separator)
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a CSV file: {error}") from error
    rows, faults, blank = parsed
    rows = rows.filter(pl.col("line") > skipped)
    if text.not_plain:
        rows, more = _set_apart(rows, separator)
        faults = pl.concat([faults, more]).sort("line")
    undecoded = faults.filter(pl.col("reason") == NOT_TEXT)
    if undecoded.height > MOST_UNDECODED * (rows.height + faults.height):
        raise DataError(
            _encoding_words(
                file,
                encoding,
                f"line {undecoded['line'][0] - skipped}: {_shown(undecoded['text'][0])[:80]}",
            )
        )
    doubled = frozenset(name for name in header if header.count(name) > 1)
    shifted = faults.with_columns(
        pl.col("line") - skipped, pl.col("text").str.replace_all(UNDECODED, "\\x", literal=True)
    )
    table = rows.drop("line").rename(dict(zip(rows.columns[1:], _unique(header))))
    return Records(table, rows["line"] - skipped, shifted, blank, doubled)


def check_dialect(separator: str, encoding: str) -> None:
    """Raise unless CSV files can be read with this separator and encoding.

    Raises:
        ConfigError: more than one character between fields, or an encoding that Python does not
            know.
    """
    if len(separator) != 1 or not separator.isascii() or separator in '"\r\n\0':
        many = ' (for a tab write "\\t" in double quotes)' if separator == "\\t" else ""
        raise ConfigError(
            f"separator = {separator!r} given, expected one ASCII character such as ';', '|' or a "
            f"tab{many}; "
            "replace longer separators in the file by one character first"
        )
    try:
        codecs.getincrementaldecoder(encoding)(HANDLER).decode(b"a", final=True)
    except (
        LookupError,
        ValueError,
        AssertionError,
    ) as error:
        # codecs that are not of texts raise other errors
        raise ConfigError(
            f"encoding = {encoding!r} is unknown, expected one such as 'utf-8', 'utf-16', "
            "'latin-1' or 'windows-1252'"
        ) from error


class _Utf8(io.RawIOBase):
    """A file's bytes as UTF-8, without byte order mark and with undecoded bytes marked. Also
    counts what it saw."""

    def __init__(self, file: Path, encoding: str) -> None:
        self._chunks = self._decoded(file, encoding)
        self._pending = memoryview(b"")
        self.not_plain = False  # there are undecoded or NUL bytes
        self.lines = 0
        self.quotes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        target = memoryview(buffer)  # type: ignore[arg-type]
        while not self._pending:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._pending = memoryview(chunk)
        size = min(len(target), len(self._pending))
        target[:size] = self._pending[:size]
        self._pending = self._pending[size:]
        return size

    def _decoded(self, file: Path, encoding: str) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(encoding)(HANDLER)
        is_first = True
        ends_line = True
        with _open(file) as raw:
            while True:
                chunk = raw.read(CHUNK_BYTES)
                text = decoder.decode(chunk, final=not chunk)
                if is_first and text:
                    text = text.removeprefix("\ufeff")
                    is_first = False
                if text:
                    data = text.encode("utf-8", "replace")
                    self.not_plain |= UNDECODED in text or "\0" in text
                    self.lines += data.count(b"\n")
                    self.quotes += data.count(b'"')
                    ends_line = data.endswith(b"\n")
                    yield data
                if not chunk:
                    break
        self.lines += not ends_line


def _open(file: Path) -> io.BufferedIOBase:
    return gzip.open(file) if file.name.lower().endswith(".gz") else file.open("rb")  # type: ignore[return-value]


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Replace bytes that cannot be decoded by marks; an error handler of `codecs`."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "".join(
        f"{UNDECODED}{byte:02x}" for byte in error.object[error.start : error.end]
    ), error.end


codecs.register_error(HANDLER, _mark)


def _header(file: Path, separator: str, encoding: str) -> tuple[list[str], int]:
    """The field names, empty for an empty file, and the number of records to skip before the first
    row."""
    with _open(file) as raw:
        start = raw.read(4)
    for mark, marked in BYTE_ORDER_MARKS:
        if start.startswith(mark) and codecs.lookup(encoding).name == "utf-8":
            raise DataError(
                f"{file}: cannot be read, expected UTF-8, but its first bytes are those of "
                f'{marked}; give encoding = "{marked}"'
            )
    with io.TextIOWrapper(
        io.BufferedReader(_Utf8(file, encoding)), encoding="utf-8", newline=""
    ) as lines:
        skipped = 0
        for header in csv.reader(lines, delimiter=separator):
            skipped += 1
            if any(header):
                break
        else:
            return [], 0
    joined = "".join(header)
    if UNDECODED in joined:
        raise DataError(
            _encoding_words(file, encoding, f"the header: {_shown(separator.join(header))[:80]}")
        )
    if "\0" in joined:
        raise DataError(
            f"{file}: cannot be read, its header holds NUL bytes; if it is UTF-16, give encoding "
            '= "utf-16-le" or "utf-16-be"'
        )
    if "\n" in joined and len(joined) > MOST_HEADER:
        raise DataError(
            f"{file}: cannot be read, its header has {len(joined):,} characters in several lines; "
            "is a quote in it never closed?"
        )
    if mark := re.fullmatch(r"sep=(.)", separator.join(header)):
        raise DataError(
            f"{file}: its first line is {mark[0]!r}, which spreadsheets write; remove it and give "
            f"separator = {mark[1]!r}"
        )
    if separator == " " and "" in header:
        raise DataError(
            f"{file}: its fields stand between runs of spaces, expected one separator between two "
            "fields; replace each run by one first"
        )
    return header, skipped


def _unique(header: list[str]) -> list[str]:
    """The names, with numbers appended to empty and repeated ones.

    >>> _unique(["who", "", "who"])
    ['who', 'column 2', 'who (column 3)']
    """
    names: list[str] = []
    for position, name in enumerate(header, start=1):
        numbered = f"{name} (column {position})" if name in names else name or f"column {position}"
        names.append(numbered)
    return names


def _parse_fast(
    text: _Utf8, fields: int, separator: str
) -> tuple[pl.DataFrame, pl.DataFrame, int] | None:
    """Rows with `line` and the fields by position, faults, and the number of blank lines; null
    where a record may span lines.

    Lines are counted from 1 at the file's first, the header.
    """
    faults: list[tuple[int, str, str]] = []

    def set_aside(row: pa_csv.InvalidRow) -> str:
        faults.append((row.number, TOO_FEW if row.actual_columns < fields else TOO_MANY, row.text))
        return "skip"

    names = [str(position) for position in range(fields)]
    try:
        reader = pa_csv.open_csv(
            io.BufferedReader(text, CHUNK_BYTES),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=BLOCK_BYTES, column_names=names
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=separator,
                newlines_in_values=True,
                ignore_empty_lines=False,
                invalid_row_handler=set_aside,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                check_utf8=False,
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
                null_values=[""],
            ),
        )
        blocks = [pl.DataFrame(block) for block in reader]
    except pa.ArrowInvalid:
        return None
    rows = pl.concat(blocks)
    if text.lines != rows.height + len(faults) or text.quotes % 2:
        return None
    if rows.select(pl.all_horizontal(pl.all().is_null()).any()).item():
        return (
            None  # a blank line, or a row of separators alone: this parser cannot distinguish them
        )
    set_apart = pl.DataFrame(faults, schema=FAULTS, orient="row")
    every_line = pl.int_range(1, text.lines + 1, eager=True, dtype=pl.Int64)
    lines = every_line.filter(~every_line.is_in(set_apart["line"].implode()))
    return rows.select(lines.alias("line"), pl.all()), set_apart, 0


def _parse_carefully(
    text: _Utf8, fields: int, separator: str
) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """What `_parse_fast` returns, for any file. An unclosed quote spoils its own line alone.

    Slower, and needed only where lines are blank, or quotes hold line breaks or are not in pairs.
    """
    frames: list[pl.DataFrame] = []
    rows: list[list[str | None]] = []
    faults: list[tuple[int, str, str]] = []
    schema = pl.Schema(
        {"line": pl.Int64, **{str(position): pl.String for position in range(fields)}}
    )

    def flush() -> None:
        frames.append(pl.DataFrame(rows, schema=schema, orient="row"))
        rows.clear()

    source = _Lines(
        io.TextIOWrapper(io.BufferedReader(text, CHUNK_BYTES), encoding="utf-8", newline="")
    )
    number = 0
    blank = 0
    while (record := _next_record(source, separator)) is not None:
        number += 1
        values, written = record
        if isinstance(values, str):
            faults.append((number, values, written.rstrip("\r\n")))
        elif not values:
            blank += 1
        elif len(values) == fields:
            rows.append([number, *((value or None) for value in values)])  # type: ignore[list-item]
        else:
            faults.append(
                (number, TOO_FEW if len(values) < fields else TOO_MANY, written.rstrip("\r\n"))
            )
        if len(rows) == CHUNK_ROWS:
            flush()
    flush()
    return pl.concat(frames), pl.DataFrame(faults, schema=FAULTS, orient="row"), blank


@contextmanager
def _long_fields() -> Iterator[None]:
    """Context in which Python's CSV reader accepts fields as long as prompts and reviews."""
    limit = csv.field_size_limit(MOST_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


class _Lines:
    """The lines of a text, of which some can be put back. `taken` holds those since the last record
    ended."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._again: list[str] = []
        self.taken: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self.taken.append(line)
        return line

    def put_back(self) -> None:
        """Return all taken lines but the first to the input."""
        self._again.extend(reversed(self.taken[1:]))
        del self.taken[1:]


def _next_record(lines: _Lines, separator: str) -> tuple[list[str] | str, str] | None:
    """The fields and the text of the next record; null at the end. Where it cannot be read, the
    reason stands in place of the fields."""
    lines.taken.clear()
    try:
        values = next(csv.reader(lines, delimiter=separator, strict=True), None)
        return None if values is None else (values, "".join(lines.taken))
    except csv.Error:
        # quotes that do not stand around a whole field: the record is its first line, read as
        # spreadsheets read it
        lines.put_back()
    line = lines.taken[0]
    try:
        values = next(csv.reader([line], delimiter=separator))
    except csv.Error:
        return TOO_LONG, line
    is_open = bool(values) and values[-1].endswith(("\r", "\n"))
    return (UNCLOSED if is_open else values), line


def _set_apart(rows: pl.DataFrame, separator: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of valid text, and as faults the rows with undecoded or NUL bytes."""
    fields = pl.exclude("line")
    undecoded = pl.any_horizontal(fields.str.contains(UNDECODED, literal=True).fill_null(False))
    nul = pl.any_horizontal(fields.str.contains("\0", literal=True).fill_null(False))
    judged = rows.with_columns(
        pl.when(undecoded).then(pl.lit(NOT_TEXT)).when(nul).then(pl.lit(NUL)).alias("reason")
    )
    bad = judged.filter(pl.col("reason").is_not_null())
    text = pl.concat_str(pl.exclude("line", "reason").fill_null(""), separator=separator)
    faults = bad.select("line", "reason", text.alias("text"))
    return judged.filter(pl.col("reason").is_null()).drop("reason"), faults


def _shown(text: str) -> str:
    return text.replace(UNDECODED, "\\x")


def _encoding_words(file: Path, encoding: str, where: str) -> str:
    expected = "UTF-8" if codecs.lookup(encoding).name == "utf-8" else encoding
    return (
        f"{file}: cannot be read, expected {expected}, but it holds other bytes, first in "
        f'{where}; give its encoding, e.g. encoding = "windows-1252"'
    )
