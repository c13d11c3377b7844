"""A model's answer as it is kept, so that a run can be replayed, and its question answered again, without the model."""

from typing import Any

from stepgate.domain import canonical
from stepgate.domain.errors import IntegrityError
from stepgate.llm.protocol import ModelAnswer

_FORMAT = 1


def body_of(answer: ModelAnswer) -> bytes:
    """Everything of the answer that anybody acts on, as canonical JSON."""
    return canonical.dumps(
        {
            "v": _FORMAT,
            "text": answer.text.encode("utf-8", "replace").decode(),
            "data": answer.data,
            "model": answer.model,
            "finish_reason": answer.finish_reason,
        }
    )


def answer_from(body: bytes, **more: Any) -> ModelAnswer:
    """The answer again, with what else is known of it; raises IntegrityError for what is none."""
    value = canonical.loads(body)
    try:
        if value["v"] != _FORMAT:
            raise IntegrityError(f"an answer of the unknown format {value['v']!r}")
        kept = {name: value[name] for name in ("text", "data", "model", "finish_reason")}
    except (KeyError, TypeError) as error:
        raise IntegrityError(f"not a recorded answer: {error}") from error
    return ModelAnswer(**kept, latency_ms=0, **more)
