"""Proposes a run.toml for a log, and lists what the log can answer and what it cannot."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import polars as pl

from longplay.errors import ConfigError, DataError, LongplayError
from longplay.lake import Lake
from longplay.lake.adapters.column_words import COLUMN_NAMES, PROPENSITY_NAMES, plain
from longplay.lake.adapters.glimpse import Glimpse, glimpse, sample_of
from longplay.lake.adapters.known_roles import UserRoles, user_roles
from longplay.lake.adapters.logged_slates import DECISION_COLUMNS
from longplay.lake.adapters.open_bandit import ITEMS, NEEDED, read_open_bandit
from longplay.lake.adapters.record_files import JSON_LINES, described_files, find_files
from longplay.lake.adapters.roles import Roles, description_of, roles_of
from longplay.lake.adapters.time_formats import time_format_of
from longplay.run.config import parse_config
from longplay.run.feasible import LogFacts, fit, longest_window
from longplay.run.tables import FIT, Configuration
from longplay.signals import Signal, ready

SHOP_COLUMNS = {
    "invoice",
    "item_id",
    "item_title",
    "quantity",
    "ts",
    "price",
    "user_id",
    "country",
}  # of the Online Retail log
LEAST_BAD = 0.05  # share of bad rows that a run allows in any case
MARGIN_BAD = 0.02  # beside the share that a glimpse shows
FEW_ITEMS = 12  # with so few, fewer slots than the usual five
SLATE_NAMES: Mapping[str, tuple[str, ...]] = {
    "decision_id": ("decision_id", "impression_id", "slate_id", "request_id"),
    "slot": ("slot", "position", "rank"),
    "surface": ("surface", "screen", "placement", "page_type"),
    "policy": ("policy", "policy_name", "model"),
    "experiment": ("experiment", "experiment_id"),
    "arm": ("arm", "variant"),
    "arm_prob": ("arm_prob", "arm_share"),
}


@dataclass(frozen=True)
class Proposal:
    """The run.toml for a log, with the facts about the log that led to it.

    Attributes:
        text: of run.toml.
        seen: sentences about the log.
        can: what it answers, and what it does not and why.
        cannot: what it answers, and what it does not and why.
    """

    text: str
    seen: tuple[str, ...]
    can: tuple[str, ...]
    cannot: tuple[str, ...]


@dataclass(frozen=True)
class _Slates:
    """Files of logged decisions that lie beside the files of events."""

    path: Path
    columns: Mapping[str, str]
    time_format: str | None


@dataclass(frozen=True)
class _Parts:
    """The files of a log by what they hold.

    Attributes:
        events: a file, or the folder of all of them.
        slates: files of logged decisions.
        catalogue: file of the items, and its column mapping.
        users: file of what the service knows of its users, and the roles of its columns.
    """

    events: Path
    slates: _Slates | None = None
    catalogue: tuple[Path, dict[str, str]] | None = None
    users: tuple[Path, UserRoles] | None = None


def propose(log: Path, file: Path) -> Proposal:
    """Inspect a log and propose a run that fits it.

    Args:
        log: a file, a folder or a pattern.
        file: where run.toml will lie: its paths are relative to that.

    Raises:
        ConfigError: nothing there that can be read.
        DataError: it is no log: no time, no user or no item in it.
    """
    if log.is_dir() and (log / "commits").is_dir():
        return _of_lake(log, file)
    if _is_open_bandit(log):
        return _of_open_bandit(log, file)
    parts = _parts(log)
    seen = glimpse(parts.events)
    if set(seen.sample.columns) >= SHOP_COLUMNS:
        return _of_shop(seen, file)
    roles = roles_of(seen.sample, str(parts.events))
    times = seen.column(roles.columns["time"])
    if len(times) > seen.sample.height:
        roles = roles_of(seen.sample, str(parts.events), times)
    return _of_table(seen, roles, parts, file)


def _parts(log: Path) -> _Parts:
    """Split a folder into events, decisions, catalogue and users, by the columns of its files."""
    if not log.is_dir():
        return _Parts(log)
    _, files = find_files(log)
    if len(files) > 12:
        return _Parts(log)
    samples: dict[Path, pl.DataFrame] = {}
    for file in [*files, *described_files(log)]:
        try:
            samples[file] = sample_of(file)
        except (ConfigError, DataError):
            continue
    columns = {file: sample.columns for file, sample in samples.items()}
    if len({tuple(sorted(names)) for names in columns.values()}) < 2:
        return _Parts(log)
    slates = None
    catalogue = None
    users = None
    events = []
    either: list[tuple[Path, UserRoles]] = []  # one row per user and a time: events, or users
    for file, names in columns.items():
        keys = {plain(name): name for name in names}
        if any(plain(name) in keys for name in PROPENSITY_NAMES):
            slates = slates or _slates_of(file)
        elif (of_users := user_roles(samples[file])) is not None:
            if of_users.is_certain:
                users = users or (file, of_users)
            else:
                either.append((file, of_users))
        elif _first(keys, COLUMN_NAMES["user_id"]) and _first(keys, COLUMN_NAMES["time"]):
            events.append(file)
        elif (item := _first(keys, COLUMN_NAMES["item_id"])) or (item := keys.get("id")):
            catalogue = catalogue or (
                file,
                {"item_id": item, **description_of(samples[file], item)},
            )
    if not events:
        events = [file for file, _ in either]
    elif users is None and either:
        users = either[0]
    if not events:
        raise DataError(
            f"{log}: none of its files has a user and a time; name the file of the events, e.g. "
            f"{next(iter(columns), log)}"
        )
    if len(events) > 1 and len({tuple(sorted(columns[file])) for file in events}) > 1:
        raise DataError(
            f"{log}: holds several logs with different columns; name one of "
            f"{', '.join(map(str, events))}"
        )
    return _Parts(events[0] if len(events) == 1 else log, slates, catalogue, users)


def _first(keys: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((keys[plain(name)] for name in names if plain(name) in keys), None)


def _slates_of(file: Path) -> _Slates | None:
    """The column mapping of a file of decisions; None where a required column is missing."""
    sample = glimpse(file).sample
    keys = {plain(name): name for name in sample.columns}
    chance = _first(keys, PROPENSITY_NAMES)
    columns = {role: _first(keys, COLUMN_NAMES[role]) for role in ("user_id", "time", "item_id")}
    columns |= {role: _first(keys, names) for role, names in SLATE_NAMES.items()}
    mapped = {role: name for role, name in columns.items() if name is not None}
    if chance is None or not {"user_id", "time", "item_id"} <= mapped.keys():
        return None
    name = plain(chance)
    is_log = "log" in name and "prob" in name and "logging" not in name
    mapped["log_prob" if is_log else "propensity"] = chance
    ordered = {role: mapped[role] for role in DECISION_COLUMNS if role in mapped}
    return _Slates(file, ordered, time_format_of(sample[mapped["time"]]))


def _is_open_bandit(log: Path) -> bool:
    folder = log if log.is_dir() else log.parent
    if not (folder / ITEMS).is_file():
        return False
    files = (
        [log] if log.is_file() else [file for file in folder.glob("*.csv") if file.name != ITEMS]
    )
    return len(files) == 1 and set(NEEDED) <= set(glimpse(files[0]).sample.columns)


def _of_table(
    seen: Glimpse,
    roles: Roles,
    parts: _Parts,
    file: Path,
) -> Proposal:
    slates = parts.slates
    catalogue = parts.catalogue
    lines = ["[ingest]", f"path = {_text(_relative(seen.path, file))}"]
    if seen.separator is not None:
        lines.append(f"separator = {_text(seen.separator)}")
    if seen.encoding is not None:
        lines.append(f"encoding = {_text(seen.encoding)}")
    if roles.time_format is not None:
        lines.append(f"time_format = {_text(roles.time_format)}")
    lines += [
        f"{name} = {_text(unit)}"
        for name, unit in (("seconds_unit", roles.seconds_unit), ("length_unit", roles.length_unit))
        if unit != "s"
    ]
    seen_bad = f"{roles.bad_share:.1%} of those seen are"
    lines.append(
        f"max_bad_share = {_allowed(roles.bad_share)}       # refuse the log when more of its "
        f"rows are bad; {seen_bad}"
    )
    lines += [
        "",
        "[ingest.columns]           # longplay's name = your column",
        *(f"{role} = {_text(name)}" for role, name in roles.columns.items()),
    ]
    for name, words in (
        ("constants", roles.constants),
        ("kinds", roles.kinds),
        ("origins", roles.origins),
    ):
        if words:
            lines += [
                "",
                f"[ingest.{name}]",
                *(f"{_key(word)} = {_text(meaning)}" for word, meaning in words.items()),
            ]
    if catalogue is not None:
        path, columns = catalogue
        lines += [
            "",
            "[ingest.items]",
            f"path = {_text(_relative(path, file))}",
            f"columns = {_inline(columns)}",
            *_format_keys(path),
        ]
    if parts.users is not None:
        path, of_users = parts.users
        lines += [
            "",
            "[ingest.users]             # what the service knows of its users",
            f"path = {_text(_relative(path, file))}",
            f"columns = {_inline(of_users.columns)}",
        ]
        if of_users.time_format is not None:
            lines.append(f"time_format = {_text(of_users.time_format)}")
        lines += _format_keys(path)
    if slates is not None:
        lines += [
            "",
            "[ingest.decisions]",
            f"path = {_text(_relative(slates.path, file))}",
            f"columns = {_inline(slates.columns)}",
        ]
        lines += (
            [f"time_format = {_text(slates.time_format)}"] if slates.time_format is not None else []
        )
        lines += _format_keys(slates.path)
    facts = LogFacts(
        roles.first.date(),
        (roles.last + timedelta(microseconds=1)).date(),
        roles.items,
        int(slates is not None),
    )
    has = _Has(
        creators="creator_id" in roles.columns
        or (catalogue is not None and "creator_id" in catalogue[1]),
        kinds=roles.kind_words,
        seconds="seconds" in roles.columns,
        lengths="length" in roles.columns,
        origins=roles.origin_words,
        decisions=slates is not None,
    )
    written = f", separated by {seen.separator!r}" if seen.separator else ""
    written += f", {seen.encoding}" if seen.encoding else ""
    about = "" if seen.complete or seen.is_parquet else "about "
    sentences = [
        f"{about}{seen.rows:,} rows in {len(seen.files):,} "
        f"file{'s' if len(seen.files) > 1 else ''}{written}",
        f"from {roles.first:%Y-%m-%d %H:%M} to {roles.last:%Y-%m-%d %H:%M} UTC, {facts.days} "
        "complete days",
        "columns: " + ", ".join(f"{role} = {name}" for role, name in roles.columns.items()),
        *([f"times as {roles.time_format}"] if roles.time_format else []),
        *roles.notes,
        *_of_users(parts),
    ]
    if roles.has_propensity and slates is None:
        sentences.append(
            "a column holds propensities: what was shown enters by [ingest.decisions], see "
            "docs/cli.md"
        )
    return _finished(file, seen.path.stem, lines, facts, has, sentences)


def _of_users(parts: _Parts) -> list[str]:
    """A sentence on the file that says what the service knows of its users."""
    if parts.users is None:
        return []
    path, roles = parts.users
    words = f"{path.name} says what the service knows of its users"
    if not {"added_at", "ingested_at"} & roles.columns.keys():
        words += (
            "; it has no times, so it counts as known from the end of the log on: see "
            "ingest.users in docs/cli.md"
        )
    return [words]


def _of_shop(seen: Glimpse, file: Path) -> Proposal:
    """The proposal for the Online Retail log, which has an adapter of its own."""
    anonymous = float(seen.column("user_id").is_null().mean() or 0.0)  # type: ignore[arg-type]
    times = seen.column("ts")
    first = times.min()
    last = times.max()
    facts = LogFacts(first.date(), last.date(), FEW_ITEMS + 1, 0)  # type: ignore[union-attr]
    lines = [
        "[ingest]",
        'format = "retail"          # knows this shop\'s refunds, fees and vouchers',
        f"path = {_text(_relative(seen.path, file))}",
        f"max_bad_share = {_allowed(anonymous)}  # rows without a customer",
    ]
    has = _Has(
        creators=False,
        kinds=("purchase", "refund"),
        seconds=False,
        lengths=False,
        origins=("organic",),
        decisions=False,
    )
    sentences = [
        f"{seen.rows:,} invoice lines of the Online Retail log, from {first} to {last}",
        f"{anonymous:.1%} of them have no customer",
    ]
    return _finished(file, seen.path.stem, lines, facts, has, sentences)


def _of_lake(log: Path, file: Path) -> Proposal:
    lake = Lake.open(log)
    facts = LogFacts.of(lake)
    kinds, creators, seconds, origins = _of_events(lake)
    has = _Has(
        creators,
        kinds,
        seconds,
        lake.items["length"].drop_nulls().len() > 0,
        origins,
        facts.decisions > 0,
    )
    lines = [
        "[ingest]",
        'format = "lake"            # copied; nothing is written to it',
        f"path = {_text(_relative(log, file))}",
    ]
    return _finished(
        file,
        log.name,
        lines,
        facts,
        has,
        [f"a lake of longplay: {lake.size():,} events, {facts.decisions:,} decisions, {facts}"],
    )


def _of_events(lake: Lake) -> tuple[tuple[str, ...], bool, bool, tuple[str, ...]]:
    events = lake.events
    kinds = tuple(sorted(events["kind"].unique()))
    return (
        kinds,
        events["creator_id"].drop_nulls().len() > 0,
        events["seconds"].drop_nulls().len() > 0,
        tuple(sorted(events["origin"].unique())),
    )


def _of_open_bandit(log: Path, file: Path) -> Proposal:
    source = read_open_bandit(log)
    decisions = source.decisions
    until = source.complete_until
    assert decisions is not None
    assert until is not None
    items = 0 if source.items is None else source.items.height
    facts = LogFacts(decisions["time"].min().date(), until.date(), items, decisions.height)  # type: ignore[union-attr]
    lines = [
        "[ingest]",
        'format = "open-bandit"     # one campaign under one behaviour policy',
        f"path = {_text(_relative(log, file))}",
    ]
    has = _Has(
        creators=False,
        kinds=("play",),
        seconds=False,
        lengths=False,
        origins=("recommended",),
        decisions=True,
        returns=False,
    )
    return _finished(file, f"{log.parent.name}-{log.stem}", lines, facts, has, list(source.notes))


@dataclass(frozen=True)
class _Has:
    """Which kinds of information a log holds."""

    creators: bool
    kinds: tuple[str, ...]
    seconds: bool
    lengths: bool
    origins: tuple[str, ...]
    decisions: bool
    returns: bool = True  # users can be seen again


def _finished(
    file: Path, stem: str, ingest: Sequence[str], facts: LogFacts, has: _Has, seen: Sequence[str]
) -> Proposal:
    """The complete run: signals and reward, with windows and days that fit the log."""
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "mine"
    of = "creator" if has.creators else "item"
    few = max(1, facts.items // 2) if facts.items <= FEW_ITEMS else None
    slots = [] if few is None else [f"slots = {few}                  # the catalogue is small"]
    head = [
        "#:schema ./longplay.schema.json",
        "# A run of longplay, written by `longplay init` from what the log shows. Then: longplay "
        f"run {file.name}",
        "",
        "[run]",
        f"name = {_text(name)}",
        "seed = 7",
        "",
    ]
    learning = [
        "[train]",
        'scale = "tiny"',
        "steps = 600",
        f'exclude = "{_excluded(of, has)}"              # what is not recommended again',
        "",
        "[reinforce]",
        "steps = 150",
        "kl = 0.2",
        *slots,
        "",
    ]
    text = "\n".join([*head, *ingest, "", *_asked(of, has, few), "", *learning])
    try:
        fitted = fit(parse_config(text, str(file)), facts)
        text = _with_fitted(text, fitted)
        parse_config(text, str(file))
    except LongplayError as error:
        raise DataError(f"{facts}: {error}") from error
    can, cannot = answers(facts, has, fitted)
    return Proposal(text, tuple(seen), tuple(can), tuple(cannot))


def _asked(of: str, has: _Has, slots: int | None) -> list[str]:
    """The TOML of signals and reward; `slots` is set where a small catalogue needs shorter
    slates."""
    measured = "coverage" if slots is None else f'"coverage@{slots}"'
    guarded = [
        f"guardrails = {{ {measured} = 0.6, top_creator = 0.8 }}  # share of the start's that "
        "must be kept"
    ]
    if not has.returns:
        entry = f'{{ kind = "exposure", of = "{of}" }}'
        measure = f'{{ kind = "plays", of = "{of}", threshold = 1 }}'
        return [
            *_signal("click", "the slot is clicked", entry, measure, "[0, 0]"),
            "[reward]",
            "objectives = { click = 1.0 }",
            "age = 1",
            *guarded,
        ]
    article = "an item" if of == "item" else "a creator"
    entry = f'{{ kind = "discovery", of = "{of}" }}'
    measure = f'{{ kind = "days_with", of = "{of}", threshold = 2 }}'
    counted = _counted_origins(has)
    lines = [
        *_signal(
            "habit",
            f"{article} met for the first time becomes a habit",
            entry,
            measure,
            more=[*counted, "gameable = true"] if counted else [],
        ),
        *_signal(
            "returns",
            "the user comes back",
            '{ kind = "user_day" }',
            '{ kind = "returned" }',
            more=counted,
        ),
        *_signal(
            "active",
            "days on which a user is active after the first",
            '{ kind = "enrolment" }',
            '{ kind = "active_days" }',
            more=counted,
        ),
    ]
    if has.seconds:
        lines += _signal(
            "minutes",
            "minutes after an active day",
            '{ kind = "user_day" }',
            '{ kind = "minutes" }',
        )
    return [
        *lines,
        "[reward]",
        "objectives = { habit = 1.0 }  # signal = weight",
        "caution = 1.0                 # how many std of belief to subtract",
        *guarded,
    ]


def _counted_origins(has: _Has) -> list[str]:
    """The `origin` that a signal of activity needs where the log has no organic event."""
    if "organic" in has.origins or not has.origins:
        return []
    return [
        f"origin = [{', '.join(map(_text, has.origins))}]{'':<11}# no event of this log is organic"
    ]


def _signal(
    name: str,
    words: str,
    entry: str,
    measure: str,
    window: str = f'"{FIT}"',
    more: Sequence[str] = (),
) -> list[str]:
    return [
        f"{f'[signals.{name}]':<30}# {words}",
        f"entry = {entry}",
        f"measure = {measure}",
        f"window = {window}",
        *more,
        "",
    ]


def _excluded(of: str, has: _Has) -> str:
    if not has.returns:
        return "none"
    return "creator" if of == "creator" else "seen"


def _with_fitted(text: str, fitted: Configuration) -> str:
    """The TOML text with fitted windows and days filled in."""
    for table in fitted.signals.values():
        window = table.get("window")
        if window is not None and window[0] > 0:
            text = text.replace('window = "fit"', f"window = {list(window)}", 1)
    split = [
        "[split]",
        f"train_until = {fitted.split.train_until}      # training sees only what happened before "
        "this day",
        f"evaluate_until = {fitted.split.evaluate_until}   # visits from then on, before this "
        "day, judge the ranking",
        "",
    ]
    head, signals = text.split("[signals.", 1)
    return head + "\n".join(split) + "\n[signals." + signals


def answers(facts: LogFacts, has: _Has, fitted: Configuration) -> tuple[list[str], list[str]]:
    """The questions that the log can answer, and those it cannot with their reasons."""
    can = []
    cannot = []
    if has.returns:
        can.append(
            f"windows up to {longest_window(facts)} days, with days left to train and to judge on "
            f"({facts})"
        )
    missing = {signal: _missing(signal, facts, has) for signal in ready()}
    if answerable := [signal.name for signal, reason in missing.items() if reason is None]:
        can.append(f"ready signals: {', '.join(answerable)}")
    reasons: dict[str, list[str]] = {}
    for signal, reason in missing.items():
        if reason is not None:
            reasons.setdefault(reason, []).append(signal.name)
    cannot += [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    if has.decisions:
        can.append("off-policy estimates: what was shown is there, with propensities")
    else:
        cannot.append(
            "off-policy estimates and the value of showing: no propensities, so nothing says what "
            "was shown and how likely that was"
        )
    if not has.seconds:
        cannot.append("minutes: no column of durations")
    if has.origins == ("organic",):
        cannot.append(
            "organic apart from recommended activity: no origin column, so everything counts as "
            "organic"
        )
    if not has.creators:
        cannot.append(
            "habits with creators (artists, shows, brands): no creator column; habits are formed "
            "with items"
        )
    cannot.append(
        "what a new policy would do to later activity: that takes an experiment (docs/cli.md)"
    )
    return can, cannot


def _missing(signal: Signal, facts: LogFacts, has: _Has) -> str | None:
    """Why the log cannot answer a signal; None where it can."""
    parts = [part for part in (signal.measure, signal.measure.per) if part is not None]
    if not has.returns and signal.window[1] > 0:
        return "no user is seen twice"
    if signal.window[1] + 1 > facts.days:
        return f"the window needs {signal.window[1] + 1} days, the log has {facts.days}"
    if not has.creators and "creator" in (signal.entry.of, *(part.of for part in parts)):
        return "no creator column"
    if signal.entry.is_slot and not has.decisions:
        return "no decisions"
    kinds = [kind for part in parts for kind in part.asked_kinds]
    if signal.entry.event is not None:
        kinds.insert(0, signal.entry.event)
    if absent := [kind for kind in kinds if kind not in has.kinds]:
        return f"no event of kind {absent[0]!r}"
    if not set(signal.origins) & set(has.origins):
        return f"no event of origin {' or '.join(map(repr, signal.origins))}"
    if not has.seconds and any(part.needs_seconds for part in parts):
        return "no column of durations"
    if not has.lengths and any(part.needs_lengths for part in parts):
        return "no length of items"
    return None


def _format_keys(path: Path) -> list[str]:
    """Format keys of a CSV file: separator and encoding where they are not the defaults."""
    if path.suffix.lower() in JSON_LINES:
        return []
    seen = glimpse(path)
    dialect = {"separator": seen.separator, "encoding": seen.encoding}
    return [f"{name} = {_text(value)}" for name, value in dialect.items() if value is not None]


def _allowed(bad_share: float) -> float:
    if bad_share <= LEAST_BAD - MARGIN_BAD:
        return LEAST_BAD
    return max(LEAST_BAD, math.ceil(100 * (bad_share + MARGIN_BAD)) / 100)


def _relative(path: Path, file: Path) -> str:
    return Path(os.path.relpath(path.resolve(), file.resolve().parent)).as_posix()


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _key(word: str) -> str:
    return word if re.fullmatch(r"[A-Za-z0-9_-]+", word) else _text(word)


def _inline(columns: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{role} = {_text(name)}" for role, name in columns.items()) + " }"
