"""Rows as they stand in a source: one file, a folder or a pattern of Parquet or CSV files, with
file and line."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import polars as pl

from longplay.errors import ConfigError, DataError
from longplay.lake.adapters.columnar import read_columnar
from longplay.lake.adapters.delimited import check_dialect, read_delimited
from longplay.lake.adapters.json_lines import read_json_lines
from longplay.lake.adapters.records import Records

# Columns beside the source's: FAULT is the reason why a row cannot be read, and TEXT its raw text;
# KIND is the kind that an adapter gave a row, AMOUNT its amount.
FILE = "__file"
LINE = "__line"
FAULT = "__fault"
TEXT = "__text"
KIND = "__kind"
AMOUNT = "__amount"
JUDGED = (KIND, AMOUNT)
ADDED = (FILE, LINE, FAULT, TEXT, *JUDGED)

CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
PARQUET = (".parquet", ".pq")
JSON_LINES = (".jsonl", ".ndjson")  # of descriptions of users and items
# read as CSV where they are named, passed over in a folder
PLAIN_TEXT = (
    ".txt",
    ".txt.gz",
    ".dat",
    ".data",
)
CONVERSIONS = {
    ".json": "read it with polars.read_json(...) and write it with .write_parquet(...)",
    ".jsonl": "read it with polars.read_ndjson(...) and write it with .write_parquet(...)",
    ".ndjson": "read it with polars.read_ndjson(...) and write it with .write_parquet(...)",
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".zip": "unpack it",
    ".gz": "unpack it, or name it .csv.gz if it holds CSV",
    ".bz2": "unpack it",
    ".zst": "unpack it",
    ".avro": "convert it to Parquet",
    ".orc": "convert it to Parquet",
    ".feather": "convert it to Parquet",
    ".arrow": "convert it to Parquet",
    ".sqlite": "export the table as CSV",
}
DEFAULT_PARTITION = "__HIVE_DEFAULT_PARTITION__"  # how partitioned folders spell null


@dataclass(frozen=True)
class Rows:
    """The rows of a source as `table`, and notes on what was skipped."""

    table: pl.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """The source's own columns."""
        return [name for name in self.table.columns if name not in ADDED]


def read_rows(
    path: str | Path,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    needed: Collection[str] | None = None,
    json_lines: bool = False,
) -> pl.DataFrame:
    """The table of `read_source`: every row of `path` with `__file`, `__line`, `__fault` and
    `__text`."""
    return read_source(
        path, separator=separator, encoding=encoding, needed=needed, json_lines=json_lines
    ).table


def read_source(
    path: str | Path,
    *,
    separator: str | None = None,
    encoding: str | None = None,
    needed: Collection[str] | None = None,
    json_lines: bool = False,
) -> Rows:
    """Every row of `path`, files in order of name.

    Beside the source's columns there are `__file` (the path below the folder, without its ending),
    `__line`, `__fault` and `__text`. `__line` counts the records of a file from 1; the header of a
    CSV file is not counted, blank lines are counted and passed over. A record that cannot be read
    has null in every column of the source, the reason in `__fault` and what stands in the file in
    `__text`; these are null in all other rows.

    CSV columns are all text, so that one bad value costs one row; Parquet columns keep their types.
    Folders named `key=value` add a text column `key` to files that have none. An empty file is
    passed over in a folder.

    Args:
        path: a file, a folder, or a pattern of files such as "logs/2026-*.csv".
        separator: one ASCII character between the fields of CSV files; None: a comma, in .tsv files
            a tab.
        encoding: of CSV files; None: UTF-8.
        needed: source columns that all files must have if one has them; others may be absent, or of
            another type, in some. None: all files must have the same columns.
        json_lines: whether files with a JSON object per line are read too.

    Raises:
        ConfigError: nothing there, both CSV and Parquet, another kind of file, or a separator or
            encoding that cannot be.
        DataError: a file cannot be read or is empty, or files do not have the needed columns.
    """
    root, files = find_files(path)
    is_json = json_lines and all(file.suffix.lower() in JSON_LINES for file in files)
    is_csv = not is_json and _check_format(path, files)
    if is_csv:
        check_dialect(separator or ",", encoding or "utf-8")
    elif separator is not None or encoding is not None:
        option = "separator" if separator is not None else "encoding"
        kind = "JSON" if is_json else "Parquet"
        raise ConfigError(f"{option} is of CSV files, but {path} is {kind}; leave it out")
    notes: list[str] = []
    frames: dict[str, pl.DataFrame] = {}
    blank = 0
    for file in files:
        name = file.relative_to(root).as_posix()
        records = None
        if is_csv:
            records = read_delimited(file, separator or _separator_of(file), encoding or "utf-8")
        elif file.stat().st_size:
            records = read_json_lines(file) if is_json else read_columnar(file)
        if records is None:
            if len(files) == 1:
                raise DataError(
                    f"{file}: the file is empty, expected a header line or a Parquet file; write "
                    "it again, or name another"
                )
            notes.append(f"{name} is empty and was passed over")
            continue
        if doubled := sorted(records.doubled & set(needed or ())):
            raise DataError(
                f"{file}: column {doubled[0]!r} stands twice in the header; expected every name "
                "once, rename one of them"
            )
        blank += records.blank
        rows = _with_faults(_reserve_names(file, records.rows), records)
        frames[name] = _with_file(rows, file, root)
    if not frames:
        raise DataError(
            f"{path}: all {len(files):,} files are empty; expected at least one with rows or a "
            "header"
        )
    if blank:
        were = "line was" if blank == 1 else "lines were"
        notes.append(f"{blank:,} blank {were} passed over, but counted as lines")
    return Rows(_together(path, frames, needed), tuple(notes))


def find_files(path: str | Path) -> tuple[Path, list[Path]]:
    """The sorted files of a path or pattern, and the root folder that their names are relative to.

    What starts with "_" or "." in a folder is a writer's own (_SUCCESS, _delta_log, .crc), not
    data.

    Raises:
        ConfigError: there is none.
    """
    path = Path(path).expanduser()
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root = path
        matching = [
            file for file in path.rglob("*") if file.is_file() and _ending(file) in CSV + PARQUET
        ]
    else:
        fixed = next((at for at, part in enumerate(path.parts) if set("*?[") & set(part)), None)
        if fixed is None:
            raise ConfigError(f"{path}: no such file or folder")
        root = Path(*path.parts[:fixed])
        matching = [file for file in root.glob(str(Path(*path.parts[fixed:]))) if file.is_file()]
    files = sorted(
        file
        for file in matching
        if not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts)
    )
    if not files:
        raise ConfigError(
            f"{path}: no Parquet ({', '.join(PARQUET)}) or CSV ({', '.join(CSV)}) file found "
            f"there{_others(path)}"
        )
    return root, files


def described_files(folder: Path) -> list[Path]:
    """The sorted files of a folder with a JSON object per line, which may describe users or
    items."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file()
        and file.suffix.lower() in JSON_LINES
        and not file.name.startswith(("_", "."))
    )


def _others(path: Path) -> str:
    """Advice about files of a folder that are neither Parquet nor CSV."""
    if path.is_dir():
        endings = {file.suffix.lower() for file in path.rglob("*") if file.is_file()}
    else:
        endings = set()
    convertible = sorted(endings & CONVERSIONS.keys())
    return "".join(f"; {ending} files are there: {CONVERSIONS[ending]}" for ending in convertible)


def _check_format(path: str | Path, files: list[Path]) -> bool:
    """Whether the files are CSV; raises where they are neither CSV nor Parquet, or both."""
    endings = {_ending(file): file for file in files}
    if None in endings:
        readable = f"Parquet ({', '.join(PARQUET)}) nor CSV ({', '.join(CSV)})"
        to_do = CONVERSIONS.get(
            endings[None].suffix.lower(), "convert it, or name the files with a pattern"
        )
        raise ConfigError(f"{endings[None]}: neither {readable}; {to_do}")
    formats = {ending in PARQUET for ending in endings}
    if len(formats) > 1:
        raise ConfigError(
            f"{path}: holds CSV and Parquet files; read one kind, e.g. {Path(path) / '*.parquet'}"
        )
    return formats == {False}


def _ending(file: Path) -> str | None:
    return next(
        (ending for ending in (*CSV, *PARQUET, *PLAIN_TEXT) if file.name.lower().endswith(ending)),
        None,
    )


def _separator_of(file: Path) -> str:
    return "\t" if ".tsv" in (_ending(file) or "") else ","


def _reserve_names(file: Path, rows: pl.DataFrame) -> pl.DataFrame:
    """The rows, after a check that no column has a reserved name."""
    if taken := [name for name in rows.columns if name in ADDED]:
        raise DataError(
            f"{file}: it has a column {taken[0]!r}, a name that longplay needs itself; rename it"
        )
    return rows


def _with_faults(rows: pl.DataFrame, records: Records) -> pl.DataFrame:
    """Rows and faults merged in order of line, with columns for line, fault and text."""
    readable = rows.with_columns(
        records.lines.alias(LINE), pl.lit(None).alias(FAULT), pl.lit(None).alias(TEXT)
    )
    if records.faults.is_empty():
        return readable
    faults = records.faults.select(
        pl.col("line").alias(LINE), pl.col("reason").alias(FAULT), pl.col("text").alias(TEXT)
    )
    return pl.concat([readable, faults], how="diagonal_relaxed").sort(LINE)


def _with_file(rows: pl.DataFrame, file: Path, root: Path) -> pl.DataFrame:
    """The rows with the file's name and the values in its folders' names."""
    relative = file.relative_to(root)
    keys = dict(part.split("=", 1) for part in relative.parts[:-1] if "=" in part.strip("="))
    partitions = {
        key: unquote(value)
        for key, value in keys.items()
        if key not in rows.columns and key not in ADDED
    }
    columns = [
        pl.lit(None if value == DEFAULT_PARTITION else value, pl.String).alias(key)
        for key, value in partitions.items()
    ]
    name = relative.as_posix().removesuffix(file.name[len(file.name) - len(_ending(file) or "") :])
    return rows.with_columns(*columns, pl.lit(name).alias(FILE))


def _together(
    path: str | Path, frames: dict[str, pl.DataFrame], needed: Collection[str] | None
) -> pl.DataFrame:
    """The rows of all files, after a check that the needed columns are there."""
    columns = {name: file for file, frame in frames.items() for name in frame.columns}
    must = set(columns) if needed is None else set(needed) & set(columns)
    for file, frame in frames.items():
        if missing := sorted(must - set(frame.columns)):
            other = columns[missing[0]]
            raise DataError(
                f"{path}: {file} has no column {missing[0]!r}, {other} has one; they differ in "
                f"column {missing[0]!r}: "
                "expected it in every file, read the files apart"
            )
    loose = [
        name for name in columns if needed is not None and name not in must and name not in ADDED
    ]
    differing = [
        name
        for name in loose
        if len({frame.schema[name] for frame in frames.values() if name in frame.columns}) > 1
    ]
    alike = [
        frame.with_columns(_as_text(frame[name]) for name in differing if name in frame.columns)
        for frame in frames.values()
    ]
    try:
        return pl.concat(alike, how="diagonal_relaxed")
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise DataError(
            f"{path}: {_clash(frames, must) or error}; expected one type, read the files apart"
        ) from error


def _clash(frames: dict[str, pl.DataFrame], names: Collection[str]) -> str:
    """Text about a column with two incompatible types, and its files. Empty where there is none."""
    (first_file, first), *later_frames = frames.items()
    for name in sorted(names):
        for file, frame in later_frames:
            try:
                pl.concat(
                    [first.select(name).head(0), frame.select(name).head(0)], how="vertical_relaxed"
                )
            except pl.exceptions.PolarsError:
                return (
                    f"column {name!r} is {first.schema[name]} in {first_file} and "
                    f"{frame.schema[name]} in {file}"
                )
    return ""


def _as_text(values: pl.Series) -> pl.Series:
    """Values of any type as text."""
    try:
        return values.cast(pl.String)
    except pl.exceptions.PolarsError:
        texts = [
            None if value is None else json.dumps(value, default=str) for value in values.to_list()
        ]
        return pl.Series(values.name, texts, dtype=pl.String)
