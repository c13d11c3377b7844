"""The journal and what checking it showed."""

from typing import Any

from pydantic import Field

from stepgate.domain.states import EventType
from stepgate.engine.views.base import Actor, Id, Sha256, Time, View


class Event(View):
    """One fact of the journal. `hash` is sha256(prev_hash || body), where `body` is the recorded text."""

    seq: int
    type: EventType
    step_id: Id | None
    actor: Actor
    at: Time
    data: dict[str, Any]
    body: str = Field(description="the hashed text: canonical JSON of the whole event")
    prev_hash: Sha256
    hash: Sha256


class Verification(View):
    """Whether a run's journal holds: the chain, its head, and the tables it stands for."""

    run_id: Id
    verified: bool
    events: int
    head_hash: Sha256
    first_bad_seq: int | None
    reason: str | None
