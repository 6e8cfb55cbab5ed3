"""Odd files: a bad row costs itself, a bad file costs a sentence, and no file costs a traceback."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tracemalloc
import uuid
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.adapters import Source, delimited, read_table
from longplay.lake.glance import glance
from longplay.results import to_json

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
COLUMNS = {"user_id": "who", "item_id": "what", "time": "ts"}
HEADER = "who,what,ts\n"
GOOD = "u,i,2026-03-01\n"
NOON = datetime(2026, 3, 1, 12)
NOTHING = gzip.compress(b"", mtime=0)
CUT = gzip.compress((HEADER + GOOD).encode() * 9, mtime=0)[:-12]


def read(
    path: Path,
    content: str | bytes | pa.Table | None = None,
    columns: Mapping[str, str] = COLUMNS,
    **how: Any,
) -> Source:
    """The log at `path`, written first where there is content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    options: dict[str, Any] = {"constants": {"kind": "play"}} | how
    return read_table(path, columns, **options)


def good(source: Source) -> list[tuple[int, str, str]]:
    return source.events.select("line", "user_id", "item_id").rows()


def bad(source: Source) -> list[tuple[int, str]]:
    return source.rejected.select("line", "reason").rows()


def table(ts: pa.Array, **more: pa.Array) -> pa.Table:
    return pa.table({"who": ["u"] * len(ts), "what": ["i"] * len(ts), "ts": ts, **more})


# -- CSV: rows -----------------------------------------------------------------------------------


def test_a_row_with_too_many_or_too_few_fields_costs_itself(tmp_path: Path) -> None:
    source = read(
        tmp_path / "log.csv",
        HEADER + GOOD + "u,i\n" + "u,i,2026-03-01,x\n" + ",i,2026-03-01\n" + GOOD,
    )
    assert good(source) == [(1, "u", "i"), (5, "u", "i")]
    assert bad(source) == [(2, "too few fields"), (3, "too many fields"), (4, "missing user")]
    assert json.loads(source.rejected["row"][1]) == {"__text": "u,i,2026-03-01,x", "__file": "log"}
    assert (
        "3 rows are set aside: 1 missing user, 1 too few fields, 1 too many fields" in source.notes
    )
    assert source.rows == 5


def test_lines_are_records_also_after_line_breaks_in_quotes_and_blank_lines(tmp_path: Path) -> None:
    rows = [
        'u,"a\nb\r\nc",2026-03-01',
        "",
        ",i,2026-03-01",
        'u,"say ""x""",2026-03-01',
        "u,i",
        ",,",
        "",
    ]
    for name, ending in (("lf", "\n"), ("crlf", "\r\n"), ("cr", "\r")):
        source = read(tmp_path / f"{name}.csv", "who,what,ts" + ending + ending.join(rows) + ending)
        assert good(source) == [(1, "u", "a\nb\r\nc"), (4, "u", 'say "x"')], name
        assert bad(source) == [(3, "missing user"), (5, "too few fields"), (6, "missing user")], (
            name
        )
        assert "2 blank lines were passed over, but counted as lines" in source.notes
        assert source.rows == 5


CELL = st.text(st.sampled_from('ab",\n; é'), max_size=5)


@examples(60)
@given(
    rows=st.lists(st.lists(CELL, min_size=2, max_size=5), max_size=10),
    ending=st.sampled_from(("\n", "\r\n")),
)
def test_any_rows_that_a_writer_quotes_are_read_as_written(
    rows: list[list[str]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator=ending)
    writer.writerows(
        [
            ["who", "what", "ts"],
            *([*row[:2], "2026-03-01", *row[3:]] if len(row) != 2 else row for row in rows),
        ]
    )
    source = read(tmp_path_factory.mktemp("any") / "log.csv", file.getvalue())
    whole = [
        (line, row[0], row[1] or None)
        for line, row in enumerate(rows, start=1)
        if len(row) == 3 and row[0]
    ]
    assert good(source) == whole
    ragged = {
        line: "too few fields" if len(row) < 3 else "too many fields"
        for line, row in enumerate(rows, start=1)
        if len(row) != 3
    }
    anonymous = {
        line: "missing user"
        for line, row in enumerate(rows, start=1)
        if len(row) == 3 and not row[0]
    }
    assert dict(bad(source)) == ragged | anonymous


def test_a_quote_that_is_never_closed_costs_its_own_line_only(tmp_path: Path) -> None:
    to_the_end = read(tmp_path / "a.csv", HEADER + GOOD + 'u,"i,2026-03-01\n' + GOOD * 3)
    assert [line for line, _, _ in good(to_the_end)] == [1, 3, 4, 5]
    assert bad(to_the_end) == [(2, "quote never closed")]
    last_field = read(tmp_path / "b.csv", 'who,ts,what\nu,2026-03-01,"i\nu,2026-03-01,j\n')
    assert good(last_field) == [(2, "u", "j")]
    to_the_next = read(
        tmp_path / "c.csv",
        HEADER + 'u,"i,2026-03-01\n' + GOOD + 'v,"k",2026-03-01\n' + 'v,5" disc,2026-03-01\n',
    )
    assert good(to_the_next) == [(2, "u", "i"), (3, "v", "k"), (4, "v", '5" disc')]
    assert bad(to_the_next) == [(1, "quote never closed")]


def test_nul_bytes_and_other_encodings_cost_their_rows(tmp_path: Path) -> None:
    content = (
        (HEADER + GOOD * 40).encode()
        + b"u,i\0,2026-03-01\n"
        + b"\xfc,i,2026-03-01\n"
        + b"\xff,i\n"
        + b"\0" * 9
    )
    source = read(tmp_path / "log.csv", content)
    assert len(good(source)) == 40
    assert bad(source) == [
        (41, "NUL byte"),
        (42, "wrong encoding"),
        (43, "too few fields"),
        (44, "too few fields"),
    ]
    assert json.loads(source.rejected["row"][1])["__text"] == "\\xfc,i,2026-03-01"
    assert any(
        'give the encoding of the file, e.g. encoding = "windows-1252"' in note
        for note in source.notes
    )


def test_another_encoding_is_named_and_read(tmp_path: Path) -> None:
    content = HEADER + "ü,€,2026-03-01\n"
    for encoding in (
        "windows-1252",
        "utf-16",
        "utf-16-le",
        "utf-16-be",
        "iso-8859-15",
        "utf-8-sig",
    ):
        assert good(read(tmp_path / "log.csv", content.encode(encoding), encoding=encoding)) == [
            (1, "ü", "€")
        ], encoding
    assert good(read(tmp_path / "log.csv", content.encode("utf-8-sig"))) == [(1, "ü", "€")]
    with pytest.raises(
        DataError,
        match=r'expected UTF-8, .* first in line 1: \\xfc,.*; give its encoding, e.g. encoding = "windows-1252"',
    ):
        read(tmp_path / "log.csv", content.encode("windows-1252"))
    with pytest.raises(DataError, match=r'expected UTF-8, .* give encoding = "utf-16"'):
        read(tmp_path / "log.csv", content.encode("utf-16"))
    with pytest.raises(DataError, match='NUL bytes; if it is UTF-16, give encoding = "utf-16-le"'):
        read(tmp_path / "log.csv", content.encode("utf-16-le"))
    for unknown in ("utf-99", "base64", "idna"):
        with pytest.raises(
            ConfigError, match=f"encoding = '{unknown}' is unknown, expected one such as 'utf-8'"
        ):
            read(tmp_path / "log.csv", encoding=unknown)


# -- CSV: separators and headers -----------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t", "|", " ", ","])
def test_fields_stand_between_a_separator(tmp_path: Path, separator: str) -> None:
    content = HEADER.replace(",", separator) + f'u{separator}"a{separator}b"{separator}2026-03-01\n'
    assert good(read(tmp_path / "log.csv", content, separator=separator)) == [
        (1, "u", f"a{separator}b")
    ]


@pytest.mark.parametrize(
    ("content", "how", "message"),
    [
        (
            "who;what;ts\nu;i;2026-03-01\n",
            {},
            r'it has who;what;ts; they look separated by ";": give separator = ";"',
        ),
        ("who\twhat\tts\n", {}, r'they look separated by "\\t": give separator = "\\t"'),
        ("1::1193::5::978300760\n", {}, 'they look separated by "::": replace it by one character'),
        (
            "1::1193::5::978300760\n",
            {"separator": "::"},
            "separator = '::' given, expected one ASCII character",
        ),
        (HEADER, {"separator": "\\t"}, r'for a tab write "\\t" in double quotes'),
        (
            "196\t242\t3\t881250949\n",
            {"separator": "\t"},
            "they look like a row, not like names: put a header line in front",
        ),
        (
            " who  what  ts\n u  i  20260301\n",
            {"separator": " "},
            "between runs of spaces, expected one separator",
        ),
        (
            " who  what  ts\n u  i  20260301\n",
            {},
            'they look separated by spaces: give separator = " "',
        ),
        (
            "sep=;\nwho;what;ts\n",
            {"separator": ";"},
            "first line is 'sep=;', which spreadsheets write; remove it",
        ),
        ("who,what,ts,ts\n", {}, "column 'ts' stands twice in the header"),
        (
            "who,what,ts,__line\n",
            {},
            "it has a column '__line', a name that longplay needs itself; rename it",
        ),
    ],
)
def test_a_header_that_cannot_be_meant_is_refused_in_words(
    tmp_path: Path, content: str, how: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        read(tmp_path / "log.csv", content, **how)


def test_names_that_are_not_mapped_may_stand_twice_or_be_empty(tmp_path: Path) -> None:
    source = read(
        tmp_path / "log.csv", "who,what,ts,note,note,\nu,i,2026-03-01,x,y,z\n,i,2026-03-01,x,y,z\n"
    )
    assert "columns not used: note, note (column 5), column 6" in source.notes
    assert json.loads(source.rejected["row"][0])["note (column 5)"] == "y"


def test_tsv_files_are_separated_by_tabs_and_named_text_files_are_read(tmp_path: Path) -> None:
    assert good(read(tmp_path / "log.tsv", "who\twhat\tts\nu\ti\t2026-03-01\n")) == [(1, "u", "i")]
    assert good(read(tmp_path / "log.txt", HEADER + GOOD)) == [(1, "u", "i")]
    assert good(
        read(tmp_path / "log.tsv.gz", gzip.compress(b"who\twhat\tts\nu\ti\t2026-03-01\n", mtime=0))
    ) == [(1, "u", "i")]


# -- CSV: values ---------------------------------------------------------------------------------


def test_numbers_with_commas_are_refused_in_words(tmp_path: Path) -> None:
    columns = COLUMNS | {"seconds": "secs"}
    with pytest.raises(
        ConfigError,
        match="seconds = 'secs': none of its 2 values can be read, first '3,5'; expected numbers "
        "with a decimal point",
    ):
        read(
            tmp_path / "log.csv",
            "who;what;ts;secs\nu;i;2026-03-01;3,5\nu;i;2026-03-01;\nu;i;2026-03-01;1,0\n",
            columns,
            separator=";",
        )
    some = read(
        tmp_path / "log.csv",
        'who,what,ts,secs\nu,i,2026-03-01,"1,500"\nu,i,2026-03-01, 20 \n',
        columns,
    )
    assert bad(some) == [(1, "unparsable seconds")]
    assert some.events["seconds"].to_list() == [20.0]
    assert any("without separators of thousands" in note for note in some.notes)


@pytest.mark.parametrize(
    ("written", "suggestion"),
    [
        ("1772366400000", "epoch_ms"),
        ("1772366400", "epoch_s"),
        ("964982703", "epoch_s"),
        ("964982703000", "epoch_ms"),
        ("1772366400000000", "epoch_us"),
        ("1772366400000000000", "epoch_ns"),
        ("01/03/2026", "%d/%m/%Y"),
        ("01.03.2026 12:00:00", "%d.%m.%Y %H:%M:%S"),
        ("03/25/2026 01:30 PM", "%m/%d/%Y %I:%M %p"),
        ("20260301", "%Y%m%d"),
        ("2026/03/01 12:00", "%Y/%m/%d %H:%M"),
        ("1/3/26", "%d/%m/%y"),
        ("01/03/2026 12:00:00.250", "%d/%m/%Y %H:%M:%S%.f"),
    ],
)
def test_a_time_that_is_not_iso_is_answered_with_a_format_that_reads_it(
    tmp_path: Path, written: str, suggestion: str
) -> None:
    with pytest.raises(ConfigError, match=r"give time_format, e.g. time_format = ") as error:
        read(tmp_path / "log.csv", f"{HEADER}u,i,{written}\n")
    assert str(error.value).endswith(f'time_format = "{suggestion}"')
    assert read(tmp_path / "log.csv", time_format=suggestion).events.height == 1


def test_times_as_databases_write_them(tmp_path: Path) -> None:
    forms = [
        "2026-03-01 12:00:00 UTC",
        "2026-03-01 12:00:00.000000 UTC",
        "2026-03-01 17:30:00 +0530",
        "2026-03-01 12:00:00+00",
        '"2026-03-01 12:00:00,000"',
    ]
    source = read(tmp_path / "log.csv", HEADER + "".join(f"u,i,{form}\n" for form in forms))
    assert source.events["time"].to_list() == [NOON.replace(tzinfo=UTC)] * len(forms)
    python = read(
        tmp_path / "log.csv",
        f"{HEADER}u,i,2026-03-01 12:00:00.250\n",
        time_format="%Y-%m-%d %H:%M:%S.%f",
    )
    assert python.events["time"].to_list() == [NOON.replace(tzinfo=UTC, microsecond=250_000)]


# -- files ---------------------------------------------------------------------------------------


def test_an_empty_file_is_an_error_alone_and_passed_over_in_a_folder(tmp_path: Path) -> None:
    for name, content in {
        "a.csv": b"",
        "b.csv.gz": gzip.compress(b"", mtime=0),
        "c.parquet": b"",
        "d.csv": b"\n\n",
        "e.csv": b"\xef\xbb\xbf",
    }.items():
        with pytest.raises(DataError, match=f"{name}: the file is empty, expected a header line"):
            read(tmp_path / "alone" / name, content)
    for ending, content in {"csv": HEADER + GOOD, "parquet": table(pa.array([NOON]))}.items():
        folder = tmp_path / ending
        read(folder / f"a.{ending}", content)
        (folder / f"b.{ending}").touch()
        source = read(folder)
        assert source.rows == 1
        assert f"b.{ending} is empty and was passed over" in source.notes
        (folder / f"a.{ending}").write_bytes(b"")
        with pytest.raises(DataError, match="all 2 files are empty"):
            read(folder)


@pytest.mark.parametrize(
    ("name", "to_do"),
    [
        ("x.json", "read_json"),
        ("x.jsonl", "read_ndjson"),
        ("x.xlsx", "save the sheet as CSV"),
        ("x.zip", "unpack it"),
        ("x.csv.zst", "unpack it"),
        ("x.doc", "convert it"),
    ],
)
def test_other_kinds_of_files_are_answered_with_what_to_do(
    tmp_path: Path, name: str, to_do: str
) -> None:
    with pytest.raises(ConfigError, match=f"{name}: neither Parquet .*; .*{to_do}"):
        read(tmp_path / name, "[]")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cut.csv.gz", CUT),
        ("not.csv.gz", HEADER),
        ("picture.csv", b"\x89PNG\r\n\x1a\n\0\0\0"),
        ("bad.parquet", b"PAR1xxxxPAR1"),
    ],
)
def test_files_that_are_not_what_their_name_says_are_refused_in_words(
    tmp_path: Path, name: str, content: str | bytes
) -> None:
    with pytest.raises(DataError, match=f"{name}: cannot be read"):
        read(tmp_path / name, content)


def test_a_pattern_works_as_a_folder_does(tmp_path: Path) -> None:
    for name in ("2026-01", "2026-02", "2025-12"):
        read(tmp_path / "logs" / name / "part.csv", HEADER + GOOD)
    assert read(tmp_path / "logs" / "2026-*" / "*.csv").events["event_id"].to_list() == [
        "2026-01/part:1",
        "2026-02/part:1",
    ]
    assert (
        read_table(f"{tmp_path}/logs/202[5]-??/part.csv", COLUMNS, constants={"kind": "play"}).rows
        == 1
    )
    with pytest.raises(ConfigError, match=r"2024-\*.csv: no Parquet .* or CSV .* file found there"):
        read(tmp_path / "logs" / "2024-*.csv")
    with pytest.raises(ConfigError, match=r"separator is of CSV files, but .* is Parquet"):
        read(tmp_path / "log.parquet", table(pa.array([NOON])), separator=";")


def test_folders_named_by_key_and_value_say_what_they_hold(tmp_path: Path) -> None:
    part = pa.table({"who": [7], "what": ["i"]})
    read_columns = {"user_id": "who", "item_id": "what", "time": "day", "kind": "act"}
    for day, act in (
        ("2026-03-01", "play"),
        ("2026-03-02", "a%20b"),
        ("2026-03-03", "__HIVE_DEFAULT_PARTITION__"),
    ):
        folder = tmp_path / f"day={day}" / f"act={act}"
        folder.mkdir(parents=True)
        pq.write_table(part, folder / "part.parquet")
    source = read_table(tmp_path, read_columns, kinds={"a b": "save"})
    assert source.events.select("user_id", "kind", pl.col("time").dt.day().alias("day")).rows() == [
        ("7", "play", 1),
        ("7", "save", 2),
    ]
    assert source.rejected["reason"].to_list() == ["unknown kind"]


# -- Parquet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize(
    "zone", ["+05:30", "-03:30", "+02:00", "Asia/Kolkata", "Etc/GMT+3", "Mars/Base", None]
)
def test_parquet_times_of_every_unit_and_zone_are_utc(
    tmp_path: Path, zone: str | None, unit: str, capfd: pytest.CaptureFixture[str]
) -> None:
    moments = pa.array([NOON, None], pa.timestamp(unit, zone))
    source = read(
        tmp_path / "log.parquet",
        table(
            moments,
            note=moments,
            notes=pa.array([[NOON], None], pa.list_(pa.timestamp(unit, zone))),
        ),
    )
    assert source.events["time"].to_list() == [NOON.replace(tzinfo=UTC)]
    assert bad(source) == [(2, "unparsable time")]
    assert "panicked" not in capfd.readouterr().err


def test_parquet_times_that_no_calendar_has_are_no_times(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    noon = int(NOON.replace(tzinfo=UTC).timestamp())
    for unit, factor in (("ms", 1_000), ("us", 1_000_000)):
        counts = pa.array([2**62, -(2**63) + 1, 2**63 - 1, noon * factor], pa.int64())
        source = read(tmp_path / "log.parquet", table(counts.cast(pa.timestamp(unit))))
        assert source.events["time"].to_list() == [NOON.replace(tzinfo=UTC)]
        assert bad(source) == [(line, "unparsable time") for line in (1, 2, 3)]
    days = pa.array(
        [2**31 - 1, -(2**31), (date(2026, 3, 1) - date(1970, 1, 1)).days], pa.int32()
    ).cast(pa.date32())
    assert read(tmp_path / "log.parquet", table(days)).events["time"].dt.day().to_list() == [1]
    assert "panicked" not in capfd.readouterr().err


ODD = {
    "binary": pa.array([b"\xff"], pa.binary()),
    "fixed": pa.array([b"abcd"], pa.binary(4)),
    "decimal": pa.array([Decimal("3.50")]),
    "decimal256": pa.array([Decimal("3.50")], pa.decimal256(60, 2)),
    "dictionary": pa.array(["3"]).dictionary_encode(),
    "large": pa.array(["3"], pa.large_string()),
    "half": pa.array([3.5], pa.float16()),
    "duration": pa.array([timedelta(seconds=3)], pa.duration("ns")),
    "clock": pa.array([time(3)], pa.time64("ns")),
    "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "pair": pa.array([[1, 2]], pa.list_(pa.int64(), 2)),
    "null": pa.array([None], pa.null()),
    "zoned list": pa.array([[NOON]], pa.list_(pa.timestamp("us", "+05:30"))),
    "bytes list": pa.array([[b"a"]]),
    "struct": pa.array([{"a": b"x", "b": 1}]),
    "words": pa.array([["a", "b"]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    "truth": pa.array([True]),
    "uuid": pa.array([uuid.UUID(int=5).bytes], pa.uuid()),
    "json": pa.array(["{}"], pa.json_()),
    "nan": pa.array([float("nan")]),
    "u64": pa.array([2**64 - 1], pa.uint64()),
    "moment": pa.array([NOON]),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    "column",
    ["user_id", "time", "ingested_at", "kind", "seconds", "slot", "title", "tags", "length"],
)
def test_every_column_of_every_type_is_read_or_refused_in_words(
    tmp_path: Path, column: str, odd: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content = pa.table({"who": ["u"], "what": ["i"], "ts": [NOON], "odd": ODD[odd]})
    constants = {} if column == "kind" else {"kind": "play"}
    try:
        source = read(
            tmp_path / "log.parquet", content, COLUMNS | {column: "odd"}, constants=constants
        )
    except (ConfigError, DataError) as error:
        said, rows = str(error), 1
    else:
        said, rows = "expected", source.events.height + source.rejected.height
    assert any(words in said for words in ("expected", "say their unit", "give time_format"))
    assert rows == 1
    assert "panicked" not in capfd.readouterr().err


@pytest.mark.parametrize(
    "odd", ["map", "pair", "zoned list", "bytes list", "struct", "binary", "duration"]
)
def test_what_has_no_one_text_is_no_id(tmp_path: Path, odd: str) -> None:
    with pytest.raises(DataError, match=r"given.*, expected text or numbers; convert it first"):
        read(
            tmp_path / "log.parquet",
            pa.table({"odd": ODD[odd], "what": ["i"], "ts": [NOON]}),
            COLUMNS | {"user_id": "odd"},
        )


def test_ids_and_amounts_of_odd_types_are_exact(tmp_path: Path) -> None:
    content = pa.table(
        {"who": ODD["uuid"], "what": ODD["dictionary"], "ts": [NOON], "secs": ODD["decimal"]}
    )
    events = read(tmp_path / "log.parquet", content, COLUMNS | {"seconds": "secs"}).events
    assert events.select("user_id", "item_id", "seconds").rows() == [
        ("00000000-0000-0000-0000-000000000005", "3", 3.5)
    ]


def test_a_row_of_odd_columns_goes_to_quarantine_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    content = pa.table({"who": pa.array([None], pa.string()), "what": ["i"], "ts": [NOON], **ODD})
    row = json.loads(read(tmp_path / "log.parquet", content).rejected["row"].item())
    assert (row["binary"], row["decimal256"], row["uuid"], row["words"]) == (
        "ff",
        "3.50",
        str(uuid.UUID(int=5)),
        ["a", "b"],
    )
    assert "2026-03-01 17:30:00+05:30" in row["zoned list"]["json"]
    assert "panicked" not in capfd.readouterr().err


def test_old_parquet_times_and_numbers_as_dates_are_read(tmp_path: Path) -> None:
    pq.write_table(
        table(pa.array([NOON, datetime(9998, 1, 1)], pa.timestamp("us"))),
        tmp_path / "old.parquet",
        use_deprecated_int96_timestamps=True,
    )
    assert read(tmp_path / "old.parquet").events["time"][0] == NOON.replace(tzinfo=UTC)
    for digits in (pa.array([20260301]), pa.array([20260301.0])):
        assert read(tmp_path / "log.parquet", table(digits), time_format="%Y%m%d").events[
            "time"
        ].dt.day().to_list() == [1]
    nanoseconds = read(
        tmp_path / "log.parquet",
        table(pa.array([1_772_366_400_000_000_000])),
        time_format="epoch_ns",
    )
    assert nanoseconds.events["time"].to_list() == [NOON.replace(tzinfo=UTC)]


# -- what a log says -----------------------------------------------------------------------------


def test_a_log_of_user_item_and_time_alone_makes_a_catalogue(tmp_path: Path) -> None:
    source = read(
        tmp_path / "log.csv",
        HEADER + "u,b,2026-03-02\nu,a,2026-03-03\nv,b,2026-03-01\nv,,2026-03-01\n",
    )
    assert source.items is not None
    assert source.items.select(
        "item_id", pl.col("added_at").dt.day().alias("day"), "available"
    ).rows() == [("a", 3, True), ("b", 1, True)]
    lake = Lake.memory()
    lake.append("b", events=source.events, items=source.items)
    assert glance(lake).items == 2
    without = read_table(
        tmp_path / "log.csv", {"user_id": "who", "time": "ts"}, constants={"kind": "visit"}
    )
    assert without.items is None


def test_origins_are_translated_as_kinds_are(tmp_path: Path) -> None:
    content = "who,what,ts,src\n" + "".join(
        f"u,i,2026-03-01,{origin}\n" for origin in ("search", "home", "autoplay", "", "elsewhere")
    )
    source = read(
        tmp_path / "log.csv",
        content,
        COLUMNS | {"origin": "src"},
        origins={"search": "organic", "home": "recommended"},
    )
    assert source.events["origin"].to_list() == ["organic", "recommended", "autoplay"]
    assert bad(source) == [(4, "unknown origin"), (5, "unknown origin")]
    assert source.has_origin
    assert read(
        tmp_path / "log.csv", constants={"kind": "play", "origin": "recommended"}
    ).has_origin
    assert not read(tmp_path / "log.csv").has_origin
    with pytest.raises(
        ConfigError,
        match=r"origins: search = 'organik' is unknown \(did you mean 'organic'\?\); expected one of organic",
    ):
        read(
            tmp_path / "log.csv", columns=COLUMNS | {"origin": "src"}, origins={"search": "organik"}
        )
    with pytest.raises(
        ConfigError, match="origins: 'search' is translated, but columns maps no 'origin'"
    ):
        read(tmp_path / "log.csv", origins={"search": "organic"})
    with pytest.raises(
        ConfigError, match="kinds: 'stream' is translated, but columns maps no 'kind'"
    ):
        read(tmp_path / "log.csv", kinds={"stream": "play"})


# -- small, lopsided, outside --------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    ["", GOOD, GOOD * 3, ",i,2026-03-01\n" * 3, "u,i\n" * 3, ",,\n" * 3, "u,i,\n" * 3, "\n\n"],
)
def test_small_logs_are_read_and_looked_at(tmp_path: Path, rows: str) -> None:
    source = read(tmp_path / "log.csv", HEADER + rows)
    lake = Lake.memory()
    lake.append(
        "b",
        events=source.events,
        items=source.items,
        rejected=source.rejected,
        max_bad_share=1.0,
        watermark=datetime(2026, 4, 1, tzinfo=UTC),
    )
    figures = glance(lake)
    assert figures.events + figures.quarantined == source.rows
    assert (
        "no row is an event: there is nothing to learn from" in source.notes
    ) == source.events.is_empty()
    json.dumps(to_json(figures))


def test_one_user_with_all_events_costs_memory_in_proportion(tmp_path: Path) -> None:
    peaks = []
    for count in (25_000, 100_000):
        minutes = pl.datetime_range(NOON, NOON + timedelta(minutes=count - 1), "1m", eager=True)
        pl.DataFrame({"who": "u", "what": "i", "ts": minutes}).write_csv(tmp_path / "log.csv")
        tracemalloc.start()
        source = read(tmp_path / "log.csv")
        lake = Lake.memory()
        lake.append("b", events=source.events, items=source.items)
        figures = glance(lake)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert (figures.events, figures.users, figures.items) == (count, 1, 1)
    assert peaks[1] < 6 * peaks[0]


@pytest.mark.skipif(not DATA.exists(), reason=f"the public logs are not in {DATA}")
def test_public_files_are_read_or_answered_in_words() -> None:
    journey = {
        "user_id": "household_id",
        "item_id": "product_id",
        "time": "transaction_timestamp",
        "session_id": "basket_id",
    }
    source = read_table(
        DATA / "complete_journey/transactions_sample.parquet",
        journey,
        constants={"kind": "purchase"},
    )
    assert (source.events.height, source.rejected.height) == (75_000, 0)
    with pytest.raises(DataError, match=r"campaign_descriptions.parquet has no column 'basket_id'"):
        read_table(DATA / "complete_journey", journey, constants={"kind": "purchase"})
    purchases = {"user_id": "customer_id", "time": "date"}
    with pytest.raises(DataError, match="between runs of spaces, expected one separator"):
        read_table(
            DATA / "cdnow/CDNOW_master.txt",
            purchases,
            constants={"kind": "purchase"},
            separator=" ",
        )
    with pytest.raises(ConfigError, match="they look separated by spaces"):
        read_table(DATA / "cdnow/CDNOW_master.txt", purchases, constants={"kind": "purchase"})
    with pytest.raises(ConfigError, match=r"they look separated by spaces|they look like a row"):
        read_table(DATA / "amazon_beauty/Beauty.txt", COLUMNS, constants={"kind": "like"})
    with pytest.raises(ConfigError, match="read_json"):
        read_table(
            DATA / "amazon_beauty/Beauty_item2attributes.json", COLUMNS, constants={"kind": "like"}
        )


def test_a_user_called_null_is_named(tmp_path: Path) -> None:
    source = read(
        tmp_path / "log.csv",
        HEADER + GOOD + "NULL,i,2026-03-01\n" * 2 + "nan,i,2026-03-01\nnancy,i,2026-03-01\n",
    )
    named = [note for note in source.notes if note.startswith("user ")]
    assert [note.split(":")[0] for note in named] == [
        "user 'NULL' has 2 events",
        "user 'nan' has 1 events",
    ]
    assert source.events.height == 5


def test_an_empty_value_can_be_translated(tmp_path: Path) -> None:
    content = "who,what,ts,act\nu,i,2026-03-01,\nu,i,2026-03-01,true\nu\n"
    source = read(
        tmp_path / "log.csv",
        content,
        COLUMNS | {"kind": "act"},
        constants={},
        kinds={"": "play", "true": "skip"},
    )
    assert source.events["kind"].to_list() == ["play", "skip"]
    assert bad(source) == [(3, "too few fields")]


def test_long_fields_are_read_and_one_beyond_all_bounds_costs_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = HEADER + f'u,"{"x" * 200_000}",2026-03-01\n'
    assert len(read(tmp_path / "log.csv", content).events["item_id"][0]) == 200_000
    content += 'u,"a\nb",2026-03-01\n'
    assert len(read(tmp_path / "log.csv", content).events["item_id"][0]) == 200_000
    monkeypatch.setattr(delimited, "MOST_CHARACTERS", 1_000)
    source = read(tmp_path / "log.csv", content)
    assert good(source) == [(2, "u", "a\nb")]
    assert bad(source) == [(1, "field too long")]
    assert csv.field_size_limit() == 131_072


def test_a_folder_of_other_files_is_answered_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "Streaming_History_Audio_2024.json").write_text("[]")
    with pytest.raises(
        ConfigError,
        match=r"no Parquet .* found there; .json files are there: read it with polars.read_json",
    ):
        read(tmp_path)
    with pytest.raises(ConfigError, match="they look like a row, not like names"):
        read(
            tmp_path / "lastfm.tsv",
            "user_000001\t2009-05-04T23:08:57Z\tartist\tname\ttrack\ttitle\n",
        )


def test_parquet_text_that_is_not_utf8_costs_its_row(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    offsets = pa.py_buffer(b"".join(place.to_bytes(4, "little") for place in (0, 3, 5, 5)))
    damaged = pa.StringArray.from_buffers(
        3, offsets, pa.py_buffer(b"u\xff\xfeab")
    )  # "u" and two bytes of no character, "ab", ""
    content = pa.table({"who": damaged, "what": ["i", "j", "k"], "ts": [NOON] * 3})
    source = read(tmp_path / "log.parquet", content)
    assert good(source) == [(2, "ab", "j")]
    assert bad(source) == [(1, "wrong encoding"), (3, "missing user")]
    assert json.loads(source.rejected["row"][0])["__text"].startswith(
        "who: u\\xff\\xfe, what: i, ts: 2026-03-01"
    )
    nested = pa.table(
        {
            "who": ["u"],
            "what": ["i"],
            "ts": [NOON],
            "words": pa.ListArray.from_arrays([0, 3], damaged),
        }
    )
    with pytest.raises(DataError, match=r"cannot be read, expected a Parquet file: .*Invalid UTF8"):
        read(tmp_path / "log.parquet", nested)
    assert "panicked" not in capfd.readouterr().err


def test_a_header_with_a_quote_that_is_never_closed_is_refused_in_words(tmp_path: Path) -> None:
    for rows in (100, 100_000):
        with pytest.raises(DataError, match=r"log.csv: cannot be read") as error:
            read(tmp_path / "log.csv", 'who,"what,ts\n' + GOOD * rows)
        assert len(str(error.value)) < 400


def test_a_bound_without_a_time_zone_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="earliest = 1980-01-01T00:00:00 has no time zone; give UTC"
    ):
        read(tmp_path / "log.csv", HEADER + GOOD, earliest=datetime(1980, 1, 1))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_columns_of_any_name_are_columns(tmp_path: Path, ending: str) -> None:
    names = [
        "line",
        "reason",
        "text",
        "row",
        "at",
        "event_id",
        "time",
        "item_id",
        "len",
        "literal",
        "0",
        "1",
        "a b",
        "ä",
        "",
        "who.x",
    ]
    rows = pl.DataFrame(
        {
            "who": ["u", None],
            "what": "i",
            "ts": "2026-03-01",
            **{name: name for name in names if name or ending == "csv"},
        }
    )
    if ending == "csv":
        rows.write_csv(tmp_path / "log.csv")
    else:
        rows.write_parquet(tmp_path / "log.parquet")
    source = read(
        tmp_path / f"log.{ending}",
        columns={**COLUMNS, "title": "line", "text": "at", "creator_id": "time"},
    )
    assert good(source) == [(1, "u", "i")]
    assert bad(source) == [(2, "missing user")]
    assert json.loads(source.rejected["row"][0])["reason"] == "reason"
    assert source.items is not None
    assert source.items.select("title", "text", "creator_id").rows() == [("line", "at", "time")]


def test_truth_values_are_words_of_a_vocabulary(tmp_path: Path) -> None:
    content = table(pa.array([NOON] * 3), skipped=pa.array([True, False, None]))
    kinds = {"true": "skip", "false": "play", "": "play"}
    source = read(
        tmp_path / "log.parquet", content, COLUMNS | {"kind": "skipped"}, constants={}, kinds=kinds
    )
    assert source.events["kind"].to_list() == ["skip", "play", "play"]
