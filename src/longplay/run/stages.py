"""What each stage does. The figures of a stage are its result; its artefacts lie beside them."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from longplay.decisions import contexts_at
from longplay.errors import ConfigError, NotEstimable
from longplay.estimate import Estimate, clustered_mean
from longplay.lake import Lake
from longplay.lake.schema import ENGAGED
from longplay.ranking import Ranker, exposure_metrics, paired_difference, rank_metrics, top_items
from longplay.rewards import AutoSurrogate, DayTwo, EarlyReward, MaturedOnly, ProgressiveReward, Reward
from longplay.rewards.calibration import calibration, compare
from longplay.run.config import RunConfig, midnight
from longplay.run.engine import Stage, Ui, Work, execute
from longplay.run.folder import RunFolder, file_digest
from longplay.signals import Outcomes, Signal
from longplay.signals.future import future_of

MODELS: dict[str, type] = {"progressive": ProgressiveReward, "auto_surrogate": AutoSurrogate, "day_two": DayTwo, "matured_only": MaturedOnly}
_DAY = timedelta(days=1)
DEEPEST = 50  # places of a ranking that are kept


def run_stages(config: RunConfig, *, base: Path, folder: Path | None = None, until: str | None = None, ui: Ui | None = None, now: datetime | None = None) -> dict[str, Path]:
    """Every stage of `config` in order, up to and including `until`; the finished stages' folders by name.

    Args:
        base: where the configuration's relative paths start. folder: the run folder, default `runs/<name>`.
    """
    place = folder if folder is not None else Path(config.run.folder or f"runs/{config.run.name}")
    stages = tuple(stage for stage in STAGES if stage.name != ("ingest" if config.simulate else "simulate"))
    if until is not None and until not in {stage.name for stage in stages}:
        raise ConfigError(f"stage {until!r} is not in this run; it has {', '.join(stage.name for stage in stages)}")
    places = execute(stages, config, base=base, folder=RunFolder(place), until=until, ui=ui, now=now)
    if "report" in places:
        shutil.copyfile(places["report"] / "report.html", place / "report.html")
    return places


# -- ingest, simulate ------------------------------------------------------------------------------


def _source_path(config: RunConfig, base: Path) -> Path:
    if config.ingest is None:
        raise ConfigError("ingest: this run has no [ingest] table")
    path = base / config.ingest.path
    if not path.exists():
        raise ConfigError(f"ingest.path: {path} does not exist; paths are relative to the run.toml")
    return path


def _ingest(work: Work) -> dict[str, Any]:
    from longplay.lake.adapters import read_retail, read_table

    table = work.config.ingest
    assert table is not None  # the stage is only there with the table
    path = _source_path(work.config, work.base)
    bar = work.bar("reading")
    bar(0, 3)
    if table.format == "retail":
        source = read_retail(path)
    else:
        source = read_table(path, table.columns, constants=table.constants, time_format=table.time_format, time_zone=table.time_zone, kinds=table.kinds or None)
    bar(1, 3)
    lake = Lake.open(work.folder / "lake")
    closed = None if table.closed_through is None else midnight(table.closed_through) + _DAY
    appended = lake.append(
        "ingest",
        events=source.events,
        items=source.items,
        rejected=source.rejected,
        watermark=closed,
        now=work.now,
        max_bad_share=table.max_bad_share,
    )
    bar(2, 3)
    notes = list(source.notes)
    if closed is not None:
        last = lake.events["time"].max()
        notes.append(f"{table.closed_through} is taken as complete (closed_through); the last event is at {last:%H:%M} UTC" if isinstance(last, datetime) else "")
    result = _glance(lake) | {
        "source": {"format": table.format, "name": path.name, "rows": source.rows},
        "rejected": dict(appended.rejected),
        "notes": notes,
        "has_origin": source.has_origin,
        "has_decisions": source.has_decisions,
    }
    bar(3, 3)
    return result


def _simulate(work: Work) -> dict[str, Any]:
    world, lake = _world(work)
    on_disk = Lake.open(work.folder / "lake")
    on_disk.append("simulate", events=lake.events, decisions=lake.decisions, contexts=lake.contexts, items=lake.items, watermark=world.now)
    table = work.config.simulate
    assert table is not None
    return _glance(on_disk) | {
        "source": {"format": "simulated world", "name": f"seed {work.config.run.seed}", "rows": on_disk.events.height},
        "rejected": {},
        "notes": [
            f"a simulated service: {table.users:,} users, {table.items:,} items, {table.days} days, seed {work.config.run.seed}; its long-term truth is known",
            f"slates of {table.slate} by a popular policy with {table.explore:.0%} exploration, every propensity logged",
        ],
        "has_origin": True,
        "has_decisions": True,
    }


def _world(work: Work) -> tuple[Any, Lake]:
    """The simulated service and its log; the same for the same configuration."""
    from longplay.policies.simple import Popular
    from longplay.world import World

    table = work.config.simulate
    assert table is not None
    world = World(users=table.users, items=table.items, seed=work.config.run.seed)
    lake = world.run(Popular(slate=table.slate, explore=table.explore), days=table.days, progress=work.bar("simulating days"))
    return world, lake


def _glance(lake: Lake) -> dict[str, Any]:
    """The log at a glance: sizes, daily activity, weekly retention after the first event."""
    events = lake.events
    engaged = events.filter(pl.col("kind").is_in(ENGAGED)).with_columns(day=pl.col("time").dt.date())
    daily = engaged.group_by("day").agg(pl.col("user_id").n_unique().alias("users"), pl.len().alias("events")).sort("day")
    first = engaged.group_by("user_id").agg(pl.col("day").min().alias("first"))
    last_day = lake.watermark.date()
    follow_up = first.select(((pl.lit(last_day) - pl.col("first")).dt.total_days() // 7).alias("weeks"))["weeks"]
    retention = []
    for week in range(0, min(26, int(follow_up.max() or 0)) + 1):  # type: ignore[arg-type]
        eligible = first.filter((pl.lit(last_day) - pl.col("first")).dt.total_days() // 7 >= week)
        came = engaged.join(eligible, on="user_id").filter(((pl.col("day") - pl.col("first")).dt.total_days() + 6) // 7 == week)["user_id"].n_unique()
        if eligible.height >= 20:
            retention.append({"week": week, "share": came / eligible.height, "users": eligible.height})
    return {
        "events": events.height,
        "users": events["user_id"].n_unique(),
        "items": lake.items.height,
        "decisions": lake.decisions.height,
        "quarantined": lake.quarantine.height,
        "first": f"{events['time'].min()}",
        "last": f"{events['time'].max()}",
        "watermark": lake.watermark.isoformat(),
        "kinds": dict(events.group_by("kind").len().sort("kind").iter_rows()),
        "origins": dict(events.group_by("origin").len().sort("origin").iter_rows()),
        "activity": [{"day": day.isoformat(), "users": users, "events": count} for day, users, count in daily.iter_rows()],
        "retention": retention,
    }


# -- outcomes, early rewards -----------------------------------------------------------------------


def _lake(work: Work) -> Lake:
    return Lake.open(work.places["simulate" if work.config.simulate else "ingest"] / "lake")


def _past(work: Work) -> Lake:
    """The log as it was known when training ends."""
    return _lake(work).before(midnight(work.config.split.train_until))


def _outcomes(work: Work) -> dict[str, Any]:
    lake, signals = _lake(work), work.config.declared()
    result = {}
    for done, (name, signal) in enumerate(signals.items()):
        work.ui.progress("signals", done, len(signals))
        outcomes = signal.outcomes(lake)
        known = signal.outcomes(_past(work))
        outcomes.frame.write_parquet(work.folder / f"{name}.parquet")
        result[name] = {
            "label": signal.label,
            "sentence": str(signal),
            "unit": signal.entry.unit,
            "binary": signal.binary,
            "days": signal.days,
            "toml": signal.to_toml(),
            "as_of": outcomes.as_of.isoformat(),
            "entries": len(outcomes),
            "mature": int(outcomes.mature.sum()),
            "truncated": int(outcomes.frame["truncated"].sum()),
            "base_rate": _rate(outcomes),
            "maturity": outcomes.maturity_curve().to_dicts(),
            "at_training": {"as_of": known.as_of.isoformat(), "entries": len(known), "mature": int(known.mature.sum()), "base_rate": _rate(known)},
        }
    work.ui.progress("signals", len(signals), len(signals))
    return result


def _rate(outcomes: Outcomes) -> dict[str, Any] | None:
    return _plain(outcomes.base_rate()) if outcomes.mature.any() else None


def _objectives(config: RunConfig) -> dict[str, Signal]:
    signals = config.declared()
    return {name: signals[name] for name in config.reward.objectives}


def _early(work: Work, past: Lake) -> dict[Signal, EarlyReward]:
    """The configured early reward of each objective, fitted on what was known when training ends."""
    model = MODELS[work.config.reward.model]
    return {signal: model(signal).fit(past, signal.outcomes(past)) for signal in _objectives(work.config).values()}


def _reward_of(config: RunConfig) -> Reward:
    signals = config.declared()
    return Reward({signals[name]: weight for name, weight in config.reward.objectives.items()}, caution=config.reward.caution)


def _reward(work: Work) -> dict[str, Any]:
    lake, past, config = _lake(work), _past(work), work.config
    age, result = config.reward.age, {}
    objectives = _objectives(config)
    total, done = len(objectives) * (2 * len(MODELS) + 1), 0
    for name, signal in objectives.items():
        known = signal.outcomes(past)
        later = signal.outcomes(lake).entered(midnight(config.split.train_until), midnight(config.split.evaluate_until))
        models = {}
        for label, model in MODELS.items():
            models[label] = model(signal).fit(past, known)
            work.ui.progress("early rewards", done := done + 1, total)
        judged = compare(models, known, later.where(later.mature), age)
        work.ui.progress("early rewards", done := done + 1, total)
        checked = {}
        for label, model in MODELS.items():
            try:
                everything = signal.outcomes(lake)
                checked[label] = calibration(model(signal), lake, everything, age, seed=config.run.seed).as_json()
            except NotEstimable as reason:
                checked[label] = {"not_estimable": str(reason)}
            work.ui.progress("early rewards", done := done + 1, total)
        chosen: EarlyReward = models[config.reward.model]
        result[name] = {
            "label": signal.label,
            "chosen": config.reward.model,
            "age": age,
            "known": {"entries": len(known), "mature": int(known.mature.sum())},
            "later": {"entries": len(later), "mature": int(later.mature.sum())},
            "association": chosen.association,
            "comparison": judged.to_dicts(),
            "calibration": checked,
            "beliefs": _extremes(chosen, past, known),
        }
    return result


def _extremes(early: EarlyReward, past: Lake, known: Outcomes, n: int = 8) -> list[dict[str, Any]]:
    """The items (or creators) believed in most and least among those with at least 30 entries."""
    counts = known.keys.value_counts(name="entries").rename({known.keys.name: "key"}).filter(pl.col("entries") >= 30).sort("key")
    if counts.is_empty():
        return []
    belief = early.items(counts["key"])
    titles = past.items.select(pl.col("item_id").alias("key"), "title") if known.signal.entry.of == "item" else None
    table = counts.with_columns(pl.Series("mean", belief.mean), pl.Series("std", belief.std)).sort("mean", "key", descending=[True, False])
    table = table.with_columns(title=pl.col("key")) if titles is None else table.join(titles, on="key", how="left", maintain_order="left")
    return table.head(n).to_dicts() + (table.tail(n).to_dicts() if table.height >= 2 * n else [])


# -- policies --------------------------------------------------------------------------------------


def _codes(work: Work) -> dict[str, Any]:
    from longplay.codes import fit_codebook, item_vectors
    from longplay.decisions import ItemIndex

    past, table = _past(work), work.config.codes
    items = past.items
    vectors = item_vectors(past, ItemIndex(items["item_id"]), seed=work.config.run.seed)
    codebook = fit_codebook(
        items["item_id"], vectors, levels=table.levels, width=table.width, available=items["available"].to_numpy(), seed=work.config.run.seed
    )
    codebook.save(work.folder / "codes.parquet")
    titles = pl.DataFrame({"item_id": codebook.items}).join(items.select("item_id", "title"), on="item_id", how="left", maintain_order="left")["title"]
    prefix, count = np.unique(codebook.codes[:, :2], axis=0, return_counts=True)
    shelves = []
    for place in np.argsort(-count, kind="stable")[:6]:
        inside = np.flatnonzero((codebook.codes[:, :2] == prefix[place]).all(axis=1))
        shelves.append({"prefix": prefix[place].tolist(), "items": int(count[place]), "titles": [titles[int(row)] or codebook.items[int(row)] for row in inside[:6]]})
    return codebook.report | {"version": codebook.trie.version, "shelves": shelves}


def _start(work: Work):
    """The untrained policy over the run's semantic IDs."""
    from longplay.codes import Codebook
    from longplay.policies.generative import Generative

    table = work.config.train
    codebook = Codebook.load(work.places["codes"] / "codes.parquet", work.results["codes"]["width"])
    policy = Generative(scale=table.scale, seed=work.config.run.seed, exclude=table.exclude, steps=table.steps)
    return policy.with_codes(_past(work), codebook)


def _threads(work: Work) -> None:
    import torch

    torch.set_num_threads(work.config.run.threads)


def _train(work: Work) -> dict[str, Any]:
    _threads(work)
    policy = _start(work).train(_past(work), progress=work.bar("training"), checkpoint=work.folder / "checkpoint.safetensors")
    policy.save(work.folder / "policy")
    (work.folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return {"policy": policy.name, "scale": policy.scale, "parameters": policy.decoder.model.num_parameters(), "steps": policy.steps, "curve": list(policy.curve)}


def _reinforce(work: Work) -> dict[str, Any]:
    from longplay.learning.offline import reward_weighted
    from longplay.learning.reinforce import reinforce
    from longplay.policies.generative import Generative

    _threads(work)
    config, past = work.config, _past(work)
    table, reward, early = config.reinforce, _reward_of(config), _early(work, past)
    start = Generative.load(work.places["train"] / "policy")
    shared = {"steps": table.steps, "seed": config.run.seed, "kl": table.kl, "lr": table.lr, "contexts": table.contexts, "slots": table.slots}
    tuned = reinforce(
        start, reward, early, past, **shared, group=table.group,
        progress=work.bar("reinforcing"), checkpoint=work.folder / "reinforce.safetensors",
    )  # fmt: skip
    tuned.save(work.folder / "tuned")
    weighted = reward_weighted(
        start, reward, early, past, **shared,
        progress=work.bar("reward-weighted training"), checkpoint=work.folder / "weighted.safetensors",
    )  # fmt: skip
    weighted.save(work.folder / "weighted")
    for name in ("reinforce", "weighted"):
        (work.folder / f"{name}.safetensors").unlink(missing_ok=True)
    return {
        "policy": tuned.name,
        "reward": reward.version,
        "objectives": {signal.label: weight for signal, weight in reward.objectives.items()},
        "caution": reward.caution,
        "kl_weight": table.kl,
        "curve": list(tuned.curve),
        "weighted": {"policy": weighted.name, "curve": list(weighted.curve)},
    }


# -- evaluation ------------------------------------------------------------------------------------


def _policies(work: Work, past: Lake) -> dict[str, Any]:
    from longplay.policies.generative import Generative
    from longplay.policies.simple import Popular

    return {
        "popular": Popular(slate=work.config.reinforce.slots, explore=0.0).fit(past),
        "start": Generative.load(work.places["train"] / "policy"),
        "reward-weighted": Generative.load(work.places["reinforce"] / "weighted"),
        "reinforced": Generative.load(work.places["reinforce"] / "tuned"),
    }


def _evaluate(work: Work) -> dict[str, Any]:
    _threads(work)
    config, lake, past = work.config, _lake(work), _past(work)
    policies = _policies(work, past)
    result: dict[str, Any] = {"not_estimable": _not_estimable(work)}
    judged = next((signal for signal in _objectives(config).values() if signal.entry.kind == "discovery"), None)
    if judged is None:
        result["not_estimable"]["ranking"] = "no objective is entered by discovery, so nothing says which recommended items would have become habits"
        return result
    future = future_of(
        judged.outcomes(lake), lake, start=midnight(config.split.train_until), end=midnight(config.split.evaluate_until),
        history=policies["start"].history, exclude=config.train.exclude, limit=config.evaluate.visits, seed=config.run.seed,
    )  # fmt: skip
    plays = dict(past.events.filter(pl.col("kind").is_in(ENGAGED) & pl.col("item_id").is_not_null()).group_by("item_id").len().sort("item_id").iter_rows())
    catalogue = past.items.filter(pl.col("available"))["item_id"]
    tops: dict[str, pl.DataFrame] = {}
    rows = []
    for name, policy in policies.items():
        ranker: Ranker = policy
        tops[name] = top_items(ranker, future.contexts, DEEPEST, work.bar(f"ranking: {name}"))
        metrics = rank_metrics(tops[name], future)
        rows += [{"policy": name, "metric": metric, **_plain(estimate)} for metric, estimate in metrics.items()]
        rows += [{"policy": name, "metric": metric, "value": value} for metric, value in exposure_metrics(tops[name], catalogue, plays).items()]
    pairs = [("start", "popular"), ("reinforced", "start"), ("reward-weighted", "start"), ("reinforced", "reward-weighted")]
    differences = [
        {"policy": ours, "than": base, "metric": f"{'habit ' if habit else ''}NDCG@{k}", **_plain(paired_difference(tops[ours], tops[base], future, k, habit=habit))}
        for ours, base in pairs
        for k in (10, 50)
        for habit in (False, True)
    ]
    unknown = ~future.relevant["item_id"].is_in(past.items["item_id"].implode())
    result |= {
        "signal": judged.label,
        "visits": len(future.contexts),
        "users": future.contexts.frame["user_id"].n_unique(),
        "discoveries": future.relevant.height,
        "habits": int((future.relevant["habit"] > 0).sum()),
        "new_to_catalogue": float(unknown.mean() or 0.0),
        "ranking": rows,
        "differences": differences,
    }
    if config.simulate:
        result["true_value"] = _true_values(work, policies, judged)
    return result


def _true_values(work: Work, policies: dict[str, Any], signal: Signal) -> dict[str, Any]:
    """What the world says the policies' slates are worth to its users at the end of the log."""
    world, lake = _world(work)
    alive = world.users.filter(pl.col("alive"))["user_id"].sort()
    rng = np.random.default_rng([work.config.run.seed, 11])
    n = min(work.config.evaluate.true_value_users, len(alive))
    users = alive.gather(np.sort(rng.choice(len(alive), n, replace=False)))
    moments = pl.DataFrame({"user_id": users}).with_columns(time=pl.lit(world.now))
    contexts = contexts_at(lake, moments, slots=work.config.reinforce.slots, history=policies["start"].history, exclude=work.config.train.exclude)
    value_U = {}
    for done, (name, policy) in enumerate(policies.items()):
        work.ui.progress("true values", done, len(policies))
        slates = policy.decide(contexts, np.random.default_rng([work.config.run.seed, 12])).slates
        value_U[name] = world.true_value(contexts.frame["user_id"], slates, signal).mean(axis=1)
    work.ui.progress("true values", len(policies), len(policies))
    what = f"true value of showing per slot ({signal.label})"
    pairs = [("start", "popular"), ("reinforced", "start"), ("reward-weighted", "start"), ("reinforced", "reward-weighted")]
    return {
        "users": n,
        "policies": [{"policy": name, **_plain(clustered_mean(value, estimand=what))} for name, value in value_U.items()],
        "differences": [{"policy": ours, "than": base, **_plain(clustered_mean(value_U[ours] - value_U[base], estimand=f"difference in {what}"))} for ours, base in pairs],
    }


def _not_estimable(work: Work) -> dict[str, str]:
    """What this data (or this version) cannot answer, and why."""
    log = work.results["simulate" if work.config.simulate else "ingest"]
    reasons = {}
    if not log["has_decisions"]:
        reasons["off-policy value"] = "not estimable, this log has no propensities: it holds what people did, not what they were shown and how likely that was"
        reasons["P(entry | shown)"] = "unknown without decisions: the reward is E[outcome | discovery] over items new to the user, an association, not an effect of showing"
    else:
        reasons["off-policy value"] = "not estimated: the propensities are logged, but this version has no off-policy estimators yet"
    if not log["has_origin"]:
        reasons["organic activity"] = "the log has no origin column: all events count as organic, recommended ones included"
    reasons["experiment"] = "no trial was run on this log, so what the policies would do to later activity is not measured"
    return reasons


def _report(work: Work) -> dict[str, Any]:
    from longplay.report import render

    page = render(work.config.run.name, dict(work.results))
    (work.folder / "report.html").write_text(page, encoding="utf-8")
    return {"bytes": len(page.encode()), "page": "report.html"}


def _plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON: value, low and high (95%), n."""
    low, high = estimate.interval()
    finite = np.isfinite(low)
    return {"value": estimate.value, "low": low if finite else None, "high": high if finite else None, "n": estimate.n}


# -- the table of stages ---------------------------------------------------------------------------


def _of(*tables: str):
    """Depends on these tables of the configuration, and on the seed."""

    def depends(config: RunConfig, base: Path) -> Any:
        whole = config.model_dump(mode="json")
        return {table: whole[table] for table in tables} | {"seed": config.run.seed}

    return depends


def _ingest_depends(config: RunConfig, base: Path) -> Any:
    return {"ingest": config.model_dump(mode="json")["ingest"], "file": file_digest(_source_path(config, base))}


def _cell(rows: list[dict[str, Any]], policy: str, metric: str) -> str:
    value = next((row["value"] for row in rows if row["policy"] == policy and row["metric"] == metric), None)
    return "n/a" if value is None else f"{value:.3f}"


def _log_line(result: dict[str, Any]) -> str:
    bad = f", {result['quarantined']:,} rows quarantined" if result["quarantined"] else ""
    return f"{result['events']:,} events of {result['users']:,} users, {result['items']:,} items{bad}"


def _evaluate_line(result: dict[str, Any]) -> str:
    if "ranking" not in result:
        return "nothing to rank: " + result["not_estimable"]["ranking"]
    metric = "habit NDCG@10"
    return f"{metric}: " + ", ".join(f"{name} {_cell(result['ranking'], name, metric)}" for name in ("popular", "start", "reward-weighted", "reinforced"))


def _reward_line(result: dict[str, Any]) -> str:
    return "; ".join(
        f"{one['label']}: {one['chosen']} on {one['known']['mature']:,} mature of {one['known']['entries']:,} entries" for one in result.values()
    )


def _reinforce_line(result: dict[str, Any]) -> str:
    if not result["curve"]:
        return f"{result['policy']}: no steps"
    first, last = result["curve"][0], result["curve"][-1]
    return f"{result['policy']}: reward per slot {first['reward']:.4g} → {last['reward']:.4g}, KL {last['kl']:.2f}"


_LOG = ("ingest", "simulate")
STAGES = (
    Stage("ingest", 1, (), _ingest_depends, _ingest, _log_line),
    Stage("simulate", 1, (), _of("simulate"), _simulate, _log_line),
    Stage("outcomes", 1, _LOG, _of("signals", "split"), _outcomes, lambda r: "; ".join(f"{s['label']} {s['mature']:,} of {s['entries']:,} mature" for s in r.values())),
    Stage("reward", 1, (*_LOG, "outcomes"), _of("signals", "split", "reward"), _reward, _reward_line),
    Stage("codes", 1, _LOG, _of("split", "codes"), _codes, lambda r: f"{r['items']:,} items, {r['levels']} levels of {r['width']} codes"),
    Stage("train", 1, (*_LOG, "codes"), _of("split", "train"), _train, lambda r: f"{r['policy']}: loss {r['curve'][-1]['loss']:.3f} nats per item", resumes=True),
    Stage("reinforce", 1, (*_LOG, "train"), _of("signals", "split", "reward", "reinforce", "train"), _reinforce, _reinforce_line, resumes=True),
    Stage("evaluate", 1, (*_LOG, "train", "reinforce"), _of("signals", "split", "evaluate", "reward", "train"), _evaluate, _evaluate_line),
    Stage("report", 1, (*_LOG, "outcomes", "reward", "codes", "train", "reinforce", "evaluate"), _of(), _report, lambda r: f"{r['bytes'] / 1e6:.1f} MB, open report.html"),
)  # fmt: skip
