"""`decide_policy(policy, action, now)`: the one place where rules become a verdict. Pure; `deny > ask > allow`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from stepgate.domain.policy.action import Action, Ruling
from stepgate.domain.policy.matching import Asked, Fit, fit
from stepgate.domain.policy.model import Rule
from stepgate.domain.quorum import ANYBODY, Quorum, strictest

BUILTIN_VERSION = "builtin-1"
ALWAYS = "gate:ask"
"""Named where the plan, or what a command is given, wants a person asked whatever rules allow."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Loaded rules. `text` is the canonical document and `version` its sha256; of the built-in defaults a mere name."""

    rules: tuple[Rule, ...] = ()
    version: str = BUILTIN_VERSION
    text: str = field(default="", repr=False)


BUILTIN = Policy()
"""What holds where nobody wrote a policy: each executor's own gate."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What may happen to an action, and by which rules of which policy; what follows `preview` is for `ask`."""

    gate: Ruling
    rules: tuple[str, ...]
    version: str
    preview: bool = False
    expires_ms: int | None = None
    on_expiry: Literal["reject", "pause"] = "reject"
    required: Quorum = ANYBODY

    @property
    def denied(self) -> bool:
        return self.gate is Ruling.DENY


@dataclass(frozen=True, slots=True)
class Open:
    """A rule that may still match, when what it is about is known."""

    rule: str
    verdict: Ruling
    fit: Fit
    about_change: bool


def decide_policy(policy: Policy, action: Action, now: int) -> Verdict:
    """The verdict on an action before it starts, and on its change where that is known already.

    `now`, in microseconds, says which rules are over. The strictest rule that fits wins. Without one it is the
    executor's own gate. A rule that asks or denies and whose facts nobody knows makes it `ask`; one that allows counts
    only where it fits beyond doubt.
    """
    fits = _fits(policy, action, now)
    sure = [rule for rule, how in fits if how is Fit.YES]
    gate = max((rule.verdict for rule in sure), key=_strictness, default=action.default)
    doubted = [rule for rule, how in fits if how is Fit.MAYBE and rule.verdict is not Ruling.ALLOW]
    deciding = [rule for rule in sure if rule.verdict is gate]
    if gate is Ruling.ALLOW and doubted:
        gate, deciding = Ruling.ASK, doubted
    elif gate is Ruling.ASK:
        deciding += doubted
    names = _names(deciding) or (f"default:{action.executor}",)
    if gate is Ruling.ALLOW and action.insists:
        gate, names = Ruling.ASK, (ALWAYS,)
    return _verdict(policy, gate, names, deciding, sure)


def review_change(policy: Policy, action: Action, now: int) -> Verdict:
    """The verdict on a computed change before it is applied: by rules about changes alone.

    The others were asked before the start; where no rule is about this change, nothing more is asked.
    """
    fits = _fits(policy, action, now, about_change=True)
    sure = [rule for rule, how in fits if how is Fit.YES]
    gate = max((rule.verdict for rule in sure), key=_strictness, default=Ruling.ALLOW)
    deciding = [rule for rule in sure if rule.verdict is gate]
    doubted = [rule for rule, how in fits if how is Fit.MAYBE and rule.verdict is not Ruling.ALLOW]
    if gate is Ruling.ALLOW and doubted:
        gate, deciding = Ruling.ASK, doubted
    return _verdict(policy, gate, _names(deciding), deciding, sure)


def open_rules(policy: Policy, action: Action, now: int) -> tuple[Open, ...]:
    """Rules that may yet match this action, by name."""
    fits = _fits(policy, action, now)
    open_ = ((rule, how) for rule, how in fits if how in (Fit.MAYBE, Fit.LATER))
    found = [Open(rule.name, rule.verdict, how, rule.match.about_change) for rule, how in open_]
    return tuple(sorted(found, key=lambda one: one.rule))


def _fits(policy: Policy, action: Action, now: int, *, about_change: bool = False) -> list[tuple[Rule, Fit]]:
    asked = Asked(action)
    rules = (rule for rule in policy.rules if rule.until is None or now < rule.until)
    return [(rule, fit(rule, asked)) for rule in rules if rule.match.about_change or not about_change]


def _verdict(
    policy: Policy, gate: Ruling, names: tuple[str, ...], deciding: Sequence[Rule], sure: Sequence[Rule]
) -> Verdict:
    """Only a rule that fits beyond doubt has something run before the question."""
    if gate is not Ruling.ASK:
        return Verdict(gate, names, policy.version)
    wanted = [rule.approvals for rule in deciding if rule.approvals is not None]
    previews = {rule.approvals.preview for rule in sure if rule.approvals is not None}
    previews |= {approvals.preview for approvals in wanted if approvals.preview is False}
    expiries = [approvals.expires for approvals in wanted if approvals.expires is not None]
    return Verdict(
        gate,
        names,
        policy.version,
        preview=True in previews and False not in previews,
        expires_ms=min(expiries, default=None),
        on_expiry="pause" if {approvals.on_expiry for approvals in wanted} - {None} == {"pause"} else "reject",
        required=strictest(approvals.quorum for approvals in wanted),
    )


def _strictness(ruling: Ruling) -> int:
    return ruling.strictness


def _names(rules: Iterable[Rule]) -> tuple[str, ...]:
    return tuple(sorted({rule.name for rule in rules}))
