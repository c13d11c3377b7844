"""Always allow this: from a question that was looked at to a rule that lets such an action pass."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import Field

from stepgate.domain import canonical, references
from stepgate.domain.errors import Conflict, InvalidValue, StaleApproval
from stepgate.domain.identity import in_rules
from stepgate.domain.ids import RunId, StepId
from stepgate.domain.policy.action import Action, Ruling
from stepgate.domain.policy.always import Proposed, propose
from stepgate.domain.state import ApprovalStatus
from stepgate.engine import views
from stepgate.engine.policies import CURRENT, Policies, PolicyDetail
from stepgate.engine.shapes import moment
from stepgate.executors.registry import Registry
from stepgate.storage.committer import Committer
from stepgate.storage.database import Database
from stepgate.storage.steps import Steps
from stepgate.workspace.layers.layer import WORKSPACE

FOR_DAYS: Final = 30
MOST_DAYS: Final = 366


class AllowRule(views.View):
    """The rule that would let an action like this pass from now on, exactly as it would be added."""

    request_id: str
    rule: dict[str, Any] = Field(description="as a policy file holds it")
    scope: list[str] = Field(description="what it lets pass, and what not")
    until: views.Time
    policy_version: str = Field(description="the version that it would be added to; send it as `replaces`")
    policy_source: str = Field(description="file: it can only be added by hand, to that file")


class Always:
    """Rules from questions, in one installation."""

    def __init__(self, database: Database, committer: Committer, registry: Registry, policies: Policies) -> None:
        self._clock = database.clock
        self._steps = Steps(database)
        self._committer = committer
        self._registry = registry
        self._policies = policies

    async def show(self, asked: views.Approval, by: str, until: datetime | None, *, anyone: bool) -> AllowRule:
        """The rule, and nothing is changed.

        Raises Conflict `cannot_allow` where no rule can allow such an action, InvalidValue by field.
        """
        standing = await self._policies.get(CURRENT)
        proposed, over = await self._propose(asked, standing, until, anyone=anyone, by=by)
        return AllowRule(
            request_id=asked.request_id,
            rule=dict(proposed.rule),
            scope=list(proposed.scope),
            until=moment(over) or "",
            policy_version=standing.version,
            policy_source=standing.source,
        )

    async def add(
        self,
        asked: views.Approval,
        by: str,
        *,
        action_hash: str,
        until: datetime | None,
        anyone: bool,
        replaces: str | None,
    ) -> PolicyDetail:
        """Adds the rule to the rules of now, as a version of its own; the question itself stays open.

        Raises what `show` raises, StaleApproval where the hash is not that question's, Conflict `policy_from_file`, and
        `policy_changed` where other rules became current since `replaces`.
        """
        if asked.action_hash != action_hash:
            raise StaleApproval("this hash is not the action that the question is about", field="action_hash")
        standing = await self._policies.get(CURRENT)
        proposed, _ = await self._propose(asked, standing, until, anyone=anyone, by=by)
        if replaces not in (None, standing.version):
            raise Conflict(
                "other rules became current meanwhile",
                code="policy_changed",
                field="replaces",
                fix="look at the rule again",
                details={"version": standing.version},
            )
        return await self._policies.apply(proposed.document, by, standing.version)

    async def _propose(
        self, asked: views.Approval, standing: PolicyDetail, until: datetime | None, *, anyone: bool, by: str
    ) -> tuple[Proposed, datetime]:
        now = self._clock.now()
        present = datetime.fromtimestamp(now / 1e6, UTC)
        over = (until or present + timedelta(days=FOR_DAYS)).replace(microsecond=0)
        if not present < over <= present + timedelta(days=MOST_DAYS):
            raise InvalidValue(
                f"must lie in the next {MOST_DAYS} days", field="until", fix="name a time to come, RFC 3339"
            )
        action = await self._action(asked)
        why = f"always allowed by {by}: approval {asked.request_id} of run {asked.run_id}"
        micros = round(over.timestamp() * 1_000_000)
        return propose(
            standing.document, action, now=now, until=micros, anyone=anyone, why=why, workspace=WORKSPACE
        ), over

    async def _action(self, asked: views.Approval) -> Action:
        """The action as policy was asked about it, as far as its question tells."""
        run_id, step_id = RunId(asked.run_id), StepId(asked.step_id)
        state = await self._committer.load(run_id)
        step = state.steps[step_id]
        latest = step.approval
        if latest is None or latest.request_id != asked.request_id or latest.status not in _LOOKED_AT:
            raise Conflict(
                "the step is not asked about, or asked about something else now",
                code="not_awaiting_approval",
                field="request_id",
                fix="name the question that waits",
            )
        value = canonical.loads(await self._steps.input(run_id, step_id))
        executor = self._registry.get(step.spec.type)
        if references.has_references(value):
            raise Conflict(
                "its input is made of what other steps gave, which may be something else next time",
                code="cannot_allow",
                field="request_id",
                fix="approve it each time",
            )
        params = executor.params.model_validate(value)
        reach = executor.reach(params)
        shown = asked.rendering or {}
        if executor.sandboxed:
            level = (shown.get("sandbox") or {}).get("level")
            reach = replace(reach, executable=shown.get("executable"), resolved=True, sandbox_level=level)
        requester, *others = state.authors(step)
        return Action(
            executor=step.spec.type,
            default=Ruling(step.spec.gate.value),
            insists=step.spec.insists or executor.always_asks(params),
            reach=reach,
            labels=state.info.labels,
            requester=in_rules(state.info.tenant, requester),
            others=tuple(in_rules(state.info.tenant, one) for one in others),
        )


_LOOKED_AT: Final = (ApprovalStatus.OPEN, ApprovalStatus.APPROVED)
