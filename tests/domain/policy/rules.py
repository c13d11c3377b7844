"""Short ways to write rules and actions in tests."""

from typing import Any

from stepgate.domain.policy import decide
from stepgate.domain.policy.action import Action, Change, Reach, Ruling
from stepgate.domain.policy.decide import Open, Policy, Verdict
from stepgate.domain.policy.reading import policy_of

NOW = 1_700_000_000_000_000


def decide_policy(policy: Policy, action: Action, now: int = NOW) -> Verdict:
    return decide.decide_policy(policy, action, now)


def review_change(policy: Policy, action: Action, now: int = NOW) -> Verdict:
    return decide.review_change(policy, action, now)


def open_rules(policy: Policy, action: Action) -> tuple[Open, ...]:
    return decide.open_rules(policy, action, NOW)


def rule(verdict: str, name: str = "r", approvals: dict[str, Any] | None = None, **match: Any) -> dict[str, Any]:
    more = {} if approvals is None else {"approvals": approvals}
    return {"name": name, "match": match, "verdict": verdict, **more}


def policy(*rules: dict[str, Any]) -> Policy:
    return policy_of({"version": 1, "rules": list(rules)})


def command(*argv: str, text: str | None = None, executable: str | None = "", **more: Any) -> Action:
    """A command whose program was found in /usr/bin, unless told otherwise."""
    if executable == "":
        executable = None if text is not None else argv[0] if argv[0].startswith("/") else f"/usr/bin/{argv[0]}"
    env = more.pop("env", ())
    reach = Reach(
        argv=None if text is not None else argv,
        shell=text,
        executable="/bin/sh" if text is not None else executable,
        resolved=True,
        sandbox_level="bwrap-full",
        env=env,
        planned_env=more.pop("planned_env", env),
        stdin=more.pop("stdin", False),
        paths=more.pop("paths", ()),
    )
    return Action("run_command", more.pop("default", Ruling.ASK), reach=reach, **more)


def edit(path: str, **more: Any) -> Action:
    reach = Reach(paths=(path,), complete=True)
    return Action("edit_file", Ruling.ASK, reach=reach, change=Change((path,)), **more)


def gate(action: Action, *rules: dict[str, Any]) -> str:
    return verdict(action, *rules).gate.value


def verdict(action: Action, *rules: dict[str, Any]) -> Verdict:
    return decide_policy(policy(*rules), action)
