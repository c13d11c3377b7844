from dataclasses import replace
from typing import Any

import pytest

from stepgate.llm.offline import OfflineModel
from stepgate.llm.openai import OpenAIRouter
from stepgate.llm.protocol import Message, ModelRequest, ModelRouter, Purpose, Role, request_hash

REQUEST = ModelRequest((Message(Role.SYSTEM, "s"), Message(Role.USER, "u")), model="m", schema={"b": 1, "a": 2})


def test_the_hash_of_a_request_is_pinned() -> None:
    """Recorded calls are found again by it, so it must never change for the same question."""
    assert request_hash(REQUEST) == "384bc383205f4a703fdcf769a73e213e974a72b8821d2bd25b1a117f9815b954"


@pytest.mark.parametrize("change", [{"timeout_s": 5.0}, {"purpose": Purpose.EDIT}, {"schema": {"a": 2, "b": 1}}])
def test_what_does_not_shape_the_answer_is_not_hashed(change: dict[str, Any]) -> None:
    assert request_hash(replace(REQUEST, **change)) == request_hash(REQUEST)


@pytest.mark.parametrize(
    "change",
    [
        {"messages": (Message(Role.USER, "s"), Message(Role.USER, "u"))},
        {"messages": (Message(Role.SYSTEM, "su"), Message(Role.USER, ""))},
        {"model": None},
        {"tier": "m"},
        {"schema": None},
        {"max_output_tokens": 1},
    ],
)
def test_what_shapes_the_answer_is_hashed(change: dict[str, Any]) -> None:
    assert request_hash(replace(REQUEST, **change)) != request_hash(REQUEST)


def test_both_clients_are_routers() -> None:
    routers: list[ModelRouter] = [OfflineModel(), OpenAIRouter("http://h", None, "m")]
    assert [(router.name, router.default_model) for router in routers] == [
        ("offline", "offline-extractive-v1"),
        ("openai", "m"),
    ]
