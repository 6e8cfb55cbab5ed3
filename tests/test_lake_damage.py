"""A lake keeps what it acknowledged: foreign folders, damage, other programs, lost power."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from test_lake import at, plays, tables

from longplay.errors import DataError, LongplayError
from longplay.lake import Lake
from longplay.lake.repair import check, repair

BATCHES = ["b0", "b1", "b2", "b3"]


def small_lake(folder: Path) -> Lake:
    """Four batches that write every table, copied from the one lake of this module."""
    shutil.copytree(small_lake_to_copy(), folder, dirs_exist_ok=True)
    return Lake.open(folder)


@cache
def small_lake_to_copy() -> Path:
    folder = Path(tempfile.mkdtemp()) / "lake"
    lake = Lake.open(folder)
    for minute, name in enumerate(BATCHES):
        lake.append(name, **tables(name, minute))
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# -- folders that are not a lake -----------------------------------------------------------------


def delta_tables(folder: Path) -> None:
    for name in ("events", "items"):
        write_deltalake(str(folder / name), pl.DataFrame({"a": [1, 2]}).to_arrow())


def delta_tables_of_other_names(folder: Path) -> None:
    write_deltalake(str(folder / "orders"), pl.DataFrame({"a": [1]}).to_arrow())


def lake_without_commits(folder: Path) -> None:
    small_lake(folder)
    shutil.rmtree(folder / "commits")


def plain_files(folder: Path) -> None:
    (folder / "events").mkdir(parents=True)
    (folder / "events" / "2026-03-01.csv").write_text("user,item\nu,i\n")


def a_file_named_as_a_table(folder: Path) -> None:
    folder.mkdir()
    (folder / "decisions").write_text("we decided nothing")


def another_programs_commits(folder: Path) -> None:
    write_deltalake(
        str(folder / "commits"), pl.DataFrame({"sha": ["a"], "author": ["b"]}).to_arrow()
    )


def a_repository_with_commits(folder: Path) -> None:
    (folder / "commits").mkdir(parents=True)
    (folder / "commits" / "0001.patch").write_text("diff")


FOREIGN = [
    delta_tables,
    delta_tables_of_other_names,
    lake_without_commits,
    plain_files,
    a_file_named_as_a_table,
    another_programs_commits,
    a_repository_with_commits,
]


@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
def test_a_folder_with_somebodys_tables_is_refused_and_not_touched(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    folder = tmp_path / "theirs"
    make(folder)
    before = contents(folder)
    with pytest.raises(DataError, match="lake: "):
        Lake.open(folder).append("b", **tables("b"))
    with pytest.raises(DataError, match="lake: "):
        _ = Lake.open(folder).events
    with pytest.raises(DataError, match="lake: "):
        repair(folder)
    assert contents(folder) == before


def test_a_table_that_no_commit_names_is_not_overwritten(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("b", events=plays(1))
    write_deltalake(str(tmp_path / "lake" / "decisions"), pl.DataFrame({"a": [1]}).to_arrow())
    before = contents(tmp_path / "lake")
    with pytest.raises(DataError, match=r"another program changed .*decisions"):
        lake.append("c", **tables("c"))
    repair(tmp_path / "lake")
    assert contents(tmp_path / "lake") == before


# -- the same id, other content ------------------------------------------------------------------


def test_a_batch_id_with_other_content_is_refused(tmp_path: Path) -> None:
    for lake in (Lake.memory(), Lake.open(tmp_path / "lake")):
        lake.append("b", events=plays(1), watermark=at(9))
        chunked = pl.concat([plays(1).head(0), plays(1)], rechunk=False)
        assert lake.append("b", events=chunked, watermark=at(9)).already
        later = plays(1).with_columns(ingested_at=pl.lit(at(5)))
        assert lake.append("b", events=later, watermark=at(9)).already  # a retry arrives later
        for events, watermark in (
            (plays(2), at(9)),
            (plays(1, 2), at(9)),
            (plays(1, kind="skip"), at(9)),
            (plays(1), at(8)),
        ):
            with pytest.raises(DataError, match="batch b: already in the lake with other content"):
                lake.append("b", events=events, watermark=watermark)
        assert lake.events.height == 1


# -- other programs ------------------------------------------------------------------------------


def test_rows_that_another_program_deleted_stay_deleted(tmp_path: Path) -> None:
    lake = Lake.open(tmp_path / "lake")
    two = plays(1, 2).with_columns(user_id=pl.Series(["u1", "u2"]))
    lake.append("b", events=two)
    lake.append("c", events=plays(3, name="f"))
    DeltaTable(str(tmp_path / "lake" / "events")).delete("user_id = 'u2'")
    for one in (lake, Lake.open(tmp_path / "lake")):
        assert one.events["event_id"].to_list() == ["e0", "f0"]
        with one.connect() as con:
            assert con.sql("select count(*) from events").fetchall() == [(2,)]
    lake.append("d", events=plays(4, name="g"))
    for one in (lake, Lake.open(tmp_path / "lake")):
        assert one.events["event_id"].to_list() == ["e0", "f0", "g0"]
    assert pl.read_delta(str(tmp_path / "lake" / "events")).height == 3
    assert not check(tmp_path / "lake").damages


def test_merged_and_vacuumed_files_are_taken_over(tmp_path: Path) -> None:
    lake = small_lake(tmp_path / "lake")
    before = {table: getattr(lake, table) for table in ("events", "decisions", "contexts", "items")}
    for table in before:
        delta = DeltaTable(str(tmp_path / "lake" / table))
        delta.optimize.compact()
        delta.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
        assert len(list((tmp_path / "lake" / table).glob("*.parquet"))) == 1
    for one in (lake, Lake.open(tmp_path / "lake")):
        for table, frame in before.items():
            assert getattr(one, table).equals(frame)
    assert not check(tmp_path / "lake").damages
    lake.append("next", **tables("next", 9))
    assert (
        lake.events.height
        == Lake.open(tmp_path / "lake").events.height
        == before["events"].height + 3
    )
    assert not check(tmp_path / "lake").damages
    assert not repair(tmp_path / "lake").lost_batches


@pytest.mark.parametrize("how", ["append", "overwrite"])
def test_rows_that_another_program_wrote_are_refused_until_repair_leaves_them_out(
    tmp_path: Path, how: str
) -> None:
    lake = Lake.open(tmp_path / "lake")
    lake.append("b", events=plays(1))
    theirs = lake.events.with_columns(event_id=pl.lit("theirs"))
    write_deltalake(str(tmp_path / "lake" / "events"), theirs.to_arrow(), mode=how)  # pyright: ignore[reportArgumentType]
    for use in (
        lambda: lake.events,
        lambda: Lake.open(tmp_path / "lake").append("c", events=plays(2, name="f")),
    ):
        with pytest.raises(DataError, match=r"another program changed .*events.*version 1, WRITE"):
            use()
    assert (
        pl.read_delta(str(tmp_path / "lake" / "events"))["event_id"].to_list().count("theirs") == 1
    )  # nothing was undone
    (damage,) = check(tmp_path / "lake").damages
    assert "another program's change (WRITE)" in damage.problem
    assert repair(tmp_path / "lake").undone == ("events: WRITE (version 1)",)
    lake.append("c", events=plays(2, name="f"))
    assert Lake.open(tmp_path / "lake").events["event_id"].to_list() == ["e0", "f0"]


# -- damage --------------------------------------------------------------------------------------


def emptied(file: Path) -> None:
    file.write_bytes(b"")


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


def deleted(file: Path) -> None:
    file.unlink()


def replaced_by_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE = [emptied, halved, flipped, deleted, replaced_by_a_folder]
FILES = {
    "first data file": "first events/*.parquet",
    "last data file": "last events/*.parquet",
    "last decisions": "last decisions/*.parquet",
    "last items": "last items/*.parquet",
    "first Delta log": "first events/_delta_log/*.json",
    "last Delta log": "last events/_delta_log/*.json",
    "last Delta log of items": "last items/_delta_log/*.json",
    "log of commits": "first commits/log.jsonl",
    "copy of the log": "first commits/copy.jsonl",
}


def chosen(lake: Path, pattern: str) -> Path:
    """A file of the lake: the first or the last that was written of a pattern."""
    which, _, glob = pattern.partition(" ")
    files = sorted(lake.glob(glob), key=lambda file: (file.stat().st_mtime_ns, file.name))
    return files[0 if which == "first" else -1]


def or_words(action: Callable[[], Any]) -> Any:
    """What `action` returns; null where it says in words that the lake is damaged."""
    try:
        return action()
    except LongplayError as error:
        if "longplay lake check" not in str(error):
            raise
        return None


@pytest.mark.parametrize("harm", DAMAGE, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("which", FILES)
def test_damage_is_named_and_repaired(
    tmp_path: Path, which: str, harm: Callable[[Path], None]
) -> None:
    folder = tmp_path / "lake"
    small_lake(folder)
    whole = {table: getattr(Lake.open(folder), table) for table in ("events", "decisions", "items")}
    assert not check(folder).damages
    file = chosen(folder, FILES[which])
    harm(file)
    named = [damage.path for damage in check(folder).damages]
    assert str(file.relative_to(folder)) in named
    for table, frame in whole.items():  # reading answers rightly, or in words
        shown = or_words(lambda table=table: getattr(Lake.open(folder), table))
        assert shown is None or shown.equals(frame) or (harm is flipped and "data file" in which)
    or_words(lambda: Lake.open(folder).append("next", **tables("next", 9)))  # writing too
    done = repair(folder)
    assert not check(folder).damages
    lake = Lake.open(folder)
    expected = {
        "first data file": 0,
        "last data file": 3,
        "last decisions": 3,
        "last items": 3,
    }.get(which, 4)
    assert list(done.kept_batches[:4]) == BATCHES[:expected]
    for minute, name in enumerate(BATCHES):
        assert lake.append(name, **tables(name, minute)).already == (name not in done.lost_batches)
    lake.append("next", **tables("next", 9))
    for table in ("events", "decisions"):
        ids = getattr(lake, table)[f"{table[:-1]}_id"]
        assert sorted(ids) == sorted(
            [*whole[table][f"{table[:-1]}_id"], *tables("next", 9)[table][f"{table[:-1]}_id"]]
        )
    assert pl.read_delta(str(folder / "events")).height == lake.events.height


def test_a_line_that_is_damaged_in_both_copies_goes_back_to_the_batch_before(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "lake"
    small_lake(folder)
    for name in ("log.jsonl", "copy.jsonl"):
        lines = (folder / "commits" / name).read_bytes().split(b"\n")
        lines[2] = lines[2].replace(b"b1", b"bX")  # line 0 begins the lake
        (folder / "commits" / name).write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match="commit 2 is damaged in both copies"):
        _ = Lake.open(folder).events
    assert check(folder).damages
    done = repair(folder)
    assert (done.kept_batches, done.lost_batches) == (("b0",), ("b1", "b2", "b3"))
    assert not check(folder).damages
    lake = Lake.open(folder)
    for minute, name in enumerate(BATCHES):
        assert lake.append(name, **tables(name, minute)).already == (name == "b0")
    assert lake.events.height == 12


def test_an_end_that_is_gone_from_both_copies_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    small_lake(folder)
    for name in ("log.jsonl", "copy.jsonl"):
        lines = (folder / "commits" / name).read_bytes().split(b"\n")
        (folder / "commits" / name).write_bytes(b"\n".join(lines[:3]) + b"\n")
    with pytest.raises(DataError, match="its tables hold later ones"):
        _ = Lake.open(folder).events
    with pytest.raises(DataError, match="its tables hold later ones"):
        Lake.open(folder).append("b4", **tables("b4"))
    (damage,) = check(folder).damages
    assert damage.problem == "ends with commit 2, and the tables hold commit 4"
    done = repair(folder)
    assert (done.kept_batches, done.lost_batches) == (("b0", "b1"), ("b2", "b3"))
    assert Lake.open(folder).events.height == 6
    Lake.open(folder).append("b2", **tables("b2", 2))
    assert not check(folder).damages


def test_a_file_that_fails_to_decode_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    lake = small_lake(folder)
    file = chosen(folder, FILES["last data file"])
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(DataError, match=file.name):
        _ = lake.events
    with pytest.raises(DataError, match=file.name), lake.connect() as con:
        con.sql("select sum(hash(user_id)) from events").fetchall()


# -- what was known then -------------------------------------------------------------------------

DAY = timedelta(days=1)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_later_description_does_not_change_what_was_known(tmp_path: Path) -> None:
    for lake in (Lake.memory(), Lake.open(tmp_path / "lake")):
        old = pl.DataFrame(
            {
                "item_id": ["i"],
                "creator_id": ["a"],
                "title": ["x"],
                "length": [60.0],
                "added_at": [NOON],
            }
        )
        lake.append("old", items=old, events=plays(1, 60 * 24 * 10, item_id="i"))
        seen = lake.before(lake.watermark)
        before = seen.items
        lake.append(
            "new",
            items=old.with_columns(
                creator_id=pl.lit("b"), title=pl.lit("y"), available=pl.lit(False)
            ),
        )
        assert lake.items.select("creator_id", "title", "available").rows() == [("b", "y", False)]
        for view in (seen, lake.before(seen.watermark), lake.before(NOON + DAY)):
            assert view.items.equals(before)
            with view.connect() as con:
                assert con.sql("select creator_id, title, available from items").fetchall() == [
                    ("a", "x", True)
                ]
        assert lake.before(lake.watermark + DAY).items["creator_id"].to_list() == ["b"]
        assert lake.append(
            "again",
            items=old.with_columns(
                creator_id=pl.lit("b"), title=pl.lit("y"), available=pl.lit(False)
            ),
        ).rows == {"items": 0}
