"""Next-item training: what a batch holds, when it stops, that dropping out and sharing the work
change nothing they should not."""

from __future__ import annotations

import os
import sys
from collections import Counter
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import fork
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from longplay.codes.trie import Allowed, Trie
from longplay.errors import ConfigError
from longplay.policies.generative.circumstances import Circumstances, CircumstanceTokens
from longplay.policies.generative.decoder import Decoder, Size, new_model
from longplay.policies.generative.prompts import Windows
from longplay.policies.generative_policy import Generative
from longplay.policies.training.descent import Team, Watch, descend, dropped_out, optimizers_of
from longplay.policies.training.histories import Histories, Questions
from longplay.policies.training.muon import DECAY, Muon, orthogonal
from longplay.policies.training.next_item import (
    mean_loss,
    ndcg_of,
    negative_log_prob,
    positions,
    train_next_items,
)

torch.set_num_threads(1)

ITEMS, WIDTH = 40, 8
SMALL = Size(hidden=16, layers=1, heads=2, inner=32, history=6)


def codes() -> np.ndarray:
    return np.array([[k // WIDTH, k % WIDTH] for k in range(ITEMS)])


def fresh(seed: int = 0) -> Decoder:
    return Decoder(new_model(SMALL, 2, WIDTH, seed), Trie.build(codes(), WIDTH))


def histories(users: int = 200, seed: int = 0) -> Histories:
    """After item k comes k + 1 in nine cases of ten; a fifth of the users is held out."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in rng.integers(2, 20, users):
        items = [int(rng.integers(ITEMS))]
        while len(items) < length:
            items.append(
                (items[-1] + 1) % ITEMS if rng.random() < 0.9 else int(rng.integers(ITEMS))
            )
        rows.append(items)
    return Histories(
        np.cumsum([0, *map(len, rows)]), np.concatenate(rows), np.arange(users) % 5 == 0
    )


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40),
    st.integers(1, 9),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_an_epoch_has_every_event_of_the_chosen_users_once(
    counts: list[int], length: int, size: int, seed: int
) -> None:
    offsets = np.cumsum([0, *counts])
    log = Histories(offsets, np.arange(offsets[-1]), np.zeros(len(counts), dtype=bool))
    users = np.arange(0, len(counts), 2)
    own = {leaf: user for user in users for leaf in range(offsets[user], offsets[user + 1])}
    for_every_epoch, batches = len(own), log.batches(users, length, size, seed)
    for _ in range(2):
        seen = Counter[int]()
        while seen.total() < for_every_epoch:
            windows = next(batches)
            leaves, real = windows.leaves, windows.real
            assert leaves.shape == real.shape
            assert leaves.shape[0] <= size
            assert leaves.shape[1] <= length
            assert (leaves[~real] == 0).all()
            for row, there in zip(leaves, real, strict=True):
                window = row[there].tolist()
                assert not there[len(window) :].any()
                assert len({own[leaf] for leaf in window}) == 1
                assert all(later == leaf + 1 for leaf, later in pairwise(window))
                seen.update(window)
        assert set(seen.values()) == {1}
        assert set(seen) == set(own)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.integers(1, 9),
    st.floats(0.05, 0.8),
    st.integers(0, 5),
)
def test_a_thinned_log_has_some_of_the_events_in_their_order_with_what_stands_around_them(
    counts: list[int], length: int, share: float, seed: int
) -> None:
    offsets = np.cumsum([0, *counts])
    event = np.arange(offsets[-1])
    circumstance_tokens = CircumstanceTokens(
        event[:, None] + 1,
        np.zeros((len(event), 0), dtype=np.int64),
        np.zeros((len(counts), 1), dtype=np.int64),
    )
    log = Histories(
        offsets,
        event,
        np.zeros(len(counts), dtype=bool),
        Circumstances(("kind",)),
        circumstance_tokens,
        event % 3,
    )
    thin = log.thinned(share, np.random.default_rng(seed))
    assert thin.circumstance_tokens is not None
    assert thin.want is not None
    assert [thin.leaves[a:b].tolist() for a, b in pairwise(thin.offsets)] == [
        [leaf for leaf in range(a, b) if leaf in set(thin.leaves.tolist())]
        for a, b in pairwise(offsets)
    ]
    assert thin.circumstance_tokens.leading[:, 0].tolist() == (thin.leaves + 1).tolist()
    assert thin.want.tolist() == (thin.leaves % 3).tolist()
    if len(thin.leaves):
        plain = Histories(offsets, event, log.validation_users)
        windows = next(plain.batches(np.arange(len(counts)), length, 10_000, seed, share))
        assert windows.real.any(axis=1).all()
        seen = windows.leaves[windows.real]
        assert len(set(seen.tolist())) == len(seen)


def test_every_epoch_leaves_out_other_events() -> None:
    log = Histories(np.array([0, 5_000]), np.arange(5_000), np.zeros(1, dtype=bool))
    one, two = (
        set(windows.leaves[windows.real].tolist())
        for windows in islice(log.batches(np.arange(1), 10_000, 1, 0, thin=0.3), 2)
    )
    assert len(one) == pytest.approx(3_500, abs=200)
    assert len(one & two) == pytest.approx(2_450, abs=200)


def test_short_histories_are_not_cut_and_cuts_move_from_epoch_to_epoch() -> None:
    log = Histories(np.array([0, 5, 25]), np.arange(25), np.zeros(2, dtype=bool))
    first = set()
    for windows in islice(log.batches(np.arange(2), 5, 1, 0), 60):
        window = windows.leaves[windows.real].tolist()
        if window[0] < 5:
            assert window == [0, 1, 2, 3, 4]
        else:
            first.add(window[0])
    assert len(first) > 10


def test_batches_follow_from_the_seed_and_hold_windows_of_like_length() -> None:
    log = histories(2_000)
    everybody = np.arange(2_000)
    one, two, other = (list(islice(log.batches(everybody, 7, 16, seed), 40)) for seed in (1, 1, 2))
    assert all(np.array_equal(a.leaves, b.leaves) for a, b in zip(one, two, strict=True))
    assert not all(
        a.leaves.shape == b.leaves.shape and np.array_equal(a.leaves, b.leaves)
        for a, b in zip(one, other, strict=True)
    )
    assert np.mean([windows.real.mean() for windows in one]) > 0.9


def test_last_items_are_asked_after_all_before_them() -> None:
    log = Histories(np.array([0, 3, 4, 6]), np.array([7, 8, 9, 1, 2, 3]), np.ones(3, dtype=bool))
    asked = Questions.last_items(
        log, np.arange(3)
    )  # the second user has one item: nothing comes before it
    assert asked.target.tolist() == [9, 3]
    assert asked.offsets.tolist() == [0, 2, 3]
    assert asked.leaves.tolist() == [7, 8, 2]
    few = asked.sample(1, 0)
    assert len(few) == 1
    assert few.leaves.tolist() == {9: [7, 8], 3: [2]}[int(few.target[0])]
    assert asked.sample(2, 0) is asked


def test_positions_are_those_of_the_enumerated_law() -> None:
    decoder, log = fresh(), histories(60)
    asked = Questions.last_items(log, np.arange(60))
    place, unseen = (
        positions(decoder, asked, SMALL.history, beams=ITEMS, k=ITEMS, unseen=unseen)
        for unseen in (False, True)
    )
    again = 0
    for row in range(0, len(asked), 7):
        before = asked.take(np.array([row])).leaves
        kept = np.concatenate(
            [np.repeat(before[None, -SMALL.history :], ITEMS, axis=0), np.arange(ITEMS)[:, None]],
            axis=1,
        )
        with torch.no_grad():
            law = np.array(
                [-float(negative_log_prob(decoder, Windows.of(one[None]))) for one in kept]
            )  # up to what all share
            others = Allowed.of(decoder.trie, np.array([0, len(before)]), before)
            without = np.array(
                [
                    float(decoder.sequence_log_prob(Windows.of(one[None]), others)[0, -1])
                    for one in kept
                ]
            )
        target = int(asked.target[row])
        assert place[row] == 1 + int((law > law[target] + 1e-6).sum())
        again += int(target in before)
        assert unseen[row] == (
            0 if target in before else 1 + int((without > without[target] + 1e-6).sum())
        )
    assert 0 < again < 9
    assert ndcg_of(np.array([0, 1, 3])).tolist() == [0, 1, 0.5]
    assert (positions(decoder, asked, SMALL.history, k=5)[place > 5] == 0).all()


def test_training_learns_and_keeps_the_best_check() -> None:
    decoder, log = fresh(), histories()
    curve = train_next_items(decoder, log, steps=60, history=6, batch=32, lr=1e-2, check_every=10)
    assert [row["step"] for row in curve] == [10, 20, 30, 40, 50, 60]
    assert curve[-1]["validation"] < np.log(ITEMS) - 0.7
    assert "ndcg" not in curve[0]  # forty held-out users are too few to choose by


def test_with_enough_questions_ndcg_chooses() -> None:
    log = histories(1_500)
    asked = Questions.last_items(log, np.arange(1_500))
    decoder = fresh()
    curve = train_next_items(
        decoder, log, steps=40, history=6, batch=32, lr=1e-2, check_every=10, questions=asked
    )
    assert curve[-1]["ndcg"] > 0.5 > curve[0]["ndcg"]
    best = max(row["ndcg"] for row in curve)
    assert float(ndcg_of(positions(decoder, asked, 6)).mean()) == best


def test_it_stops_when_nothing_gets_better_and_the_best_weights_stay() -> None:
    decoder = fresh()
    figures = iter([3.0, 2.0, 1.0, 1.5, 1.2, 9.0, 9.0, 9.0])
    weights: list[torch.Tensor] = []

    def measure() -> dict[str, float]:
        weights.append(torch.nn.utils.parameters_to_vector(decoder.model.parameters()).clone())
        return {"validation": next(figures)}

    leaves = np.arange(12).reshape(2, 6)
    curve = descend(
        decoder,
        lambda step: negative_log_prob(decoder, Windows.of(leaves)),
        Watch(measure, patience=2),
        steps=80,
        lr=1e-2,
        seed=0,
        check_every=10,
    )
    assert [row["validation"] for row in curve] == [3.0, 2.0, 1.0, 1.5, 1.2]
    assert torch.equal(torch.nn.utils.parameters_to_vector(decoder.model.parameters()), weights[2])


def test_dropping_out_is_by_its_own_seed_and_leaves_no_trace() -> None:
    decoder, leaves = fresh(), np.arange(12).reshape(2, 6)

    def loss() -> float:
        with torch.no_grad():
            return float(negative_log_prob(decoder, Windows.of(leaves)))

    plain = loss()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    found = []
    for seed in (1, 1, 2):
        with dropped_out(decoder, 0.3, [seed]):
            found.append(loss())
    assert torch.equal(torch.rand(1), expected)
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert plain == loss()
    assert plain not in found
    many = []
    for seed in range(400):
        with dropped_out(decoder, 0.02, [seed]):
            many.append(loss())
    assert np.mean(many) == pytest.approx(plain, rel=0.02)  # what is left is scaled up


def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    for size in (1, 2):
        env = {
            "ACCELERATE_USE_CPU": "true",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29517",
            "WORLD_SIZE": str(size),
        }
        said = [tmp_path / f"{size}-{rank}.txt" for rank in range(size)]
        jobs = [
            fork(
                __file__,
                [str(tmp_path / f"{size}-{rank}.safetensors")],
                said[rank],
                env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(size)
        ]
        try:
            for job in jobs:
                job.join(120)
        finally:
            for job in jobs:
                job.kill()
        assert [job.exitcode for job in jobs] == [0] * size, [file.read_text() for file in said]
    alone, first, second = (
        load_file(tmp_path / f"{name}.safetensors")["weights"] for name in ("1-0", "2-0", "2-1")
    )
    start = torch.nn.utils.parameters_to_vector(fresh().model.parameters()).detach()
    assert torch.equal(first, second)
    assert float((alone - start).norm()) > 1
    assert float((alone - first).norm()) < 1e-3 * float((alone - start).norm())


def test_shares_of_a_team_add_up_to_the_whole_loss() -> None:
    log, decoder = histories(), fresh()
    windows = next(log.batches(np.arange(200), 7, 33, 0))
    with torch.no_grad():
        parts = [
            negative_log_prob(decoder, windows.part(slice(rank, None, 4))) for rank in range(4)
        ]
        whole = float(negative_log_prob(decoder, windows))
    assert float(torch.stack(parts).sum()) == pytest.approx(whole, rel=1e-6)
    assert negative_log_prob(decoder, windows.part(slice(0))).detach() == 0
    assert Team.of_launcher() == Team(0, 1)


@pytest.mark.parametrize("shape", [(32, 32), (16, 48), (48, 16)])
def test_muon_takes_the_steps_of_torchs_in_single_precision(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = (
        Muon([ours], lr=0.02),
        torch.optim.Muon([theirs], lr=0.02, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        grad = torch.randn(shape)
        for weight, optimizer in zip((ours, theirs), optimizers, strict=True):
            weight.grad = grad.clone()
            optimizer.step()
    moved, expected = (ours - start).detach(), (theirs - start).detach()
    assert float((moved - expected).norm() / expected.norm()) < 0.02  # theirs rounds to bfloat16
    exact = orthogonal(torch.randn(shape).double())
    assert exact.dtype == torch.float64
    sizes = torch.linalg.svdvals(exact)
    assert 0.6 < float(sizes.min()) <= float(sizes.max()) < 1.3


def test_muon_trains_the_matrices_of_the_layers_and_adamw_the_rest() -> None:
    decoder = fresh()
    adamw, muon = optimizers_of(decoder, decoder.trainable(), "muon", 1e-2, 0.0)
    names = {id(one): name for name, one in decoder.model.named_parameters()}
    by_muon = {names[id(one)] for group in muon.param_groups for one in group["params"]}
    by_adamw = {names[id(one)] for group in adamw.param_groups for one in group["params"]}
    assert by_muon == {
        f"model.layers.0.{part}_proj.weight"
        for part in (
            "self_attn.q",
            "self_attn.k",
            "self_attn.v",
            "self_attn.o",
            "mlp.gate",
            "mlp.up",
            "mlp.down",
        )
    }
    assert by_muon | by_adamw == set(names.values())
    assert not by_muon & by_adamw
    assert [
        type(one) for one in optimizers_of(decoder, decoder.trainable(), "adamw", 1e-2, 0.0)
    ] == [torch.optim.AdamW]
    before = mean_loss(decoder, [next(histories().batches(np.arange(200), 7, 100, 0))])
    paces: list[dict[str, float]] = []
    train_next_items(
        decoder,
        histories(),
        steps=40,
        history=6,
        batch=33,
        lr=1e-2,
        optimizer="muon",
        progress=lambda step, of, figures: paces.append(figures),
    )
    assert mean_loss(decoder, [next(histories().batches(np.arange(200), 7, 100, 0))]) < before - 0.3
    assert all(one["tokens_per_second"] > 0 and one["seconds_left"] >= 0 for one in paces)
    assert decoder.tokens_read > 40 * 33 * 2
    with pytest.raises(ConfigError, match="optimizer='sgd' given, expected one of adamw, muon"):
        optimizers_of(decoder, decoder.trainable(), "sgd", 1e-2, 0.0)
    with pytest.raises(ConfigError, match="optimizer='sgd' given"):
        Generative(optimizer="sgd")


@pytest.mark.parametrize("size", [{"hidden": 6, "heads": 4}, {"layers": 0}, {"history": 0}])
def test_impossible_sizes_are_refused(size: dict[str, int]) -> None:
    with pytest.raises(
        ConfigError, match="expected positive numbers, hidden a multiple of 2 x heads"
    ):
        Size(**({"hidden": 16, "layers": 1, "heads": 2, "inner": 32, "history": 6} | size))
    with pytest.raises(ConfigError, match=r"dropout=1\.0 given"):
        Generative(dropout=1.0)


if __name__ == "__main__":  # one process of a team
    trained = fresh()
    place = Path(sys.argv[1]).parent / f"state-{os.environ['WORLD_SIZE']}.safetensors"
    train_next_items(
        trained,
        histories(),
        steps=25,
        history=6,
        batch=33,
        lr=1e-2,
        check_every=10,
        checkpoint=place,
    )
    from safetensors.torch import save_file

    save_file(
        {"weights": torch.nn.utils.parameters_to_vector(trained.model.parameters()).detach()},
        sys.argv[1],
    )
