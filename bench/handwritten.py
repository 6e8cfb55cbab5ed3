"""The ready signals as an expert would write each by hand for one log: DuckDB SQL with the log's
dates, words and kinds written out.

What is not asked is left out: no ids of the entry's event, no `truncated`, no general calendar, no
check that the log can answer. Where two ways were about as good, both are here, and the bench takes
the quicker one. Each query leaves a table `hand` with a row per entry and `value` (null while
immature); the bench asserts that counts and means equal ours.

Days are counted from the log's first (0 to 179, three words of 60 bits).
"""

from __future__ import annotations

ENGAGED = "kind in ('play', 'save', 'like', 'follow', 'purchase', 'visit')"
WORDS = 3


def macros(base: int, days: int) -> list[str]:
    """What an expert would name: the day of a time counted from the log's first, `base` (days since
    1970), masks, and whether a window has closed."""
    return [
        f"create macro us(t) as epoch_us(t) - {base * 86_400_000_000}",
        "create macro d(t) as cast(us(t) // 86400000000 as integer)",
        "create macro low(x, i) as (1::bigint << greatest(least(x - 60 * i, 60), 0)::int) - 1",
        "create macro n(a0, a1, a2, lo, hi) as bit_count(a0 & low(hi + 1, 0) & ~low(lo, 0))::int "
        "+ bit_count(a1 & low(hi + 1, 1) & ~low(lo, 1))::int"
        " + bit_count(a2 & low(hi + 1, 2) & ~low(lo, 2))::int",
        "create macro has(t0, t1, t2, x) as ((case x // 60 when 0 then t0 when 1 then t1 else t2 "
        "end) >> (x % 60)) & 1 = 1",
        f"create macro ripe(x, stop) as x + stop < {days}",
    ]


def _bits(name: str, test: str = "true") -> str:
    bit = f"case when {test} then b end"
    return ", ".join(
        f"coalesce(bit_or(case when k = {word} then {bit} end), 0) as {name}{word}"
        for word in range(WORDS)
    )


def _words(keys: str, columns: str, where: str = ENGAGED, more: str = "origin") -> str:
    placed = (
        f"select {keys}, {more}, d(time) // 60 as k, 1::bigint << (d(time) % 60) as b from "
        f"events where {where}"
    )
    return f"select {keys}, {columns} from ({placed}) group by {keys}"


ORGANIC = "origin = 'organic'"


def _return(stop: int) -> list[str]:
    words = _words("user_id", f"{_bits('t')}, {_bits('a', ORGANIC)}")
    value = f"case when ripe(x, {stop}) then (n(a0, a1, a2, x + 1, x + {stop}) > 0)::double end"
    by_words = f"""create or replace temp table hand as select user_id, x as day, {value} as value
        from ({words}), (select unnest(range(180))::int as x) where has(t0, t1, t2, x)"""
    days = (
        f"select user_id, d(time) as day, bool_or({ORGANIC}) as o from events where {ENGAGED} "
        "group by all"
    )
    by_window = f"""create or replace temp table hand as select user_id, day, case when ripe(day, {stop}) then coalesce(back, 0) end as value
        from (select *, max(o::int) over (partition by user_id order by day range between 1 following and {stop} following)::double as back from ({days}))"""
    return [by_words, by_window]


def _discovery(value: str) -> str:
    """First touches with a creator in 28 days: the first day of all and, word by word, days with an
    empty 28 days before."""
    words = _words(
        "user_id, creator_id",
        f"{_bits('t')}, {_bits('a', ORGANIC)}",
        f"{ENGAGED} and creator_id is not null",
    )
    return (
        f"create or replace temp table hand as select user_id, creator_id, x as day, {value} "
        f"as value from ({_fresh(words)})"
    )


def _fresh(words: str) -> str:
    """One row per entry, `x` its day: bits that have none in the 28 before, at most three in a word
    of 60."""
    keep = [
        f"((s{{i}} & {(1 << (60 - by)) - 1}) << {by}) | (case when {{i}} > 0 then p{{i}} >> "
        f"{60 - by} else 0 end)"
        for by in (1, 1, 2, 4, 8, 12)
    ]
    source = f"select *, t0 as s0, t1 as s1, t2 as s2 from ({words})"
    for step, text in enumerate(keep):
        shifted = {
            i: text.replace("{i}", str(i)).replace(f"p{i}", f"s{max(i - 1, 0)}")
            for i in range(WORDS)
        }
        columns = ", ".join(
            f"{'' if step == 0 else f's{i} | '}{shifted[i]} as s{i}" for i in range(WORDS)
        )
        source = f"select * replace ({columns}) from ({source})"
    low = "bit_count((c & -c) - 1)::int"
    once = "c & (c - 1)"
    picks = []
    for i in range(WORDS):
        word = f"select *, t{i} & ~s{i} as c from w where t{i} & ~s{i} <> 0"
        for nth in range(3):
            picks.append(f"select * exclude (c), {60 * i} + {low} as x from ({word})")
            word = f"select * replace ({once} as c) from ({word}) where {once} <> 0"
            if nth == 2:
                break
    return f"with w as materialized ({source}) {' union all '.join(picks)}"


def _lagged(key: str, flags: str, value: str, where: str) -> str:
    """The other way: days per pair, then windows over them."""
    days = (
        f"select user_id, {key}, d(time) as day, {flags} from events where {where} and {key} "
        "is not null group by all"
    )
    return f"""create or replace temp table hand as select user_id, {key}, day, {value} as value
        from (select *, lag(day) over w as before from (select * from ({days}) where touched) window w as (partition by user_id, {key} order by day))
        where before is null or day - before > 28"""


_SESSIONS = f"""
    select user_id, bin // 48 as day, count(*) filter (first is not null and (last_before is null or first - last_before > 1800000000)) as sessions, sum(plays) as plays, bool_or(first is not null) as touched
    from (select *, lag(last ignore nulls) over (partition by user_id order by bin) as last_before
          from (select user_id, us(time) // 1800000000 as bin, min(case when {ENGAGED} then us(time) end) as first,
                       max(case when {ENGAGED} then us(time) end) as last, count(*) filter (kind = 'play') as plays
                from events where {ENGAGED} group by all))
    group by all"""

_FIRST = f"select user_id, min(d(time)) as first from events where {ENGAGED} group by user_id"

HAND: dict[str, list[str]] = {
    "return_1d": _return(1),
    "return_7d": _return(7),
    "return_28d": _return(28),
    "active_days_28d": [
        f"""create or replace temp table hand as select user_id, x as day, case when ripe(x, 28) then n(a0, a1, a2, x + 1, x + 28)::double end as value
        from (select *, case when t0 <> 0 then bit_count((t0 & -t0) - 1) when t1 <> 0 then 60 + bit_count((t1 & -t1) - 1)::int else 120 + bit_count((t2 & -t2) - 1)::int end as x
              from ({_words("user_id", f"{_bits('t')}, {_bits('a', ORGANIC)}")}))""",
        f"""create or replace temp table hand as with days_of as (select user_id, d(time) as day, bool_or({ORGANIC}) as o from events where {ENGAGED} group by all),
        first as (select user_id, min(day) as x from days_of group by user_id)
        select user_id, x as day, case when ripe(x, 28) then count(*) filter (o and day between x + 1 and x + 28)::double end as value
        from first join days_of using (user_id) group by user_id, x""",
    ],
    "habit": [
        _discovery("case when ripe(x, 28) then (n(a0, a1, a2, x + 1, x + 28) >= 3)::double end")
    ],
    "stickiness_60d": [
        _discovery("case when ripe(x, 59) then n(a0, a1, a2, x + 1, x + 59)::double end")
    ],
    "lasting_discovery": [
        _discovery("case when ripe(x, 59) then (n(a0, a1, a2, x + 30, x + 59) >= 1)::double end")
    ],
    "session_depth": [
        f"""create or replace temp table hand as select user_id, day, case when ripe(day, 7) then p / nullif(s, 0) end as value from (
        select *, sum(plays) over w as p, sum(sessions) over w as s from ({_SESSIONS})
        window w as (partition by user_id order by day range between 1 following and 7 following)) where touched""",
    ],
    "save_and_return": [
        f"""create or replace temp table hand as with saves as (select user_id, item_id, d(time) as day from events where kind = 'save' and item_id is not null),
        words as ({_words("user_id, item_id", _bits("a"), f"{ENGAGED} and {ORGANIC} and (user_id, item_id) in (select user_id, item_id from saves)")})
        select s.*, case when ripe(day, 28) then coalesce(n(a0, a1, a2, day + 1, day + 28) > 0, false)::double end as value
        from saves s left join words using (user_id, item_id)""",
        f"""create or replace temp table hand as with saves as (select row_number() over () as r, user_id, item_id, d(time) as day from events where kind = 'save' and item_id is not null),
        back as (select distinct r from saves s join (select user_id, item_id, d(time) as later from events where {ENGAGED} and {ORGANIC}) p
                 on p.user_id = s.user_id and p.item_id = s.item_id and p.later between s.day + 1 and s.day + 28)
        select user_id, item_id, day, case when ripe(day, 28) then (back.r is not null)::double end as value from saves left join back using (r)""",
    ],
    "dormant_reactivation": [
        f"""create or replace temp table hand as with days_of as (select user_id, d(time) as day, bool_or({ORGANIC}) as o from events where {ENGAGED} group by all),
        back as (select user_id, day as x from (select *, lag(day) over (partition by user_id order by day) as before from days_of) where day - before > 28)
        select user_id, x as day, case when ripe(x, 28) then (count(*) filter (o and day between x + 1 and x + 28) >= 3)::double end as value
        from back join days_of using (user_id) group by user_id, x""",
    ],
    "diversity_of_habits": [
        f"""create or replace temp table hand as with first as ({_FIRST}),
        habits as (select e.user_id, creator_id from events e join first using (user_id)
            where {ENGAGED} and {ORGANIC} and creator_id is not null and d(time) between first + 1 and first + 28 group by all having count(distinct d(time)) >= 3)
        select user_id, first as day, case when ripe(first, 28) then count(creator_id)::double end as value
        from first left join habits using (user_id) group by user_id, first""",
        f"""create or replace temp table hand as with first as ({_FIRST}),
        habits as (select user_id, creator_id from (select user_id, creator_id, bit_or(1::bigint << (d(time) - first)) as bits from events e join first using (user_id)
            where {ENGAGED} and {ORGANIC} and creator_id is not null and d(time) between first + 1 and first + 28 group by all) where bit_count(bits) >= 3)
        select user_id, first as day, case when ripe(first, 28) then count(creator_id)::double end as value
        from first left join habits using (user_id) group by user_id, first""",
    ],
    "regret": [
        _lagged(
            "item_id",
            f"bool_or({ENGAGED}) as touched, bool_or(kind = 'skip') as skipped",
            "case when ripe(day, 0) then skipped::double end",
            f"({ENGAGED} or kind = 'skip')",
        ),
        "create or replace temp table hand as select user_id, item_id, x as day, case when "
        "ripe(x, 0) then has(a0, a1, a2, x)::double end as value from ("
        + _fresh(
            _words(
                "user_id, item_id",
                f"{_bits('t', ENGAGED)}, {_bits('a', 'kind = ' + chr(39) + 'skip' + chr(39))}",
                f"({ENGAGED} or kind = 'skip') and item_id is not null",
                "kind",
            )
        )
        + ")",
    ],
    "cancel_60d": [
        f"""create or replace temp table hand as select user_id, x as day, case when ripe(x, 60) then (n(c0, c1, c2, x + 1, x + 60) > 0)::double end as value
        from ({_words("user_id", f"{_bits('t', ENGAGED)}, {_bits('c', 'kind = ' + chr(39) + 'cancel' + chr(39))}", f"{ENGAGED} or kind = 'cancel'", "kind")}),
             (select unnest(range(180))::int as x) where has(t0, t1, t2, x)""",
        f"""create or replace temp table hand as with days_of as (select distinct user_id, d(time) as day from events where {ENGAGED}),
        gone as (select distinct user_id, d(time) as c from events where kind = 'cancel'),
        hit as (select distinct user_id, day from days_of join gone using (user_id) where c between day + 1 and day + 60)
        select user_id, day, case when ripe(day, 60) then (hit.day is not null)::double end as value from days_of left join hit using (user_id, day)""",
    ],
}
