"""Stage `audit`: was the early reward true?"""

from __future__ import annotations

from longplay.experiments import Experiment
from longplay.lake import Lake
from longplay.policies.simple import Uniform
from longplay.results.audit_figures import ArmAudit, AuditResult
from longplay.run.engine import LEARNERS, Stage, Work, depends_on
from longplay.run.stages.experiment import ExperimentTable, experiment_of
from longplay.run.stages.reward import RewardTable, early_of, rewards_of


def run(work: Work) -> AuditResult:
    """Audit the early reward of each treatment, and write each audit as TOML next to the report."""
    import torch

    from longplay.audits import audit

    torch.set_num_threads(work.config.run.threads)
    config = work.config
    table = config.of(ExperimentTable)
    if table.logged is not None:
        lake = work.lake
        experiment = Experiment.logged(lake, table.logged, control=table.control)
    else:
        lake = Lake.open(work.places["experiment"] / "lake")
        nobody = Uniform()  # who decided for an arm does not matter here, only who was in it
        experiment = experiment_of(table, nobody, dict.fromkeys(table.arms, nobody))
    models = early_of(work)
    star = config.declared()[table.north_star]
    arms: dict[str, ArmAudit] = {}
    for done, arm in enumerate(experiment.treatments):
        work.ui.progress("audits", done, len(experiment.treatments))
        paid = {
            config.declared()[name]
            for name in rewards_of(config).get(arm, config.of(RewardTable).objectives)
        }
        early = {signal: model for signal, model in models.items() if signal in paid}
        checked = audit(
            early,
            experiment,
            lake,
            north_star=star,
            margin=table.margin,
            age=table.age,
            treatment=arm,
        )
        (work.folder / f"audit-{arm}.toml").write_text(checked.to_toml())
        arms[arm] = checked.figures()
    work.ui.progress("audits", len(experiment.treatments), len(experiment.treatments))
    return AuditResult(arms)


def _line(result: AuditResult) -> str:
    return "; ".join(
        f"{arm}: {verdict.recommendation} {verdict.signal.split('@')[0]}"
        for arm, audit in result.arms.items()
        for verdict in audit.verdicts
    )


STAGE = Stage(
    name="audit",
    order=110,
    version=3,
    help="Was the early reward true? Early estimate, matured outcome and north star of the experiment; "
    "keep, reweight, drop or undecided.",
    applies=lambda config: config.find(ExperimentTable) is not None,
    needs=("ingest", "simulate", "reinforce", "experiment"),
    depends=depends_on("signals", "split.train_until", "reward", "experiment"),
    run=run,
    line=_line,
    libraries=LEARNERS,
    loads=("torch", "longplay.audits", "longplay.rewards.guardrails"),
)
