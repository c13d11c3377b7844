"""The page about states says what the tables say."""

from docs import generate_states
from stepgate.domain.states import EventType, RunStatus, StepStatus


def test_the_page_is_what_the_tables_generate() -> None:
    assert generate_states.PAGE.read_text(encoding="utf-8") == generate_states.page(), "run docs/generate_states.py"


def test_every_state_and_event_has_one_sentence() -> None:
    for enum in (RunStatus, StepStatus, EventType):
        said = generate_states.sentences(enum)
        assert set(said) == {member.value for member in enum}
        assert all(text.endswith(".") and "|" not in text for text in said.values())
