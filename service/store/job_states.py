"""The state machine of jobs, as one table.

`service.store.jobs` makes only the changes of state in this table, and docs/jobs.md draws them. A new action needs a word in
`Action`, its transitions in `TRANSITIONS`, a query in `service.store.jobs`, and a row and arrows in docs/jobs.md.
"""

from collections.abc import Mapping
from typing import Literal

State = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

Action = Literal[
    "claim",
    "extend",
    "report",
    "succeed",
    "fail",
    "cancel",
    "acknowledge",
    "pause",
    "suspend",
    "resume",
    "retry",
    "give_back",
    "take_back",
    "give_up",
]

INITIAL: State = "queued"

# From (state, action) to the new state. An action is impossible in a state without an entry. A running job is cancelled in two
# steps: `cancel` records that a client asked, `acknowledge` ends the job. It is paused in two steps too: `pause`, `suspend`.
# What a client asks for twice stays as it is.
TRANSITIONS: Mapping[tuple[State, Action], State] = {
    ("queued", "claim"): "running",
    ("queued", "cancel"): "cancelled",
    ("running", "extend"): "running",
    ("running", "report"): "running",
    ("running", "succeed"): "succeeded",
    ("running", "fail"): "failed",
    ("running", "cancel"): "running",
    ("running", "acknowledge"): "cancelled",
    ("queued", "pause"): "paused",
    ("running", "pause"): "running",
    ("paused", "pause"): "paused",
    ("running", "suspend"): "paused",
    ("paused", "resume"): "queued",
    ("queued", "resume"): "queued",
    ("running", "resume"): "running",
    ("failed", "retry"): "queued",
    ("cancelled", "retry"): "queued",
    ("queued", "retry"): "queued",
    ("running", "retry"): "running",
    ("running", "give_back"): "queued",
    ("running", "take_back"): "queued",
    ("running", "give_up"): "failed",
    ("paused", "cancel"): "cancelled",
    ("cancelled", "cancel"): "cancelled",
}

FINAL: tuple[State, ...] = ("succeeded", "failed", "cancelled")
"""The final states. A job in a final state is over, unless a client retries it."""


def sources(action: Action) -> list[State]:
    """The states in which an action is possible."""
    return [state for state, each in TRANSITIONS if each == action]
