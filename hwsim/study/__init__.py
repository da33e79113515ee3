"""Studies: many cases from one YAML file, stored as they finish, resumed where they stopped."""

from hwsim.study.results import StudyResults, read_results
from hwsim.study.runner import Preview, Progress, StudyRun, preview_study, run_study

__all__ = ["Preview", "Progress", "StudyResults", "StudyRun", "preview_study", "read_results", "run_study"]
