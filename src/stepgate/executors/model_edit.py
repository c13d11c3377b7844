"""A file written by a model: asked once for each state of the file, and from then on known by its bytes."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from stepgate.domain import canonical
from stepgate.domain.errors import EditConflict, ModelFailure, ModelUnavailable, NotFound
from stepgate.executors.base import Context
from stepgate.executors.screen import one_line
from stepgate.llm.prompts import EDIT_SCHEMA, edit
from stepgate.llm.protocol import ModelRequest, Purpose
from stepgate.workspace.access import FileContent
from stepgate.workspace.edits import decode_text

MAX_INSTRUCTION_CHARS: Final = 20_000
MAX_REWRITTEN_CHARS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Written:
    """What the model made of the file whose sha256 was `base_sha256` (None: there was none)."""

    content: bytes
    base_sha256: str | None
    action: Mapping[str, Any]
    """`{question, base, content, model}`, the first three by sha256; it stands in the action and in the rendering."""


async def recall(
    context: Context, path: str, instruction: str, present: FileContent | None, holder: Mapping[str, Any]
) -> Written | None:
    """What was written before, as the `written` of an action or rendering tells; None where it does not fit any more.

    Raises IntegrityError for lost bytes.
    """
    written = holder.get("written")
    base = present.sha256 if present else None
    if not isinstance(written, Mapping) or written.get("base") != base:
        return None
    if written.get("question") != _question(context.goal, path, instruction):
        return None
    try:
        content = await asyncio.to_thread(context.blobs.get, str(written.get("content")))
    except NotFound:
        return None
    return Written(content, base, dict(written))


async def write(context: Context, path: str, instruction: str, present: FileContent | None) -> Written:
    """Asks the model; the bytes are durable in the blob store before anybody is shown them.

    Raises EditConflict for a file a model cannot rewrite, ModelFailure, and ModelUnavailable `offline_cannot_write`.
    """
    text = None if present is None else decode_text(present.data, "instruction")
    if text is not None and len(text) > MAX_REWRITTEN_CHARS:
        raise EditConflict(
            f"the file has {len(text)} characters, more than the {MAX_REWRITTEN_CHARS} a model may rewrite",
            field="instruction",
            fix="give edits or a patch instead",
        )
    request = ModelRequest(edit(context.goal, instruction, path, text), Purpose.EDIT, schema=EDIT_SCHEMA)
    try:
        answer = await context.models.complete(request)
    except ModelUnavailable as error:
        raise ModelUnavailable(error.message, code=error.reason_code, field="instruction", fix=error.fix) from error
    if not isinstance(answer.data, Mapping) or not isinstance(answer.data.get("content"), str):
        raise ModelFailure("the answer holds no new text of the file", code="invalid_answer", retryable=True)
    content = answer.data["content"].encode()
    sha256 = await asyncio.to_thread(_keep, context, content)
    base = present.sha256 if present else None
    question = _question(context.goal, path, instruction)
    model = one_line(answer.model) if answer.model else None
    return Written(content, base, {"question": question, "base": base, "content": sha256, "model": model})


def _keep(context: Context, content: bytes) -> str:
    sha256 = context.blobs.put(content)
    context.blobs.sync()
    return sha256


def _question(goal: str, path: str, instruction: str) -> str:
    return canonical.digest(canonical.dumps([goal, path, instruction]))
