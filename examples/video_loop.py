"""The loop of docs/design.md in the video app: `python examples/video_loop.py`.

A signal, an early reward, an experiment and its audit, in a service that longplay did not write;
then the truth that the experiment estimates.
"""

from __future__ import annotations

from video_adapter import VideoService

import longplay as lp
from longplay.audits import Audit
from longplay.experiments import Readout
from longplay.world import PairedTruth, check_simulator, paired_truth

FAN = lp.Signal("fan", entry=lp.discovery(novel_for=14), measure=lp.days_with("creator") >= 1, window=(1, 7))
ACTIVE = lp.Signal("active", entry=lp.enrolment(), measure=lp.active_days(), window=(1, 14))


def loop(service: VideoService) -> tuple[Readout, Audit, PairedTruth]:
    """Learn an early reward, try a policy in an experiment, audit the reward, and ask for the truth."""
    lake = service.run(lp.Popular(slate=4, explore=0.3), days=35)
    early = lp.ProgressiveReward(FAN).fit(lake, FAN.outcomes(lake))
    popular = lp.Popular(slate=4, explore=0.1).fit(lake)
    uniform = lp.Uniform(slate=4).fit(lake)
    # before the experiment: copies of the service live on under either policy
    truth = paired_truth(service, {"control": popular, "treatment": uniform}, [ACTIVE, FAN])
    trial = lp.Experiment(control=popular, treatment=uniform, salt="2026-03")
    lake = service.run(trial, days=37)
    return trial.analyze(lake, [ACTIVE, FAN]), lp.audit(early, trial, lake, north_star=ACTIVE), truth


if __name__ == "__main__":
    print(check_simulator(VideoService(users=100)))
    for result in loop(VideoService(users=400)):
        print(f"\n{result}")
