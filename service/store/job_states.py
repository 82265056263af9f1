"""The state machine of jobs, as one table. `service.store.jobs` makes no other changes of state, and docs/jobs.md draws them.

A new action is a word in `Action`, its arrows in `TRANSITIONS`, a query in `service.store.jobs` and a row in docs/jobs.md.
`paused` waits for such actions: no arrow leads to it.
"""

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

Action = Literal["claim", "extend", "report", "succeed", "fail", "cancel", "acknowledge", "give_back", "take_back", "give_up"]

INITIAL: State = "queued"

# What is not in here does not happen. A running job is cancelled in two steps: a client asks, its worker acknowledges.
TRANSITIONS: Mapping[tuple[State, Action], State] = {
    ("queued", "claim"): "running",
    ("queued", "cancel"): "cancelled",
    ("running", "extend"): "running",
    ("running", "report"): "running",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "cancel"): "running",
    ("running", "acknowledge"): "cancelled",
    ("running", "give_back"): "queued",
    ("running", "take_back"): "queued",
    ("running", "give_up"): "failed",
    ("paused", "cancel"): "cancelled",
    ("cancelled", "cancel"): "cancelled",
}

FINAL: tuple[State, ...] = tuple(
    state for state in get_args(State) if all(new == state for (old, _), new in TRANSITIONS.items() if old == state)
)
"""The states that no job leaves."""


def sources(action: Action) -> list[State]:
    """The states that an action starts from."""
    return [state for state, each in TRANSITIONS if each == action]
