"""A small campaign of faults, one of each kind. `python -m bench.faults` runs a large one."""

from argparse import Namespace
from pathlib import Path

from bench.campaign.faults import FAULTS
from bench.faults import campaign


def test_jobs_survive_a_fault_of_each_kind(tmp_path: Path) -> None:
    row, broken = campaign(
        tmp_path,
        Namespace(seed=1, kinds=sorted(FAULTS), faults=len(FAULTS), jobs=4, steps=1000, pause=0.1, cap=2, workers=2, flood=0),
    )
    assert broken == []
    assert row["faults"] == row["kinds"] == len(FAULTS)
