"""Shows people what running commands print, without ever keeping a command or a commit waiting for it."""

import asyncio
import codecs
import contextlib
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from stepgate.domain.errors import StepgateError
from stepgate.domain.ids import StepId
from stepgate.executors.screen import visible
from stepgate.storage.live import Chunk, OutputChunks, Place, Upto

log = structlog.get_logger(__name__)

GATHER_S = 0.1
"""How long what is printed gathers; a command that ends sooner costs no write."""
PENDING_BYTES = 64 * 1024
"""What one step may gather between two writes; more is counted and not shown."""
SHOWN_CHARS = 512 * 1024
"""What stays of one step; the oldest goes first."""
CHUNK_BYTES = 16 * 1024
PIECES = 200
"""How often what one step prints between two writes may go from one stream to the other."""
AGAIN_S = 1.0
_RETURNS = re.compile("\r\n?")


class _Said(NamedTuple):
    """A chunk with the bytes it stands for, which are lost to people where it cannot be written."""

    chunk: Chunk
    bytes: int


@dataclass(slots=True)
class _Tail:
    """What one attempt has printed and is not written yet, and what is written of it."""

    place: Place
    pending: list[tuple[str, bytearray]] = field(default_factory=list)
    size: int = 0
    unshown: int = 0
    last: str = "stdout"
    ends_line: bool = True
    decoders: dict[str, codecs.IncrementalDecoder] = field(default_factory=dict)
    written: deque[tuple[int, int]] = field(default_factory=deque)
    chars: int = 0

    def take(self, stream: str, data: bytes) -> None:
        # What is left out stands at one place, so nothing after it is taken before that is said.
        kept = b"" if self.unshown else data[: PENDING_BYTES - self.size]
        if not self.pending or self.pending[-1][0] != stream or len(self.pending[-1][1]) >= CHUNK_BYTES:
            if kept and len(self.pending) < PIECES:
                self.pending.append((stream, bytearray()))
            else:
                kept = b""
        if kept:
            self.pending[-1][1].extend(kept)
            self.size += len(kept)
        self.unshown += len(data) - len(kept)
        self.last = stream

    def texts(self) -> Iterator[tuple[str, str, int]]:
        """(stream, text, bytes) of all that is pending, which it then is no longer."""
        pending, unshown = self.pending, self.unshown
        self.pending, self.size, self.unshown = [], 0, 0
        for stream, data in pending:
            if stream not in self.decoders:
                self.decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
            text = self.decoders[stream].decode(bytes(data))
            if text:
                self.ends_line = text.endswith("\n")
                # On a screen a carriage return would write over the line: what is printed over shows as lines instead.
                yield stream, visible(_RETURNS.sub("\n", text), len(text)), len(data)
        if unshown:
            self.decoders.clear()
            begin = "" if self.ends_line else "\n"
            self.ends_line = True
            yield self.last, f"{begin}… {unshown} bytes not shown live\n", unshown

    def note(self, chunk: Chunk) -> None:
        self.written.append((chunk.seq, len(chunk.text)))
        self.chars += len(chunk.text)

    def outgrown(self) -> int | None:
        """The number up to which chunks are too many; None while there is room."""
        seq = None
        while self.chars > SHOWN_CHARS:
            seq, chars = self.written.popleft()
            self.chars -= chars
        return seq


class LiveOutput:
    """For one event loop: `take` and `end` return at once, a task of its own writes and removes.

    `now` is the database's time in microseconds.
    """

    def __init__(self, chunks: OutputChunks, now: Callable[[], int]) -> None:
        self._chunks = chunks
        self._now = now
        self._tails: dict[StepId, _Tail] = {}
        self._ended: dict[StepId, Upto] = {}
        self._stirred = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._seq = 0
        self._stopping = asyncio.Event()

    def start(self) -> None:
        self._stopping.clear()
        self._writing = asyncio.create_task(self._write_on(), name="stepgate-live-output")

    async def stop(self) -> None:
        """After the last step has ended; what is left is removed first."""
        self._stopping.set()
        self._stirred.set()
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
            self._writing = None
        await self._chunks.close()

    def take(self, place: Place, stream: str, data: bytes) -> None:
        """What a command printed just now; `stream` is `stdout`, `stderr`, or `model` for an answer."""
        tail = self._tails.get(place.step_id)
        if tail is None or tail.place != place:
            self.end(place.step_id)
            tail = self._tails[place.step_id] = _Tail(place)
        tail.take(stream, data)
        self._stirred.set()

    def end(self, step_id: StepId) -> None:
        """The attempt is over: what was written of it is removed, what was not never will be."""
        tail = self._tails.pop(step_id, None)
        if tail is not None and tail.written:
            self._ended[step_id] = Upto(tail.place.run_id, step_id, tail.written[-1][0])
            self._stirred.set()

    async def _write_on(self) -> None:
        while self._ended or not self._stopping.is_set():
            await self._stirred.wait()
            await self._pause(GATHER_S)
            self._stirred.clear()
            try:
                await self._flush()
            except StepgateError as error:
                log.info("live output is not shown", error=str(error))
                if self._stopping.is_set():
                    return
                self._stirred.set()
                await self._pause(AGAIN_S)
            except Exception:
                log.exception("live output failed")
                self._ended.clear()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _flush(self) -> None:
        said = [one for tail in list(self._tails.values()) for one in self._said(tail)]
        if said:
            await self._write(said)
        outgrown = [
            Upto(tail.place.run_id, tail.place.step_id, seq)
            for tail in self._tails.values()
            if (seq := tail.outgrown()) is not None
        ]
        ended = dict(self._ended)
        if outgrown or ended:
            await self._chunks.forget([*outgrown, *ended.values()])
        for step_id, upto in ended.items():
            if self._ended.get(step_id) == upto:
                del self._ended[step_id]

    def _said(self, tail: _Tail) -> Iterator[_Said]:
        for stream, text, size in tail.texts():
            self._seq = max(self._seq + 1, self._now())
            yield _Said(Chunk(tail.place, self._seq, stream, text), size)

    async def _write(self, said: list[_Said]) -> None:
        # Noted before, so that the end of a step meanwhile removes what is on its way.
        for one in said:
            tail = self._tails.get(one.chunk.place.step_id)
            if tail is not None:
                tail.note(one.chunk)
        try:
            await self._chunks.write([one.chunk for one in said])
        except StepgateError:
            for one in said:
                tail = self._tails.get(one.chunk.place.step_id)
                if tail is not None and tail.place == one.chunk.place:
                    tail.unshown += one.bytes
            raise
