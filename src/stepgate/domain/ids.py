"""Identifiers: canonical lower-case UUIDv7 text, so that one value serves SQL, JSON and hashing unchanged."""

from typing import NewType

import uuid_utils

RunId = NewType("RunId", str)
StepId = NewType("StepId", str)
RequestId = NewType("RequestId", str)
ChangeSetId = NewType("ChangeSetId", str)
WorkspaceId = NewType("WorkspaceId", str)
WorkerId = NewType("WorkerId", str)
CallId = NewType("CallId", str)


def new_id() -> str:
    """A new UUIDv7 (RFC 9562) as canonical text; ids made later sort later."""
    return str(uuid_utils.uuid7())
