"""A router that fails again and again is left alone for a while, so that runs wait instead of paying for failures."""

import time
from collections.abc import Callable
from typing import Final

from stepgate.domain.errors import ModelFailure
from stepgate.llm.protocol import ModelAnswer, ModelRequest, ModelRouter, OnText, RouterHealth

FAILURES: Final = 5
"""So many failures of the router itself in a row open the circuit."""
FIRST_REST_S: Final = 10.0
LONGEST_REST_S: Final = 120.0
_ITS_FAULT: Final = frozenset(
    {"model_unreachable", "model_connection_lost", "model_timeout", "model_server_error", "model_answer_unreadable"}
)


class Breaker:
    """A `ModelRouter` around another. Closed it passes every call on; open, none; after its rest it lets one try."""

    def __init__(self, router: ModelRouter, clock: Callable[[], float] = time.monotonic) -> None:
        self._router = router
        self._clock = clock
        self._failures = 0
        self._rest_s = FIRST_REST_S
        self._closed_until = 0.0
        self._trying = False

    @property
    def name(self) -> str:
        return self._router.name

    @property
    def default_model(self) -> str | None:
        return self._router.default_model

    def blocked(self) -> ModelFailure | None:
        """Why no call is let through now, with the time to wait."""
        left = self._closed_until - self._clock()
        if self._failures < FAILURES or (left <= 0 and not self._trying):
            return None
        return ModelFailure(
            f"the model router failed {self._failures} times in a row and is left alone for a while",
            code="model_circuit_open",
            retryable=True,
            retry_after_s=max(left, 1.0),
            billed=False,
            fix="see the state of the router in /health",
        )

    def asks(self, request: ModelRequest) -> str | None:
        return self._router.asks(request)

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        """As the router's own; raises ModelFailure `model_circuit_open` without calling it while it is left alone."""
        if (blocked := self.blocked()) is not None:
            raise blocked
        trial = self._failures >= FAILURES
        self._trying |= trial
        try:
            answer = await self._router.complete(request, on_text)
        except ModelFailure as failure:
            self._note(its_fault=failure.reason_code in _ITS_FAULT)
            raise
        finally:
            if trial:
                self._trying = False
        self._note(its_fault=False)
        return answer

    def _note(self, *, its_fault: bool) -> None:
        """Any answer, a refusal too, shows that the router lives."""
        if not its_fault:
            self._failures, self._rest_s = 0, FIRST_REST_S
            return
        self._failures += 1
        if self._failures >= FAILURES:
            self._closed_until = self._clock() + self._rest_s
            self._rest_s = min(self._rest_s * 2, LONGEST_REST_S)

    async def check(self) -> RouterHealth:
        """As the router's own: it is asked even while it is left alone."""
        return await self._router.check()

    async def aclose(self) -> None:
        await self._router.aclose()
