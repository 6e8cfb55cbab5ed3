"""What was known at a moment, against a loop over all events; and in memory that grows with the
events, not with their square."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from longplay.past import Met, Past

MEMORY = Path(__file__).parent / "one_long_life.py"


@st.composite
def pasts(draw: st.DrawFn) -> Past:
    """Events of up to three users, some late by nothing, a little or longer than the whole log."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    size = draw(st.sampled_from((0, 1, 2, 30, 900)))
    user_E = rng.integers(0, draw(st.sampled_from((1, 3))), size)
    time_E = rng.integers(0, draw(st.sampled_from((5, 1000))), size)
    late = draw(st.sampled_from((0, 3, 2000)))
    arrived_E = time_E + np.where(
        rng.random(size) < draw(st.sampled_from((0.1, 0.9, 1.0))), late, rng.integers(0, 3, size)
    )
    order = np.lexsort((time_E, user_E))
    return Past(user_E[order], time_E[order], arrived_E[order])


@examples(60)
@given(pasts(), st.integers(0, 2**32), st.sampled_from((0, 1, 4)))
def test_the_last_events_known_at_a_moment_are_those_of_a_loop(
    past: Past, seed: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    user_N, time_N = rng.integers(-1, 4, 20), rng.integers(-1, 1500, 20)
    offsets, events = past.last(user_N, time_N, most)
    for n, (user, time) in enumerate(zip(user_N, time_N)):
        known = [
            e
            for e in range(len(past.user_E))
            if past.user_E[e] == user and past.time_E[e] < time and past.arrived_E[e] <= time
        ]
        assert events[offsets[n] : offsets[n + 1]].tolist() == (known[-most:] if most else [])


@examples(60)
@given(pasts(), st.integers(0, 2**32))
def test_the_keys_met_by_a_moment_are_those_of_a_loop(past: Past, seed: int) -> None:
    rng = np.random.default_rng(seed)
    key_E = rng.integers(-1, 6, len(past.user_E))
    user_N, time_N = rng.integers(-1, 4, 20), rng.integers(-1, 1500, 20)
    met = Met.of(past, key_E)
    first_N, count_N = met.by(user_N, time_N)
    for n, (user, time) in enumerate(zip(user_N, time_N)):
        known = {
            int(key_E[e])
            for e in range(len(key_E))
            if past.user_E[e] == user and past.time_E[e] < time and past.arrived_E[e] <= time
        }
        keys = met.key_P[first_N[n] : first_N[n] + count_N[n]].tolist()
        assert len(keys) == len(set(keys))
        assert set(keys) == known - {-1}


def peak_mb(events: int, work: str) -> float:
    """Peak memory of a process of its own that does `work` on the log of one user with so many
    events."""
    run = subprocess.run(
        [sys.executable, str(MEMORY), str(events), work], capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)["peak_mb"]


@pytest.mark.parametrize(
    "work", ["contexts_from_log", "contexts_at every event", "contexts_at every event, all late"]
)
def test_one_user_with_many_events_costs_memory_in_proportion(work: str) -> None:
    start, few, many = peak_mb(0, work), peak_mb(10_000, work), peak_mb(40_000, work)
    assert many - start < 500  # the square took 7 GB at 40,000
    assert many - few < 4 * max(few - start, 20.0)
