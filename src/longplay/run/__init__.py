"""From a run.toml to a report: strict configuration, stages, a run folder that skips and
resumes."""

from longplay.run.config import RunConfig, load_config
from longplay.run.folder import RunFolder
from longplay.run.runner import run_stages
from longplay.run.stages import STAGES

__all__ = ["STAGES", "RunConfig", "RunFolder", "load_config", "run_stages"]
