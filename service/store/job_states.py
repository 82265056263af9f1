"""The state machine of jobs, as one table.

`service.store.jobs` makes only the changes of state in this table, and docs/jobs.md draws them. A new action needs a word in
`Action`, its transitions in `TRANSITIONS`, a query in `service.store.jobs`, and a row and arrows in docs/jobs.md. No transition
leads to `paused`, because no action pauses a job.
"""

from collections.abc import Mapping
from typing import Literal, get_args

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

Action = Literal["claim", "extend", "report", "succeed", "fail", "cancel", "acknowledge", "give_back", "take_back", "give_up"]

INITIAL: State = "queued"

# From (state, action) to the new state. An action is impossible in a state without an entry. A running job is cancelled in two
# steps: `cancel` records that a client asked, `acknowledge` ends the job.
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
"""The final states: no transition leads from one of them to another state. A job in a final state is over."""


def sources(action: Action) -> list[State]:
    """The states in which an action is possible."""
    return [state for state, each in TRANSITIONS if each == action]
