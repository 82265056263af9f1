"""Malicious files, through watched inspecting processes: nothing happens but an answer."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from attacks.attack import Attack, Watched, all_attacks
from attacks.reduce import ATTACKS

EVERY = [(f"{module}: {attack.title}", attack) for module, group in all_attacks().items() for attack in group]
GROWN_BYTES = 2**28


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    with Watched() as processes:
        yield processes


@pytest.mark.parametrize("attack", [row[1] for row in EVERY], ids=[row[0] for row in EVERY])
def test_nothing_happens_but_an_answer(watched: Watched, tmp_path: Path, attack: Attack) -> None:
    outcome = watched.carry_out(attack, tmp_path)
    assert outcome.answer
    assert outcome.events == []
    assert outcome.left == []
    assert outcome.grown_bytes < max(GROWN_BYTES, 4 * (tmp_path / "upload").stat().st_size)


# Has the reader call what a pickle names, as Python's own would.
BROKEN = "import os; from service.inspection import constructors; constructors._TABLE['posix.system'] = os.system"


def test_the_watch_sees_what_a_process_does(tmp_path: Path) -> None:
    with Watched(BROKEN) as processes:
        outcome = processes.carry_out(ATTACKS[0], tmp_path)
    assert any(event.startswith("os.system") for event in outcome.events)
