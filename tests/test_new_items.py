"""A catalogue that lives: where new items belong among codes that stay, what a policy makes of them
from one day to the next, and how it takes over other codes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from test_base import base_folder

import longplay as lp
from longplay.chance import RowChance
from longplay.codes import (
    Codebook,
    code_churn,
    fit_codebook,
    item_vectors,
    placed_vectors,
    with_catalogue,
)
from longplay.decisions import Adaptive, Contexts, Frozen
from longplay.errors import DataError
from longplay.index import ItemIndex
from longplay.lake import Lake
from longplay.policies.generative.search import _noise
from longplay.policies.training.histories import histories_from_log
from longplay.world import World, WorldConfig

torch.set_num_threads(1)

US = pl.Datetime("us", "UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
CREATORS, WORKS = 12, 4


def items_frame(
    creators: list[str | None],
    ids: list[str] | None = None,
    *,
    titles: list[str] | None = None,
    vectors: np.ndarray | None = None,
    day: int = 0,
) -> pl.DataFrame:
    """A catalogue with these creators, as the lake's table."""
    n = len(creators)
    return pl.DataFrame(
        {
            "item_id": [f"i{k}" for k in range(n)] if ids is None else ids,
            "creator_id": pl.Series(creators, dtype=pl.String),
            "title": pl.Series([None] * n if titles is None else titles, dtype=pl.String),
            "text": pl.Series([None] * n, dtype=pl.String),
            "tags": pl.Series([None] * n, dtype=pl.List(pl.String)),
            "added_at": pl.Series([START + timedelta(days=day)] * n, dtype=US),
            "available": [True] * n,
            "vector": pl.Series(
                [None] * n if vectors is None else vectors.tolist(), dtype=pl.List(pl.Float64)
            ),
        }
    )


def first_codes(book: Codebook) -> dict[str, int]:
    return dict(zip(book.items, book.codes[:, 0].tolist(), strict=True))


# -- where new items belong


@cache
def lived() -> tuple[World, Lake]:
    """A world of which two fifths of the items are released in its first hundred days."""
    config = WorldConfig(new_share=0.4, new_days=100)
    world = World(users=400, items=300, seed=3, config=config)
    return world, world.run(lp.Popular(explore=0.2), days=30)


def test_a_new_item_lands_under_the_first_code_of_its_creators_others() -> None:
    world, lake = lived()
    index = ItemIndex(lake.items["item_id"])
    book = fit_codebook(lake.items["item_id"], item_vectors(lake, index, seed=1), seed=1)
    later = with_catalogue(book, world.catalogue.frame)
    assert len(later.items) == 300
    assert later.added == 300 - len(book.items) > 40
    code = first_codes(later)
    creator = dict(world.catalogue.frame.select("item_id", "creator_id").iter_rows())
    codes_of: dict[str, list[int]] = {}
    for item in book.items:
        codes_of.setdefault(creator[item], []).append(code[item])
    new = [
        item for item in later.items if item not in set(book.items) and creator[item] in codes_of
    ]
    shared = np.mean([np.mean(np.array(codes_of[creator[item]]) == code[item]) for item in new])
    everything = np.concatenate([*codes_of.values()])
    by_chance = np.mean([np.mean(everything == code[item]) for item in new])
    # a creator's own items agree about as often with each other
    among = [np.mean(np.array(codes)[:, None] == codes) for codes in codes_of.values()]
    assert shared > 6 * by_chance
    assert shared > 0.9 * np.mean(among)


def test_words_place_an_item_of_an_unknown_creator_and_known_vectors_one_without_words() -> None:
    kind = np.repeat([0, 1, 2], 10)
    vectors = np.eye(3)[kind] + 0.05 * np.random.default_rng(0).normal(size=(30, 3))
    names = pl.Series([f"i{k}" for k in range(30)])
    book = fit_codebook(names, vectors, levels=3, width=8, seed=0)
    words = np.array(["slow piano", "loud metal", "deep house"])
    nobody: list[str | None] = [None]
    described = items_frame([f"c{k}" for k in range(30)], titles=words[kind].tolist())
    known = items_frame(nobody * 30, vectors=10 + 5 * np.eye(4)[kind])
    nothing = items_frame(nobody * 30)
    for sort in range(3):
        of_words = items_frame(["new"], ["n"], titles=[str(words[sort])])
        of_vectors = items_frame(nobody, ["n"], vectors=10 + 5 * np.eye(4)[[sort]])
        for items, new in ((described, of_words), (known, of_vectors)):
            there = placed_vectors(book, items, new)
            assert there.argmax(axis=1).tolist() == [sort]
    # nothing is known: the mean, and that of which the columns are missing altogether alike
    bare = nothing.select("item_id", "available")
    new = pl.DataFrame({"item_id": ["n"]})
    assert placed_vectors(book, bare, new)[0] == pytest.approx(book.placed.mean(axis=0))


def test_a_creators_items_lie_at_their_mean_shrunk_by_hand() -> None:
    """Without words: mean of all + n / (n + 1/2) of how far the creator's n items lie from it."""
    codes = np.array([[0], [1], [2], [3]])
    centres = (np.array([[4.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]),)
    book = Codebook(
        pl.Series(["a", "b", "c", "d"]), codes, 4, np.ones(4, dtype=bool), centres=centres
    )
    items = items_frame(["x", "x", "y", None], ["a", "b", "c", "d"])
    new = items_frame(["x", "y", "z", None], ["k", "l", "m", "n"])
    assert placed_vectors(book, items, new) == pytest.approx(
        np.array([[1 + 0.8, 1 + 0.8], [1 - 2 / 3, 1 - 2 / 3], [1.0, 1.0], [1.0, 1.0]])
    )


@given(st.integers(4, 40), st.integers(1, 12), st.integers(0, 1000))
@examples(40)
def test_no_code_moves_and_one_night_after_another_is_all_at_once(
    fitted: int, more: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    creators = [f"c{k}" for k in rng.integers(5, size=fitted + more)]
    book = fit_codebook(
        pl.Series([f"i{k}" for k in range(fitted)]),
        np.eye(5)[[int(creator[1:]) for creator in creators[:fitted]]]
        + 0.1 * rng.normal(size=(fitted, 5)),
        levels=3,
        width=4,
    )
    items = items_frame(creators).with_columns(
        added_at=pl.Series(
            [START] * fitted + [START + timedelta(days=1 + int(k) // 3) for k in range(more)],
            dtype=US,
        )
    )
    at_once = with_catalogue(book, items.sample(fraction=1.0, shuffle=True, seed=seed))
    nightly = book
    for day in range(1, 6):
        nightly = with_catalogue(
            nightly, items.filter(pl.col("added_at") <= START + timedelta(days=day))
        )
    assert nightly.items.equals(at_once.items)
    assert np.array_equal(nightly.codes, at_once.codes)
    assert np.array_equal(nightly.is_added, at_once.is_added)
    assert nightly.added == more
    old = dict(zip(book.items, book.codes.tolist(), strict=True))
    now = dict(zip(at_once.items, at_once.codes.tolist(), strict=True))
    assert {item: now[item] for item in old} == old
    # nodes keep the numbers that their luck follows from, and no two share one
    for depth in range(book.levels):
        number = at_once.trie.luck_numbers[depth]
        assert len(np.unique(number)) == at_once.trie.nodes(depth)
        then = book.trie.node_of(depth, book.index.rows(book.items))
        today = at_once.trie.node_of(depth, at_once.index.rows(book.items))
        assert np.array_equal(number[today], then)
    for depth in range(book.levels):
        a, b = at_once.trie.luck_numbers[depth], nightly.trie.luck_numbers[depth]
        assert np.array_equal(a, b)


def test_availability_is_what_the_catalogue_says_today() -> None:
    book = fit_codebook(pl.Series(["a", "b", "c"]), np.eye(3), levels=2, width=4)
    items = items_frame(["x", "y", "z"], ["a", "b", "c"])
    assert with_catalogue(book, items) is book
    assert with_catalogue(book, items.select("item_id")) is book
    sold_out = items.with_columns(available=pl.col("item_id") != "b")
    for less in (sold_out, items.filter(pl.col("item_id") != "b")):  # said to be gone; not there
        later = with_catalogue(book, less)
        assert set(later.items.filter(pl.Series(later.available))) == {"a", "c"}
        back = with_catalogue(later, items)
        assert back.trie.version == book.trie.version
    soon = items_frame(["x"], ["d"]).with_columns(available=False)
    assert set(with_catalogue(book, pl.concat([items, soon])).items) == {"a", "b", "c", "d"}
    assert with_catalogue(book, pl.concat([items, soon])).available.sum() == 3


def test_catalogues_that_cannot_be_taken_over_are_refused() -> None:
    book = fit_codebook(pl.Series(["a", "b", "c"]), np.eye(3), levels=2, width=2)
    items = items_frame(["x", "y", "z"], ["a", "b", "c"])
    more = items_frame(["x", "x"], ["d", "e"])
    with pytest.raises(DataError, match="none of the codebook's 3 items is among the 2"):
        with_catalogue(book, more)
    with pytest.raises(DataError, match="1 items occur twice in the catalogue, first 'a'"):
        with_catalogue(book, pl.concat([items, items[:1]]))
    with pytest.raises(DataError, match="2 new items do not fit"):
        with_catalogue(book, pl.concat([items, more]))
    with pytest.raises(DataError, match=r"without its centres.*Frozen"):
        with_catalogue(replace(book, centres=()), pl.concat([items, more]))
    grown = with_catalogue(book, pl.concat([items, more[:1]]))
    with pytest.raises(DataError, match="describes none of the items that the codes were fitted"):
        placed_vectors(grown, more[:1], more[1:])


def test_what_was_added_is_known_of_a_saved_codebook_and_not_of_an_older_one(
    tmp_path: Path,
) -> None:
    book = fit_codebook(pl.Series(["a", "b", "c"]), np.eye(3), levels=2, width=4)
    items = items_frame(["x", "y", "z", "x"], ["a", "b", "c", "d"])
    grown = with_catalogue(book, items)
    file = tmp_path / "codes.parquet"
    grown.save(file)
    back = Codebook.load(file, 4)
    assert back.added == 1
    assert np.array_equal(back.is_added, grown.is_added)
    assert all(map(np.array_equal, back.trie.luck_numbers, grown.trie.luck_numbers))
    pl.read_parquet(file).with_columns(added=~pl.col("added")).write_parquet(
        file, metadata=pl.read_parquet_metadata(file)
    )
    with pytest.raises(DataError, match="was changed"):
        Codebook.load(file, 4)
    pl.read_parquet(file).drop("added").write_parquet(file)
    assert Codebook.load(file, 4).added is None


# -- a policy on a catalogue that grows


def lake_of_chains(users: int = 150, plays: int = 16, seed: int = 5) -> Lake:
    """After an item comes one of the same creator (7 in 10), or any."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item = int(rng.integers(CREATORS * WORKS))
        for step in range(plays):
            rows.append((f"u{user}", f"i{item}", START + timedelta(hours=step)))
            if rng.random() < 0.7:
                item = item // WORKS * WORKS + int(rng.integers(WORKS))
            else:
                item = int(rng.integers(CREATORS * WORKS))
    user_ids, item_ids, time = zip(*rows, strict=True)
    events = pl.DataFrame(
        {
            "event_id": [f"e{k}" for k in range(len(rows))],
            "user_id": user_ids,
            "item_id": item_ids,
            "kind": ["play"] * len(rows),
            "time": pl.Series(time, dtype=US),
        }
    )
    lake = Lake.memory()
    lake.append("all", events=events, items=catalogue(), watermark=START + timedelta(days=2))
    return lake


def catalogue(new: int = 0) -> pl.DataFrame:
    """The items of `lake_of_chains`, and after them `new` ones, one of each creator in turn."""
    owners = [f"c{k // WORKS}" for k in range(CREATORS * WORKS)]
    titles = [f"song by {owner}" for owner in owners]
    old = items_frame([*owners], titles=titles)
    return pl.concat(
        [
            old,
            items_frame(
                [f"c{k % CREATORS}" for k in range(new)],
                [f"n{k:02}" for k in range(new)],
                titles=[f"song by c{k % CREATORS}" for k in range(new)],
                day=3,
            ),
        ]
    )


@cache
def chains() -> Lake:
    return lake_of_chains()


@cache
def fitted(kind: str) -> lp.Generative:
    settings = {"item_tokens": True} if kind == "tokens" else {}
    return lp.Generative(seed=1, steps=60, exclude="none", **settings).fit(chains())


@pytest.fixture(scope="module")
def with_base(tmp_path_factory: pytest.TempPathFactory) -> lp.Generative:
    folder = base_folder(tmp_path_factory.mktemp("base"), tied=False)
    return lp.Generative(base=str(folder), seed=1, steps=2, exclude="none").fit(chains())


@pytest.fixture(scope="module", params=["codes", "tokens", "base"])
def policy(request: pytest.FixtureRequest) -> lp.Generative:
    if request.param == "base":
        return request.getfixturevalue("with_base")
    return fitted(request.param)


def asked(n: int = 30, slots: int = 3) -> Contexts:
    rng = np.random.default_rng(9)
    histories = [
        [f"i{k}" for k in rng.integers(CREATORS * WORKS, size=1 + n % 5)] for n in range(n)
    ]
    return Contexts.of([f"u{k}" for k in range(n)], NOON, slots=slots, history=histories)


def test_old_items_keep_their_probabilities_while_new_ones_cannot_be_shown(
    policy: lp.Generative,
) -> None:
    items = catalogue(24).with_columns(available=pl.col("item_id").str.starts_with("i"))
    later = policy.adapt(items)
    assert len(later.index) == len(policy.index) + 24
    contexts = asked()
    drawn = policy.decide(contexts, np.random.default_rng(4))
    again = later.decide(contexts, np.random.default_rng(4))
    assert again.slates.equals(drawn.slates)  # and the luck is the same
    # of a token per item, products of other shapes round otherwise
    exact = {"abs": 0.0 if policy.items_with_token is None else 1e-5}
    assert later.log_prob(contexts, drawn.slates) == pytest.approx(
        policy.log_prob(contexts, drawn.slates), **exact
    )
    was = policy.item_log_prob(contexts)
    now = later.item_log_prob(contexts)
    assert now[:, later.index.rows(policy.index.ids)] == pytest.approx(was, abs=1e-5)
    is_new = later.index.ids.str.starts_with("n").to_numpy()
    assert np.isneginf(now[:, is_new]).all()


def test_new_items_share_the_law_and_it_still_sums_to_one(policy: lp.Generative) -> None:
    later = policy.adapt(catalogue(24))
    contexts = asked()
    p = np.exp(later.item_log_prob(contexts))
    assert p.sum(axis=1) == pytest.approx(np.ones(len(p)))
    is_new = later.index.ids.str.starts_with("n").to_numpy()
    assert (p[:, is_new] > 0).all()
    # a third of the items: neither shut out nor favoured by codes that nothing was learned of
    assert 0.1 < p[:, is_new].sum(axis=1).mean() < 0.6
    drawn = later.decide(contexts, np.random.default_rng(4))
    assert later.log_prob(contexts, drawn.slates) == pytest.approx(drawn.log_prob, abs=1e-5)
    assert drawn.slates.explode().str.starts_with("n").any()


@pytest.mark.parametrize("kind", ["codes", "tokens"])
def test_a_new_item_is_expected_where_its_creators_others_are(kind: str) -> None:
    policy = fitted(kind)
    later = policy.adapt(catalogue(CREATORS))
    histories = [[f"i{WORKS * creator + 1}", f"i{WORKS * creator}"] for creator in range(CREATORS)]
    users = [f"u{k}" for k in range(CREATORS)]
    contexts = Contexts.of(users, NOON, slots=1, history=histories)
    log_p = later.item_log_prob(contexts)
    new = log_p[:, later.index.rows(pl.Series([f"n{k:02}" for k in range(CREATORS)]))]
    rank = (new > np.diag(new)[:, None]).sum(axis=1)
    assert rank.mean() < 0.5 * (CREATORS - 1) / 2  # by chance, half of the others come before it


def test_adapting_night_by_night_is_adapting_at_once_and_twice_is_once(
    policy: lp.Generative, tmp_path: Path
) -> None:
    at_once = policy.adapt(catalogue(24), chains().events)
    nightly = policy
    for new in (0, 7, 7, 24):
        nightly = nightly.adapt(catalogue(new))
    assert nightly.index.ids.equals(at_once.index.ids)
    contexts = asked(5)
    of_nights = nightly.item_log_prob(contexts)
    assert of_nights == pytest.approx(at_once.item_log_prob(contexts), abs=1e-5)
    if policy.items_with_token is None:
        assert nightly.name == at_once.name != policy.name
    assert nightly.adapt(catalogue(24)) is nightly
    assert policy.adapt(catalogue()) is policy
    nightly.save(tmp_path / "policy")
    back = lp.Generative.load(tmp_path / "policy")
    assert back.name == nightly.name
    assert back.adapt(catalogue(24)).name == nightly.name


def test_a_new_items_token_is_the_mean_of_those_under_its_prefix() -> None:
    policy = fitted("tokens")
    later = policy.adapt(catalogue(5))
    book, tokens = later.codebook, later.decoder.item_token_I
    assert book is not None
    assert tokens is not None
    assert len(np.unique(tokens)) == len(book.items)
    table = later.decoder.model.get_input_embeddings().weight.detach().numpy()
    of_old = policy.decoder.model.get_input_embeddings().weight.detach().numpy()
    assert np.array_equal(table[: len(of_old)], of_old)
    is_old = ~np.asarray(book.is_added)
    for leaf in np.flatnonzero(~is_old):
        for length in (2, 1, 0):
            near = is_old & (book.codes[:, :length] == book.codes[leaf, :length]).all(axis=1)
            if near.any():
                break
        assert table[tokens[leaf]] == pytest.approx(table[tokens[near]].mean(axis=0), abs=1e-6)


def test_a_policy_that_was_not_fitted_cannot_adapt() -> None:
    with pytest.raises(DataError, match=r"\.fit\(lake\)"):
        lp.Generative().adapt(catalogue())


# -- luck, and days in a world


def test_arms_that_adapt_in_the_same_night_share_their_luck_and_with_one_that_does_not() -> None:
    first, second = fitted("codes"), fitted("codes").with_model(fitted("codes").decoder.model)
    other = lp.Generative(seed=2).with_codes(chains(), first.codebook)
    grown = [arm.adapt(catalogue(24)) for arm in (first, second, other)]
    tries = [arm.decoder.trie for arm in grown]
    assert len({trie.version for trie in tries}) == 1
    chance = RowChance(np.array([17], dtype=np.uint64))
    # every path to an old item has the noise that it had before there were new ones
    old_trie, new_trie = first.decoder.trie, tries[0]
    for level in range(old_trie.levels):
        codes = first.codebook.codes  # type: ignore[union-attr]
        leaves = grown[0].index.rows(first.index.ids)
        noise = []
        for trie, at in ((old_trie, np.arange(len(codes))), (new_trie, leaves)):
            node = trie.node_of(level, at)[None, None]
            total = np.zeros((1, 1, len(codes), trie.width))
            noise.append(_noise(chance, trie, level, node, total))
        assert np.array_equal(noise[0], noise[1])
        assert len(np.unique(noise[0])) == len(np.unique(codes[:, :level], axis=0)) * old_trie.width
    contexts = asked(200)
    living = grown[0].decide(contexts, np.random.default_rng(4)).slates.list.first()
    frozen = first.decide(contexts, np.random.default_rng(4)).slates.list.first()
    apart = first.decide(contexts, np.random.default_rng(5)).slates.list.first()
    is_old = living.str.starts_with("i")
    assert (living == frozen).filter(is_old).mean() > 0.8
    assert (living == apart).filter(is_old).mean() < 0.3


def test_a_contexts_slate_does_not_depend_on_the_batch_after_a_night_of_releases() -> None:
    later = fitted("codes").adapt(catalogue(24))
    contexts = asked(12)
    together = later.decide(contexts, np.random.default_rng(3)).slates
    rows = np.array([7, 2, 11])
    assert later.decide(contexts.take(rows), np.random.default_rng(3)).slates.equals(
        together.gather(rows)
    )


@cache
def fitted_in_world() -> lp.Generative:
    return lp.Generative(seed=1, steps=20, exclude="none").fit(lived()[1])


def test_a_world_hands_a_policy_each_days_releases_and_a_frozen_one_none() -> None:
    world = lived()[0]
    policy = fitted_in_world()
    assert isinstance(policy, Adaptive)
    assert not isinstance(Frozen(policy), Adaptive)
    fork = world.fork()
    begin = fork.day
    log = fork.run(policy, days=8)
    decisions = log.decisions.filter(pl.col("policy").str.starts_with("generative"))
    release = dict(zip(world.catalogue.index.ids, world.catalogue.release_I.tolist(), strict=True))
    names = set()
    for day in range(begin, begin + 8):
        today = decisions.filter(pl.col("time").dt.date() == (START + timedelta(days=day)).date())
        released = world.catalogue.frame.filter(pl.Series(world.catalogue.release_I <= day))
        # the version of a day follows from what was released by then, not from the days before it
        names.add(policy.adapt(released).name)
        assert today["policy"].unique().to_list() == [policy.adapt(released).name]
        assert max(release[item] for item in today["slate"].explode().unique()) <= day
    assert len(names) > 3
    shown = decisions["slate"].explode().unique()
    assert max(release[item] for item in shown) > begin
    assert fork.policy is not None
    assert fork.policy.name == policy.adapt(fork.items).name
    frozen = world.fork()
    slates = frozen.run(Frozen(policy), days=8).decisions
    shown = slates.filter(pl.col("policy") == policy.name)["slate"].explode().unique()
    assert max(release[item] for item in shown) <= begin


def test_copies_of_a_world_live_the_same_life_under_a_policy_that_adapts() -> None:
    world = lived()[0]
    policy = fitted_in_world()
    logs = [world.fork().run(policy, days=4) for _ in range(2)]
    assert logs[0].events.equals(logs[1].events)
    assert logs[0].decisions.equals(logs[1].decisions)
    # an experiment's arms take the releases over in the same night, and equal arms are one policy
    experiment = lp.Experiment(control=policy, treatment=policy, salt="living")
    fork = world.fork()
    log = fork.run(experiment, days=4)
    same = ("context_id", "policy", "slate")
    assert log.decisions.select(same).equals(logs[0].decisions.select(same))


# -- other codes


def renumbered(book: Codebook, seed: int) -> Codebook:
    """The codebook with the numbers of every level permuted."""
    rng = np.random.default_rng(seed)
    codes = np.column_stack([rng.permutation(book.width)[column] for column in book.codes.T])
    order = np.lexsort(codes.T[::-1])
    return Codebook(book.items.gather(order), codes[order], book.width, book.available[order])


def test_the_same_codes_and_renumbered_ones_are_the_same_law(policy: lp.Generative) -> None:
    book = policy.codebook
    assert book is not None
    contexts = asked(6)
    was = policy.item_log_prob(contexts)
    same = policy.recoded(book)
    assert same.name == policy.name
    assert np.array_equal(same.item_log_prob(contexts), was)
    other_book = renumbered(book, 1)
    other = policy.recoded(other_book)
    rows = other.index.rows(policy.index.ids)
    assert other.item_log_prob(contexts)[:, rows] == pytest.approx(was, abs=1e-4)
    churn = code_churn(book, other_book)
    assert churn.items == len(book.items)
    assert churn.regrouped == (0.0, 0.0, 0.0)
    assert min(churn.changed) > 0.5
    assert code_churn(book, book).changed == (0.0, 0.0, 0.0)


def loss_of(policy: lp.Generative, lake: Lake) -> float:
    """Mean -log pi of each user's last item given those before it."""
    assert policy.codebook is not None
    histories = histories_from_log(
        lake, policy.index, policy.codebook.available, policy.circumstances
    )
    rows = []
    targets = []
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        ids = policy.index.ids.gather(histories.leaves[start:stop]).to_list()
        rows.append(ids[:-1])
        targets.append([ids[-1]])
    contexts = Contexts.of([f"u{k}" for k in range(len(rows))], NOON, slots=1, history=rows)
    return -float(policy.log_prob(contexts, pl.Series(targets)).mean())


def test_after_a_refit_of_the_codes_training_goes_on_from_what_was_learned() -> None:
    lake = chains()
    others = lake_of_chains(seed=6)  # users that nobody trained on
    index = ItemIndex(lake.items["item_id"])
    refitted = fit_codebook(lake.items["item_id"], item_vectors(lake, index, seed=8), seed=8)
    policy = fitted("codes")
    assert policy.codebook is not None
    assert min(code_churn(policy.codebook, refitted).regrouped) > 0.2
    scratch = replace(policy, steps=10).with_codes(lake, refitted)
    warm = replace(policy, steps=10).recoded(refitted)
    assert warm.curve == ()
    assert loss_of(warm, others) < loss_of(scratch, others) - 0.1
    assert loss_of(warm.train(lake), others) < loss_of(scratch.train(lake), others) - 0.1


def test_other_codes_that_cannot_be_taken_over_are_refused() -> None:
    policy = fitted("codes")
    names = pl.Series(["i0", "i1", "elsewhere"])
    flat = fit_codebook(names, np.eye(3), levels=2, width=4)
    with pytest.raises(DataError, match="2 levels given for a model that speaks 3"):
        policy.recoded(flat)
    foreign = fit_codebook(pl.Series(["a", "b"]), np.eye(2), levels=3, width=4)
    with pytest.raises(DataError, match="none of the 2 items given is among the 48"):
        policy.recoded(foreign)
    with pytest.raises(DataError, match="share no item"):
        code_churn(foreign, fit_codebook(names, np.eye(3), levels=3, width=4))
    # of another width, and with items that it did not know
    wider = fit_codebook(
        pl.Series([f"i{k}" for k in range(40)] + ["n"]), np.eye(41), levels=3, width=16
    )
    p = np.exp(policy.recoded(wider).item_log_prob(asked(4)))
    assert p.sum(axis=1) == pytest.approx(np.ones(4))
    assert p.shape == (4, 41)
