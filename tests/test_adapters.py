"""Adapters: every row of a log becomes an event or is set aside with its line and reason."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from longplay.errors import ConfigError, DataError
from longplay.lake import Lake
from longplay.lake.adapters import Source, read_retail, read_rows, read_table

RETAIL = (
    Path(__file__).resolve().parents[2]
    / "shared"
    / "data"
    / "online_retail"
    / "online_retail.parquet"
)
COLUMNS = {"user_id": "who", "item_id": "what", "time": "ts"}
PLAY = {"kind": "play"}
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def write_csv(path: Path, header: str, *lines: str) -> Path:
    path.write_text("\n".join([header, *lines, ""]), encoding="utf-8")
    return path


def append(source: Source) -> Lake:
    lake = Lake.memory()
    lake.append(
        "b", events=source.events, items=source.items, rejected=source.rejected, max_bad_share=1.0
    )
    return lake


def read_ids(
    tmp_path: Path,
    users: Sequence[object] | pl.Series,
    dtype: pl.DataType | type[pl.DataType] | None = None,
) -> list[str]:
    frame = pl.DataFrame({"who": pl.Series(users, dtype=dtype), "what": "i", "ts": NOON})
    frame.write_parquet(tmp_path / "log.parquet")
    return read_table(tmp_path / "log.parquet", COLUMNS, constants=PLAY).events["user_id"].to_list()


def read_times(
    tmp_path: Path, times: Sequence[str], time_format: str | None = None, time_zone: str = "UTC"
) -> list[datetime | None]:
    path = write_csv(tmp_path / "log.csv", "who,what,ts", *(f'u,i,"{time}"' for time in times))
    events = read_table(
        path, COLUMNS, constants=PLAY, time_format=time_format, time_zone=time_zone
    ).events
    found = dict(events.select("line", "time").iter_rows())
    return [found.get(line) for line in range(1, len(times) + 1)]


# -- ids -----------------------------------------------------------------------------------------


def test_ids_survive_exactly_whatever_their_type(tmp_path: Path) -> None:
    big = 2**53 + 1
    assert read_ids(tmp_path, [big, -1]) == [str(big), "-1"]
    assert read_ids(tmp_path, [2**64 - 1], pl.UInt64) == [str(2**64 - 1)]
    assert read_ids(tmp_path, [12345.0, 2.5, None]) == ["12345", "2.5"]
    assert read_ids(tmp_path, ["007", "12345.0", "v1.0", "1.50"]) == [
        "007",
        "12345",
        "v1.0",
        "1.50",
    ]
    assert read_ids(tmp_path, ["b", "a"], pl.Categorical) == ["b", "a"]


def test_float_ids_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"column 'who': 9007199254740992 is a Float64.*store it as integers or text",
    ):
        read_ids(tmp_path, [float(2**53 + 1)])
    with pytest.raises(DataError, match="expected text or numbers"):
        read_ids(tmp_path, [["u"]])


@examples(50)
@given(users=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20))
def test_every_integer_id_is_the_same_from_csv_and_from_parquet(
    users: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    frame = pl.DataFrame({"who": pl.Series(users, dtype=pl.Int64), "what": "i", "ts": NOON})
    frame.write_parquet(folder / "log.parquet")
    frame.with_columns(pl.col("ts").dt.to_string("iso")).write_csv(folder / "log.csv")
    for name in ("log.parquet", "log.csv"):
        assert read_table(folder / name, COLUMNS, constants=PLAY).events["user_id"].to_list() == [
            str(user) for user in users
        ]


# -- times ---------------------------------------------------------------------------------------


def test_iso_times_of_every_common_form_are_read(tmp_path: Path) -> None:
    forms = [
        "2026-03-01T12:00:00Z",
        "2026-03-01 12:00",
        "2026-03-01T14:00:00.000+02:00",
        "2026-03-01 12:00:00.000000",
        "2026-03-01T12:00:00+0000",
    ]
    assert read_times(tmp_path, forms) == [NOON] * len(forms)
    assert read_times(tmp_path, ["2026-03-01", "soon"]) == [NOON.replace(hour=0), None]


def test_times_without_an_offset_are_of_the_given_zone(tmp_path: Path) -> None:
    # 2026-03-29 02:30 does not exist in Berlin, 2026-10-25 02:30 occurs twice
    local = [
        "2026-07-01 12:00",
        "2026-03-29 02:30",
        "2026-10-25 02:30",
        "2026-07-01T12:00Z",
        "2026-07-01T12:00:00Z",
    ]
    assert read_times(tmp_path, local, time_zone="Europe/Berlin") == [
        datetime(2026, 7, 1, 10, tzinfo=UTC),
        None,
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=UTC),
    ]


def test_a_time_format_or_an_epoch_unit_is_obeyed(tmp_path: Path) -> None:
    assert read_times(tmp_path, ["01/03/2026 12:00"], time_format="%d/%m/%Y %H:%M") == [NOON]
    seconds = int(NOON.timestamp())
    half = NOON.replace(microsecond=500_000)
    assert read_times(
        tmp_path, [f"{seconds}", f"{seconds}.5", "x", "1e300"], time_format="epoch_s"
    ) == [NOON, half, None, None]
    assert read_times(tmp_path, [f"{seconds * 1_000_000 + 1}"], time_format="epoch_us") == [
        NOON.replace(microsecond=1)
    ]
    pl.DataFrame({"who": "u", "what": "i", "ts": [seconds * 1000]}).write_parquet(
        tmp_path / "n.parquet"
    )
    assert read_table(
        tmp_path / "n.parquet", COLUMNS, constants=PLAY, time_format="epoch_ms"
    ).events["time"].to_list() == [NOON]
    with pytest.raises(ConfigError, match=r"'ts' holds numbers \(Int64\); say their unit"):
        read_table(tmp_path / "n.parquet", COLUMNS, constants=PLAY)


def test_typed_parquet_times_need_no_format(tmp_path: Path) -> None:
    for name, values in {
        "naive": pl.Series([NOON.replace(tzinfo=None)]),
        "ms": pl.Series([NOON]).dt.cast_time_unit("ms"),
        "zone": pl.Series([NOON]).dt.convert_time_zone("Asia/Tokyo"),
    }.items():
        pl.DataFrame({"who": "u", "what": "i", "ts": values}).write_parquet(
            tmp_path / f"{name}.parquet"
        )
        assert read_table(tmp_path / f"{name}.parquet", COLUMNS, constants=PLAY).events[
            "time"
        ].to_list() == [NOON]
    pl.DataFrame({"who": "u", "what": "i", "ts": [date(2026, 3, 1)]}).write_parquet(
        tmp_path / "day.parquet"
    )
    assert read_table(tmp_path / "day.parquet", COLUMNS, constants=PLAY).events[
        "time"
    ].to_list() == [NOON.replace(hour=0)]


def test_times_none_of_which_parse_are_a_mistake_in_the_mapping(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"time = 'ts': none of its 1 values is a time as ISO 8601, first '01/03/2026'; give time_format",
    ):
        read_times(tmp_path, ["01/03/2026"])
    with pytest.raises(ConfigError, match="time_zone='Berlin' given, expected a name such as"):
        read_times(tmp_path, ["2026-03-01"], time_zone="Berlin")


# -- rows that are no events ---------------------------------------------------------------------


def test_every_bad_row_is_set_aside_with_its_line_its_reason_and_all_it_held(
    tmp_path: Path,
) -> None:
    path = write_csv(
        tmp_path / "log.csv",
        "who,what,ts,secs,note",
        "u1,i1,2026-03-01T12:00:00Z,30,fine",
        "u1,i1,yesterday,30,bad time",
        "u1,i1,2026-03-01T12:00:00Z,half,bad seconds",
        ",i1,2026-03-01T12:00:00Z,,no user",
        "u2,i1,2026-03-01T12:00:00Z,,no seconds is fine",
        "u2,i1,2026-03-01T12:00:00Z,-1,negative",
        "u2,i1,2026-03-01T12:00:00Z,inf,infinite",
    )
    source = read_table(path, COLUMNS | {"seconds": "secs"}, constants=PLAY)
    assert source.rejected.select("line", "reason").rows() == [
        (2, "unparsable time"),
        (3, "unparsable seconds"),
        (4, "missing user"),
        (6, "negative seconds"),
        (7, "seconds not finite"),
    ]
    assert json.loads(source.rejected["row"][1]) == {
        "who": "u1",
        "what": "i1",
        "ts": "2026-03-01T12:00:00Z",
        "secs": "half",
        "note": "bad seconds",
        "__file": "log",
    }
    assert source.events.select("line", "event_id", "seconds").rows() == [
        (1, "log:1", 30.0),
        (5, "log:5", None),
    ]
    assert source.rows == source.events.height + source.rejected.height == 7
    lake = append(source)
    assert lake.events.height == 2
    assert lake.quarantine["line"].to_list() == [2, 3, 4, 6, 7]


def test_what_the_lake_itself_refuses_later_is_named_by_its_source_line(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv", "who,what,ts", ",i,2026-03-01", "u,i,2026-03-01", "u,i,2026-03-09"
    )
    source = read_table(path, COLUMNS, constants=PLAY)
    lake = Lake.memory()
    lake.append("b", events=source.events, rejected=source.rejected, now=NOON, max_bad_share=1.0)
    assert lake.quarantine.select("line", "reason").rows() == [
        (1, "missing user"),
        (3, "future time"),
    ]


def test_a_slot_must_be_a_whole_number_and_an_id_must_not_repeat(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv",
        "id,who,what,ts,pos",
        "a,u,i,2026-03-01,1.0",
        "b,u,i,2026-03-01,1.5",
        "a,u,i,2026-03-01,2",
    )
    source = read_table(path, COLUMNS | {"event_id": "id", "slot": "pos"}, constants=PLAY)
    assert source.events.select("event_id", "slot").rows() == [("a", 1)]
    assert source.rejected.select("line", "reason").rows() == [
        (2, "unparsable slot"),
        (3, "duplicate id"),
    ]


@examples(40)
@given(
    cells=st.lists(
        st.tuples(
            st.sampled_from(["u", "", "ü,\n"]),
            st.text(max_size=6),
            st.sampled_from(["1", "", "x", "nan"]),
        ),
        max_size=12,
    )
)
def test_no_row_is_lost_whatever_its_cells_hold(
    cells: list[tuple[str, str, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cells") / "log.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(["who", "what", "ts", "secs"])
        writer.writerow(["u", "i", "2026-03-01", "1"])
        for user, time, seconds in cells:
            writer.writerow(
                [user, "i", time.encode("utf-8", "ignore").decode().replace("\0", ""), seconds]
            )
    source = read_table(path, COLUMNS | {"seconds": "secs"}, constants=PLAY)
    assert source.rows == len(cells) + 1
    assert sorted([*source.events["line"], *source.rejected["line"]]) == list(
        range(1, len(cells) + 2)
    )


# -- the mapping ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "how", "message"),
    [
        (
            {"item_id": "wat"},
            {},
            r"columns: item_id = 'wat', but .*log.csv has no column 'wat' "
            r"\(did you mean 'what'\?\); it has who, what, ts",
        ),
        ({"item_id": "zzz"}, {}, "has no column 'zzz'; it has who, what, ts"),
        (
            {"usr_id": "who"},
            {},
            r"columns: 'usr_id' is no column of longplay \(did you mean 'user_id'\?\)",
        ),
        (
            {},
            {"constants": {}},
            "columns: 'kind' is not mapped.*constants = {'kind': 'play'}.*It has who, what, ts",
        ),
        (
            {},
            {"constants": {"kind": "plays"}},
            r"constants: kind = 'plays' is unknown \(did you mean 'play'\?\)",
        ),
        (
            {},
            {"constants": {"kind": "play", "item_id": "i"}},
            "constants: item_id = 'i', but columns maps item_id to 'what'",
        ),
        (
            {},
            {"constants": {"kind": "play", "user_id": "u"}},
            "constants: 'user_id' cannot be the same in every row",
        ),
        (
            {},
            {"kinds": {"stream": "listen"}},
            "kinds: stream = 'listen' is unknown.*; expected one of play",
        ),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused_with_what_there_is(
    tmp_path: Path, columns: dict, how: dict, message: str
) -> None:
    path = write_csv(tmp_path / "log.csv", "who,what,ts", "u,i,2026-03-01")
    with pytest.raises(ConfigError, match=message):
        read_table(path, COLUMNS | columns, **{"constants": PLAY, **how})


def test_source_kinds_are_translated_and_the_rest_stay(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv",
        "who,what,ts,act",
        "u,i,2026-03-01,stream",
        "u,i,2026-03-01,skip",
        "u,i,2026-03-01,dance",
    )
    source = read_table(path, COLUMNS | {"kind": "act"}, kinds={"stream": "play"})
    assert source.events["kind"].to_list() == ["play", "skip"]
    assert source.rejected.select("line", "reason").rows() == [(3, "unknown kind")]


def test_the_notes_say_what_the_log_does_not_hold(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv", "who,what,ts,src,seen,a,b", "u,i,2026-03-01,autoplay,2026-03-02,1,2"
    )
    bare = read_table(path, COLUMNS, constants=PLAY)
    assert not bare.has_origin
    assert not bare.has_decisions
    assert "no origin column: all events count as organic" in bare.notes
    assert "no arrival times: every event is taken as known when it happened" in bare.notes
    assert "columns not used: src, seen, a, b" in bare.notes
    assert bare.items is not None  # what has an id is an item, if nothing describes it
    full = read_table(
        path,
        COLUMNS | {"origin": "src", "ingested_at": "seen", "event_id": "a", "creator_id": "b"},
        constants=PLAY,
    )
    assert full.has_origin
    assert full.notes == (
        "no decisions with propensities in this log: no off-policy estimate can be made from it",
    )
    assert full.events["ingested_at"].to_list() == [datetime(2026, 3, 2, tzinfo=UTC)]
    assert str(full).startswith("1 rows: 1 events, 1 items, 0 rejected\n- no decisions")


def test_items_take_their_most_frequent_words_and_their_first_day(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "log.csv",
        "who,what,ts,by,name,about,genres",
        "u,i1,2026-03-03,c1,Blue,,jazz|cool",
        "u,i1,2026-03-02,c1,Blue Train,,",
        'u,i1,2026-03-05,c2,Blue Train,long,"jazz; cool"',
        "u,i2,2026-03-04,,,,",
        "u,,2026-03-01,,lost,,",
    )
    source = read_table(
        path,
        COLUMNS | {"creator_id": "by", "title": "name", "text": "about", "tags": "genres"},
        constants=PLAY,
    )
    assert source.items is not None
    assert source.items.select(
        "item_id", "creator_id", "title", "text", "tags", "available"
    ).rows() == [
        ("i1", "c1", "Blue Train", "long", ["jazz", "cool"], True),
        ("i2", None, None, None, None, True),
    ]
    assert source.items["added_at"].dt.day().to_list() == [2, 4]
    assert append(source).items.height == 2


def test_tags_that_are_lists_stay_lists(tmp_path: Path) -> None:
    pl.DataFrame(
        {"who": "u", "what": ["i", "j"], "ts": NOON, "genres": [["a b", "c,d|e"], None]}
    ).write_parquet(tmp_path / "log.parquet")
    source = read_table(tmp_path / "log.parquet", COLUMNS | {"tags": "genres"}, constants=PLAY)
    assert source.items is not None
    assert source.items["tags"].to_list() == [["a b", "c,d|e"], None]


def test_items_take_their_most_frequent_length_of_equals_the_shortest(tmp_path: Path) -> None:
    rows = [
        "u,i,2026-03-01,200",
        "u,i,2026-03-02,200.0",
        "u,i,2026-03-03,90",
        "u,j,2026-03-01,100",
        "u,j,2026-03-02,9.5",
        "u,k,2026-03-01,",
    ]
    source = read_table(
        write_csv(tmp_path / "log.csv", "who,what,ts,len", *rows),
        COLUMNS | {"length": "len"},
        constants=PLAY,
    )
    assert source.items is not None
    assert source.items.select("item_id", "length").rows() == [
        ("i", 200.0),
        ("j", 9.5),
        ("k", None),
    ]
    assert not any("length" in note for note in source.notes)
    assert append(source).items["length"].to_list() == [200.0, 9.5, None]


def test_a_length_that_is_no_duration_is_not_known_its_event_is_kept_and_a_note_counts_them(
    tmp_path: Path,
) -> None:
    wrong = ["0", "-3", "nan", "inf", "-inf", "1e400", "3:20", "x"]
    rows = [f"u,i{n},2026-03-01,{length}" for n, length in enumerate(wrong)] + [
        "u,i0,2026-03-02,20",
        "u,i1,2026-03-02,",
    ]
    source = read_table(
        write_csv(tmp_path / "log.csv", "who,what,ts,len", *rows),
        COLUMNS | {"length": "len"},
        constants=PLAY,
    )
    assert source.items is not None
    assert source.items["length"].to_list() == [20.0] + [None] * 7
    assert source.events.height == 10
    assert source.rejected.is_empty()
    assert (
        source.notes[-1]
        == "8 rows have a length that is no number of seconds above 0: taken as not known"
    )
    assert append(source).items["length"].null_count() == 7


@pytest.mark.parametrize("column", ["seconds", "length"])
def test_durations_are_seconds_and_what_is_no_number_at_all_is_refused(
    tmp_path: Path, column: str
) -> None:
    log, columns = tmp_path / "log.parquet", COLUMNS | {column: "took"}
    rows = pl.DataFrame(
        {
            "who": "u",
            "what": ["i", "j"],
            "ts": NOON,
            "took": [timedelta(minutes=3, milliseconds=500), None],
        }
    )
    rows.write_parquet(log)
    source = read_table(log, columns, constants=PLAY)
    told = (
        source.events["seconds"]
        if column == "seconds"
        else source.items["length"]
        if source.items is not None
        else None
    )
    assert told is not None
    assert told.to_list() == [180.5, None]
    for wrong in ([[1.0], [2.0]], [b"1", b"2"], [NOON, NOON]):
        rows.with_columns(took=pl.Series(wrong)).write_parquet(log)
        with pytest.raises(
            DataError, match=r"column 'took': .* given, expected numbers; convert it first"
        ):
            read_table(log, columns, constants=PLAY)


def test_lengths_come_in_any_type_of_number(tmp_path: Path) -> None:
    for values in ([200, 0], [200.0, float("nan")], ["200", None]):
        for dtype in (pl.Int16, pl.UInt64, pl.Float32) if isinstance(values[0], int) else (None,):
            pl.DataFrame(
                {"who": "u", "what": ["i", "j"], "ts": NOON, "len": pl.Series(values, dtype=dtype)}
            ).write_parquet(tmp_path / "log.parquet")
            items = read_table(
                tmp_path / "log.parquet", COLUMNS | {"length": "len"}, constants=PLAY
            ).items
            assert items is not None
            assert items["length"].to_list() == [200.0, None]


# -- files ---------------------------------------------------------------------------------------


def test_a_folder_or_a_pattern_is_one_log_and_lines_count_per_file(tmp_path: Path) -> None:
    for day in ("day=2", "day=1"):
        (tmp_path / day).mkdir()
        write_csv(tmp_path / day / "part.csv", "who,what,ts", "u,i,2026-03-01", ",i,2026-03-01")
    write_csv(tmp_path / "_draft.csv", "other", "1")
    folder = read_table(tmp_path, COLUMNS, constants=PLAY)
    assert folder.events["event_id"].to_list() == ["day=1/part:1", "day=2/part:1"]
    assert folder.rejected["line"].to_list() == [2, 2]
    assert [json.loads(row)["__file"] for row in folder.rejected["row"]] == [
        "day=1/part",
        "day=2/part",
    ]
    some = read_table(tmp_path / "day=*" / "*.csv", COLUMNS, constants=PLAY)
    assert some.events.equals(folder.events)


def test_columns_may_stand_in_another_order_and_only_mapped_ones_must_agree(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", "who,what,ts", "u,i,2026-03-01")
    write_csv(tmp_path / "b.csv", "ts,who,what", "2026-03-02,v,j")
    write_csv(tmp_path / "c.csv", "ts,who,what,more", "2026-03-02,w,j,1")
    source = read_table(tmp_path, COLUMNS, constants=PLAY)
    assert source.events["user_id"].to_list() == ["u", "v", "w"]
    assert "columns not used: more" in source.notes
    with pytest.raises(
        DataError, match=r"a.csv has no column 'more', c.csv has one; .* read the files apart"
    ):
        read_table(tmp_path, COLUMNS | {"title": "more"}, constants=PLAY)
    with pytest.raises(DataError, match=r"a.csv has no column 'more'"):
        read_rows(tmp_path)  # without a mapping, all columns must be there
    assert read_rows(tmp_path, needed=["who"])["more"].to_list() == [None, None, "1"]


def test_types_of_columns_that_are_not_mapped_may_differ(tmp_path: Path) -> None:
    rows = pl.DataFrame({"who": [7], "what": "i", "ts": NOON, "note": [1]})
    rows.write_parquet(tmp_path / "a.parquet")
    rows.with_columns(who=pl.lit("007"), note=pl.lit([["x"]])).write_parquet(tmp_path / "b.parquet")
    rows.with_columns(who=pl.lit(None, pl.Int64), note=pl.lit(None)).write_parquet(
        tmp_path / "c.parquet"
    )
    source = read_table(tmp_path, COLUMNS, constants=PLAY)
    assert source.events["user_id"].to_list() == ["7", "007"]
    assert source.rejected["reason"].to_list() == ["missing user"]
    rows.with_columns(pl.col("ts").dt.replace_time_zone(None)).write_parquet(tmp_path / "d.parquet")
    with pytest.raises(
        DataError,
        match=r"column 'ts' is Datetime\(.*\) in a.parquet and Datetime\(.*\) in d.parquet; expected one type",
    ):
        read_table(tmp_path, COLUMNS, constants=PLAY)


def test_files_that_cannot_be_read_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_table(tmp_path / "absent.csv", COLUMNS, constants=PLAY)
    with pytest.raises(ConfigError, match=r"no Parquet .* file found there"):
        read_table(tmp_path, COLUMNS, constants=PLAY)
    (tmp_path / "log.xlsx").write_text("x")
    with pytest.raises(ConfigError, match=r"log.xlsx: neither Parquet"):
        read_table(tmp_path / "log.xlsx", COLUMNS, constants=PLAY)
    (tmp_path / "bad.parquet").write_text("x")
    with pytest.raises(DataError, match=r"bad.parquet: cannot be read, expected a Parquet file"):
        read_table(tmp_path / "bad.parquet", COLUMNS, constants=PLAY)
    (tmp_path / "latin.csv").write_bytes("who,what,ts\nü,i,2026-03-01\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"latin.csv: cannot be read, expected UTF-8"):
        read_table(tmp_path / "latin.csv", COLUMNS, constants=PLAY)
    with pytest.raises(ConfigError, match="holds CSV and Parquet files"):
        read_table(tmp_path, COLUMNS, constants=PLAY)


def test_an_empty_log_is_no_events(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv", "who,what,ts,name")
    source = read_table(path, COLUMNS | {"title": "name"}, constants=PLAY)
    assert (source.rows, source.events.height, source.rejected.height) == (0, 0, 0)
    assert append(source).events.is_empty()


# -- Online Retail -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def retail() -> Source:
    if not RETAIL.exists():
        pytest.skip(
            f"the Online Retail log is not at {RETAIL}; it is public data that the repository "
            "does not hold"
        )
    return read_retail(RETAIL)


def test_the_clean_purchases_of_the_retail_log_are_the_published_ones(retail: Source) -> None:
    lake = Lake.memory()
    done = lake.append(
        "retail",
        events=retail.events,
        items=retail.items,
        rejected=retail.rejected,
        max_bad_share=0.25,
    )
    assert done.rejected == {"missing user": 135_080}
    bought = lake.events.filter(kind="purchase")
    assert (bought.height, bought["user_id"].n_unique(), bought["item_id"].n_unique()) == (
        397_924,
        4_339,
        3_665,
    )
    assert lake.events.filter(kind="refund").height == 8_905
    assert retail.rows == 541_909 == lake.events.height + lake.quarantine.height


def test_the_retail_log_is_refused_unless_its_anonymous_rows_are_expected(retail: Source) -> None:
    with pytest.raises(
        DataError, match=r"135,080 of 541,909 events are bad \(24.9%; 135,080 missing user\)"
    ):
        Lake.memory().append("retail", events=retail.events, rejected=retail.rejected)


def test_fees_are_bought_but_never_recommended(retail: Source) -> None:
    assert retail.items is not None
    fees = retail.items.filter(~pl.col("available"))
    assert fees["item_id"].to_list() == [
        "BANK CHARGES",
        "C2",
        "CRUK",
        "D",
        "DOT",
        "M",
        "PADS",
        "POST",
    ]
    assert retail.events.filter(pl.col("item_id") == "POST").height == 1_196
    assert (
        retail.items.filter(item_id="85123A")["title"].item()
        == "WHITE HANGING HEART T-LIGHT HOLDER"
    )


def test_the_retail_notes_hold_the_numbers(retail: Source) -> None:
    notes = "\n".join(retail.notes)
    for words in (
        "8,905 cancelled invoice lines",
        "135,080 rows have no customer",
        "8 stock codes are fees",
        "taken as UTC",
        "no creator column",
    ):
        assert words in notes


def test_a_small_shop_log_is_read_the_same_way(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "shop.csv",
        "invoice,item_id,item_title,quantity,ts,price,user_id,country",
        "1,A,LAMP,2,2011-01-01 09:00:00,1.5,17.0,UK",
        "C2,A,LAMP,-2,2011-01-02 09:00:00,1.5,17.0,UK",
        "3,gift_0001_20,VOUCHER,1,2011-01-02 09:00:00,20,18.0,UK",
        "4,A,LAMP,1,2011-01-02 09:00:00,1.5,,UK",
    )
    source = read_retail(path)
    assert source.events.select("event_id", "user_id", "kind", "session_id", "surface").rows() == [
        ("shop:1", "17", "purchase", "1", "shop"),
        ("shop:2", "17", "refund", "C2", "shop"),
        ("shop:3", "18", "purchase", "3", "shop"),
    ]
    assert source.rejected.select("line", "reason").rows() == [(4, "missing user")]
    assert "__kind" not in source.rejected["row"][0]
    assert source.items is not None
    assert source.items.select("item_id", "available").rows() == [
        ("A", True),
        ("gift_0001_20", False),
    ]
    with pytest.raises(ConfigError, match="no column 'quantity', expected the Online Retail log"):
        read_retail(write_csv(tmp_path / "other.csv", "invoice,user_id", "1,2"))
