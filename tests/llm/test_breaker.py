"""A router that fails again and again is left alone, then tried once."""

import pytest

from stepgate.domain.errors import ModelFailure
from stepgate.llm.breaker import FAILURES, FIRST_REST_S, LONGEST_REST_S, Breaker
from stepgate.llm.protocol import ModelAnswer, ModelRequest, OnText, RouterHealth
from tests.llm.captures import ask


class Scripted:
    """Answers, or fails with the code given."""

    name, default_model = "scripted", None

    def __init__(self) -> None:
        self.failing: str | None = "model_server_error"
        self.calls = 0

    def blocked(self) -> ModelFailure | None:
        return None

    def asks(self, request: ModelRequest) -> str | None:
        return self.default_model

    async def complete(self, request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        self.calls += 1
        if self.failing is not None:
            raise ModelFailure("no", code=self.failing, retryable=True)
        return ModelAnswer(text="yes", model="m", latency_ms=1)

    async def check(self) -> RouterHealth:
        return RouterHealth("ok", "scripted answers")

    async def aclose(self) -> None:
        return None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def router() -> Scripted:
    return Scripted()


@pytest.fixture
def breaker(router: Scripted, clock: Clock) -> Breaker:
    return Breaker(router, clock)


async def failed(breaker: Breaker) -> ModelFailure:
    with pytest.raises(ModelFailure) as caught:
        await breaker.complete(ask())
    return caught.value


async def open_it(breaker: Breaker) -> None:
    for _ in range(FAILURES):
        assert (await failed(breaker)).reason_code == "model_server_error"


async def test_after_failures_in_a_row_no_call_is_let_through(breaker: Breaker, router: Scripted) -> None:
    await open_it(breaker)
    blocked = await failed(breaker)
    assert (blocked.reason_code, blocked.retryable, blocked.billed) == ("model_circuit_open", True, False)
    assert blocked.retry_after_s == FIRST_REST_S
    assert router.calls == FAILURES


async def test_its_rest_over_one_call_is_tried_and_closes_it(breaker: Breaker, router: Scripted, clock: Clock) -> None:
    await open_it(breaker)
    clock.now += FIRST_REST_S
    router.failing = None
    assert (await breaker.complete(ask())).text == "yes"
    assert breaker.blocked() is None


async def test_a_trial_that_fails_rests_twice_as_long_up_to_a_bound(
    breaker: Breaker, router: Scripted, clock: Clock
) -> None:
    await open_it(breaker)
    rests = []
    for _ in range(6):
        blocked = breaker.blocked()
        assert blocked is not None
        assert blocked.retry_after_s is not None
        rests.append(blocked.retry_after_s)
        clock.now += blocked.retry_after_s
        assert (await failed(breaker)).reason_code == "model_server_error"
    assert rests == [10, 20, 40, 80, LONGEST_REST_S, LONGEST_REST_S]


@pytest.mark.parametrize("code", ["model_rate_limited", "model_auth", "model_answer_cut", "model_request_refused"])
async def test_a_router_that_answers_at_all_is_not_broken(breaker: Breaker, router: Scripted, code: str) -> None:
    router.failing = code
    for _ in range(3 * FAILURES):
        assert (await failed(breaker)).reason_code == code


async def test_only_failures_in_a_row_count(breaker: Breaker, router: Scripted) -> None:
    for _ in range(3):
        for _ in range(FAILURES - 1):
            await failed(breaker)
        router.failing = None
        await breaker.complete(ask())
        router.failing = "model_timeout"
    assert breaker.blocked() is None


async def test_while_one_call_tries_no_other_is_let_through(breaker: Breaker, router: Scripted, clock: Clock) -> None:
    await open_it(breaker)
    clock.now += FIRST_REST_S
    seen: list[ModelFailure | None] = []

    async def look(request: ModelRequest, on_text: OnText | None = None) -> ModelAnswer:
        seen.append(breaker.blocked())
        return ModelAnswer(text="yes", model="m", latency_ms=1)

    router.complete = look  # type: ignore[method-assign]
    await breaker.complete(ask())
    assert [one and one.reason_code for one in seen] == ["model_circuit_open"]
    assert breaker.blocked() is None
