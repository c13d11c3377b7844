"""Sends what the outbox holds, for as long as this process lives; several processes share the work."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

import structlog

from stepgate import __version__
from stepgate.domain.errors import StepgateError
from stepgate.domain.webhooks import Format, retry_s, sign
from stepgate.engine.webhooks.messages import message
from stepgate.engine.webhooks.posting import DEADLINE_S, Answer, Poster
from stepgate.storage.webhooks import Due, Webhooks

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
EACH: Final = 4
"""How many messages one webhook's receiver gets at a time."""
MOST: Final = 64
HELD_S: Final = 4 * DEADLINE_S
"""After which time another sender takes up what this one took and never reported."""
STOP_S: Final = 3.0
FORGET_S: Final = 3600.0
GONE: Final = 410


class Sender:
    """`wanted` is whether there was any webhook when it last looked."""

    def __init__(
        self,
        webhooks: Webhooks,
        poster: Poster,
        *,
        url: str | None,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._webhooks = webhooks
        self._poster = poster
        self._url = url
        self._look_s = look_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._sending: dict[asyncio.Task[None], str] = {}
        self._forgot = float("-inf")
        self._woken = asyncio.Event()
        self._stopping = False
        self.wanted = False

    async def start(self) -> None:
        """Twice changes nothing. Raises DatabaseUnavailable."""
        if self._task is None:
            self._stopping = False
            self.wanted = await self._webhooks.any()
            self._task = asyncio.create_task(self._run(), name="stepgate-webhooks")

    async def stop(self) -> None:
        """What is under way has a moment to come to its end; else another process sends it again."""
        if self._task is not None:
            self._stopping = True  # a cancellation at the very end of a wait gets lost before Python 3.12
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        if self._sending:
            _, late = await asyncio.wait(set(self._sending), timeout=STOP_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._poster.aclose()

    def wake(self) -> None:
        """There may be something to send."""
        self._woken.set()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._look()
            except StepgateError as error:
                log.warning("webhooks wait for the database", error=str(error))
            except Exception:
                log.exception("looking for webhooks to send failed")
            self._woken.clear()
            try:
                await asyncio.wait_for(self._woken.wait(), self._look_s)
            except TimeoutError:
                continue

    async def _look(self) -> None:
        self.wanted = await self._webhooks.any()
        if not self.wanted:
            return
        now = time.monotonic()
        if now - self._forgot > FORGET_S:
            self._forgot = now
            await self._webhooks.forget()
        if len(self._sending) >= MOST:
            return
        for due in await self._webhooks.take(EACH, HELD_S, set(self._sending.values())):
            task = asyncio.create_task(self._send(due), name=f"stepgate-webhook-{due.id}")
            self._sending[task] = due.webhook_id
            task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._sending.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a webhook's attempt was not recorded and will be made again", error=str(error))
        self._woken.set()

    async def _send(self, due: Due) -> None:
        row = await self._webhooks.told(due.run_id, due.seq)
        if row is None:
            await self._record(due, Answer(None, "the event is no longer kept", 0), last=True)
            return
        body = message(row, Format(due.format), self._url)
        timestamp = int(self._clock())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"Stepgate/{__version__}",
            "webhook-id": due.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": sign(due.secret, due.id, timestamp, body),
        }
        answer = await self._poster.post(due.url, headers, body)
        await self._record(due, answer, last=answer.status == GONE)
        if answer.status == GONE:
            await self._webhooks.disable(due.webhook_id, "the receiver answered 410 Gone")

    async def _record(self, due: Due, answer: Answer, *, last: bool) -> None:
        again = None
        if not answer.arrived and not last:
            again = retry_s(due.attempts, random.random(), answer.retry_after_s)  # noqa: S311 - spreads load
        status = "delivered" if answer.arrived else "failed" if again is None else "pending"
        await self._webhooks.said(
            due,
            status=status,
            retry_s=again,
            http_status=answer.status,
            error=answer.error,
            duration_ms=answer.duration_ms,
        )
