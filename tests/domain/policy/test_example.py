"""The example at the root of the project is one: it loads, its examples hold, and it does what it says."""

from dataclasses import replace
from pathlib import Path

from stepgate.domain.policy.action import Change
from stepgate.domain.policy.reading import read_policy
from stepgate.executors.registry import BUILTIN
from tests.domain.policy.rules import command, decide_policy, edit, review_change

FILE = Path(__file__).parents[3] / "stepgate.policy.example.yaml"


def test_the_example_turns_previews_on_where_the_sandbox_is_whole() -> None:
    policy = read_policy(FILE.read_bytes(), FILE.name, [executor.type for executor in BUILTIN])
    whole = decide_policy(policy, command("ls"))
    assert (whole.gate.value, whole.preview) == ("ask", True)
    weaker = command("ls")
    weaker = replace(weaker, reach=replace(weaker.reach, sandbox_level="bwrap-noproc"))
    assert decide_policy(policy, weaker).preview is False
    assert decide_policy(policy, edit("src/app.py")).rules == ("default:edit_file",)
    assert decide_policy(policy, edit("config/.env")).denied
    many = Change(tuple(f"f{number}" for number in range(51)))
    assert review_change(policy, command("ls", change=many)).rules == ("ask-about-large-changes",)
