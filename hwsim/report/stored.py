"""What a report reads: a results folder, whole or with its kernels missing."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from hwsim.errors import InputError, Problem
from hwsim.study.results import StudyResults, card_from, read_results
from hwsim.study.store import CASES, KERNELS, RUN
from hwsim.study.tables import read_table


def read_stored(folder: Path) -> StudyResults:
    """The results in ``folder``; without kernels.parquet an empty frame stands for it."""
    if (folder / KERNELS).exists():
        return read_results(folder)
    cases = read_table(folder / CASES)
    if cases is None or not (folder / RUN).exists():
        raise InputError(Problem("no results in this folder", str(folder), expected="a folder that hwsim run wrote"))
    record = json.loads((folder / RUN).read_text("utf-8"))
    cards = {label: card_from(system) for label, system in record["systems"].items()}
    return StudyResults(folder, cases.to_pandas(), pd.DataFrame(), cards, record)
