"""Rows as they stand in a source: one file, a folder or a pattern of Parquet or CSV files, with file and line."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError

FILE, LINE, KIND = "__file", "__line", "__kind"  # beside the source's own columns; KIND is what an adapter judged a row to be
CSV, PARQUET = (".csv", ".csv.gz"), (".parquet", ".pq")


def read_rows(path: str | Path, *, separator: str | None = None, encoding: str | None = None) -> pl.DataFrame:
    """Every row of `path`, files in order of name, with `__file` (path below the folder, without its ending) and `__line`.

    `__line` is the row's number in its file, counted from 1; the header of a CSV file is not counted.
    CSV columns are all text, so that one bad value costs one row; Parquet columns keep their types.

    Raises:
        ConfigError: nothing there, both CSV and Parquet, or another kind of file.
        DataError: a file cannot be read, or files do not have the same columns.
    """
    root, files = _files(Path(path).expanduser())
    endings = {_ending(file): file for file in files}
    if None in endings:
        known = f"Parquet ({', '.join(PARQUET)}) nor CSV ({', '.join(CSV)})"
        raise ConfigError(f"{endings[None]}: neither {known}; convert it, or name the files with a pattern")
    formats = {ending in CSV for ending in endings}
    if len(formats) > 1:
        raise ConfigError(f"{path}: holds CSV and Parquet files; read one kind, e.g. {Path(path) / '*.parquet'}")
    line = pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(LINE)
    frames = [_read(file, _ending(file) in CSV, separator or ",", encoding or "utf8").with_columns(_name(file, root), line) for file in files]
    for file, frame in zip(files, frames, strict=True):
        if differing := set(frame.columns) ^ set(frames[0].columns):
            both = f"{files[0].name} and {file.name}"
            raise DataError(f"{path}: {both} differ in column {min(differing)!r}; expected equal columns, read the files apart")
    try:
        return pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: the files' columns differ in type: {error}; read the files apart") from error


def _files(path: Path) -> tuple[Path, list[Path]]:
    """The folder that names are told from, and the files in order."""
    if path.is_file():
        return path.parent, [path]
    if path.is_dir():
        root, found = path, [file for file in path.rglob("*") if file.is_file() and _ending(file)]
    else:
        fixed = next((at for at, part in enumerate(path.parts) if set("*?[") & set(part)), None)
        if fixed is None:
            raise ConfigError(f"{path}: no such file or folder")
        root = Path(*path.parts[:fixed])
        found = [file for file in root.glob(str(Path(*path.parts[fixed:]))) if file.is_file()]
    # what starts with "_" or "." is a writer's own (_SUCCESS, _delta_log, .crc), not data
    files = sorted(file for file in found if not any(part.startswith(("_", ".")) for part in file.relative_to(root).parts))
    if not files:
        raise ConfigError(f"{path}: no Parquet ({', '.join(PARQUET)}) or CSV ({', '.join(CSV)}) file found there")
    return root, files


def _ending(file: Path) -> str | None:
    return next((ending for ending in (*CSV, *PARQUET) if file.name.lower().endswith(ending)), None)


def _name(file: Path, root: Path) -> pl.Expr:
    relative = file.relative_to(root).as_posix()
    return pl.lit(relative[: -len(_ending(file) or "")]).alias(FILE)


def _read(file: Path, is_csv: bool, separator: str, encoding: str) -> pl.DataFrame:
    try:
        if is_csv:
            return pl.read_csv(file, infer_schema=False, glob=False, separator=separator, encoding=encoding)
        return pl.read_parquet(file, glob=False, hive_partitioning=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        hint = "expected UTF-8, comma-separated, one header line" if is_csv else "expected a Parquet file"
        raise DataError(f"{file}: cannot be read, {hint}: {str(error).splitlines()[0]}") from error
