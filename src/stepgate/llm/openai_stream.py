"""A chat completion that comes as server-sent events, put together again into one answer."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from stepgate.domain.errors import ModelFailure
from stepgate.llm.openai_wire import content
from stepgate.llm.wire import error_message_of, parse_json, text_of

_END: Final = b"[DONE]"
_KEPT: Final = ("id", "model", "provider", "system_fingerprint", "usage")


class Assembly:
    """Takes the events in order. `body` collects the fields that every chunk repeats, `usage` from the last."""

    def __init__(self) -> None:
        self.body: dict[str, Any] = {}
        self.finish_reason: str | None = None
        self.ended = False
        self._parts: list[str] = []
        self._refusal: list[str] = []

    @property
    def text(self) -> str:
        return content("".join(self._parts))

    @property
    def refusal(self) -> str | None:
        return text_of("".join(self._refusal))

    @property
    def whole(self) -> bool:
        """Whether the answer came to its end; some servers leave out the last line, none the reason."""
        return self.ended or self.finish_reason is not None

    def take(self, data: bytes) -> str:
        """The text that this event adds; raises ModelFailure for an error in it, InvalidValue for what is no chunk."""
        if data.strip() == _END:
            self.ended = True
            return ""
        chunk = parse_json(data)
        if chunk.get("error") is not None:
            # After the 200 there is no status to classify by; part of the answer was made and may be billed.
            raise ModelFailure(
                f"the answer broke off: {error_message_of(chunk) or 'the router reports an error'}",
                code="model_stream_broken",
                retryable=True,
            )
        self.body |= {name: chunk[name] for name in _KEPT if chunk.get(name) is not None}
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, Mapping):
            return ""
        self.finish_reason = text_of(choice.get("finish_reason")) or self.finish_reason
        delta = choice.get("delta")
        if not isinstance(delta, Mapping):
            return ""
        if isinstance(refusal := delta.get("refusal"), str):
            self._refusal.append(refusal)
        added = content(delta.get("content"))
        self._parts.append(added)
        return added


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event of a text/event-stream; comments and other fields are passed over."""
    rest = bytearray()
    data: list[bytes] = []
    async for chunk in chunks:
        searched = len(rest)
        rest += chunk
        if rest.find(b"\n", searched) < 0:
            continue
        *lines, last = bytes(rest).split(b"\n")
        rest = bytearray(last)
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data)
                data = []
    if rest.startswith(b"data:"):
        data.append(bytes(rest[5:]).strip())
    if data:
        yield b"\n".join(data)
