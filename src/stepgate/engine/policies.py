"""The rules in force: read from the file or the table, recorded before anything goes by them, looked at again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import structlog
from pydantic import Field

from stepgate.domain import canonical
from stepgate.domain.errors import Conflict, DatabaseUnavailable, InvalidPolicy, InvalidValue, NotFound
from stepgate.domain.policy.decide import BUILTIN, Policy
from stepgate.engine.policy_file import SETTING
from stepgate.engine.shapes import moment
from stepgate.engine.views import Page, PolicyHealth, Time, View
from stepgate.storage.policies import API, FILE, PolicyRow, PolicyVersions

BUILT_IN: Final = "builtin"
CURRENT: Final = "current"
"""Names the version in force, where a version is asked for."""
LEAST_PREFIX: Final = 8
_NEWEST: Final = 2**31 - 1

log = structlog.get_logger(__name__)


class PolicyVersion(View):
    """One version of the rules."""

    version: str = Field(description="sha256 of the rules as canonical JSON; the built-in ones have a name")
    name: str | None = Field(description="what its author calls it")
    source: Literal["file", "api", "builtin"]
    rules: int
    current: bool = Field(description="whether the process that answers goes by it")
    created_by: str | None = Field(description="who sent it, or the host and user whose process read the file")
    created_at: Time | None


class PolicyDetail(PolicyVersion):
    """With its rules."""

    document: dict[str, Any] = Field(description="the policy as `POST /v1/policies` takes it")


@dataclass(frozen=True, slots=True)
class Standing:
    """The rules that count in this process, and the row they are; None for the built-in ones."""

    policy: Policy
    row: PolicyRow | None = None

    @property
    def source(self) -> str:
        return BUILT_IN if self.row is None else self.row.source


class Policies:
    """One process's rules. Where `read_file` finds a file, that alone counts; else what was last sent to the API; else
    the built-in defaults.

    `read_file` gives the rules of the file, None where there is none, and raises InvalidPolicy. `who` stands in the
    record of what a file held.
    """

    def __init__(
        self,
        versions: PolicyVersions,
        read_file: Callable[[], Policy | None],
        check: Callable[[Any], Policy],
        who: str,
    ) -> None:
        self._versions = versions
        self._read_file = read_file
        self._check = check
        self._who = who
        self._standing: Standing | None = None
        self._fault: InvalidPolicy | None = None
        self._lock = asyncio.Lock()
        self._again = asyncio.Event()

    @property
    def current(self) -> Policy:
        """The rules of now, once they were loaded."""
        if self._standing is None:
            raise RuntimeError("the policy was not loaded")
        return self._standing.policy

    async def load(self) -> Policy:
        """The rules of now, read if nobody did before. Raises InvalidPolicy naming the fault: then none count."""
        async with self._lock:
            if self._standing is None:
                self._standing = await self._look()
            return self._standing.policy

    async def look_again(self) -> None:
        """Takes up new rules. What is faulty or gone changes nothing: the rules that stand go on to count, loudly."""
        async with self._lock:
            try:
                found = await self._look()
                if self._standing is not None and self._standing.source == FILE and found.source != FILE:
                    raise InvalidPolicy("the policy file is gone", field=SETTING, fix="put it back, or restart")
            except InvalidPolicy as error:
                self._refuse(error)
            except DatabaseUnavailable as error:
                log.debug("rules were not looked at", error=str(error))
            else:
                self._take(found)

    def _refuse(self, error: InvalidPolicy) -> None:
        if self._fault is None or str(self._fault) != str(error):
            version = None if self._standing is None else self._standing.policy.version
            log.error("new rules are faulty; the earlier ones go on to count", error=str(error), standing=version)
        self._fault = error

    def _take(self, found: Standing) -> None:
        before = self._standing
        if before is not None and before.policy.version != found.policy.version:
            log.warning("other rules count from now on", version=found.policy.version, before=before.policy.version)
        elif self._fault is not None:
            log.warning("the rules are in order again", version=found.policy.version)
        self._standing, self._fault = found, None

    async def _look(self) -> Standing:
        policy = await asyncio.to_thread(self._read_file)
        if policy is not None:
            standing = self._standing
            if standing is not None and standing.source == FILE and standing.policy.version == policy.version:
                return standing
            return Standing(policy, await self._versions.keep(policy.version, policy.text, self._who))
        row = await self._versions.latest(API)
        if row is None:
            return Standing(BUILTIN)
        if self._standing is not None and self._standing.row is not None and self._standing.row.number == row.number:
            return self._standing
        return Standing(await asyncio.to_thread(self._check_row, row), row)

    def _check_row(self, row: PolicyRow) -> Policy:
        """The rules of a row, which another version of this program may have written."""
        try:
            policy = self._check(canonical.loads(row.content))
        except InvalidPolicy as error:
            fix = "send a policy that this version of Stepgate takes: stepgate policy apply FILE"
            raise InvalidPolicy(
                f"policy {row.version[:12]}: {error.message}", problems=error.problems, fix=fix
            ) from error
        return Policy(policy.rules, row.version, row.content)

    # Looking again

    def wake(self) -> None:
        """Has the rules looked at now instead of at the next interval."""
        self._again.set()

    @asynccontextmanager
    async def watched(self, interval_s: float) -> AsyncIterator[None]:
        """Looks again every interval, and when woken, until the block ends."""
        task = asyncio.create_task(self._watch(interval_s), name="stepgate-policy")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _watch(self, interval_s: float) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._again.wait(), interval_s)
            self._again.clear()
            try:
                await self.look_again()
            except Exception:
                # Whatever it was: rules that nobody looks at again would go on to count for ever.
                log.exception("rules were not looked at")

    # What people see and send

    async def apply(self, raw: Any, by: str, replaces: str | None = None) -> PolicyDetail:
        """Rules that count from now on, in every process without a file.

        Raises InvalidPolicy by field where they or their examples do not hold, Conflict `policy_from_file` where a
        file counts here, `policy_changed` where others became current since `replaces`.
        """
        try:
            policy = await asyncio.to_thread(self._check, raw)
        except InvalidPolicy as error:
            problems = tuple(replace(one, field=f"policy.{one.field}".rstrip(".")) for one in error.problems)
            raise InvalidPolicy(error.message, problems=problems) from error
        if await self._has_file():
            raise Conflict(
                "here the rules come from a file, which alone counts",
                code="policy_from_file",
                field="policy",
                fix="change the file, or remove it and unset STEPGATE_POLICY everywhere",
            )
        row = await self._versions.add(policy.version, policy.text, by, replaces)
        await self.look_again()
        return self._detail(row)

    async def _has_file(self) -> bool:
        try:
            return await asyncio.to_thread(self._read_file) is not None
        except InvalidPolicy:  # there is one, and it is at fault
            return True

    async def page(self, cursor: str | None, limit: int) -> Page[PolicyVersion]:
        """The newest first, whatever is wrong with the rules of now. Raises InvalidValue for a cursor of no page."""
        await self.look_again()
        before = _NEWEST if cursor is None else _number(cursor)
        found = await self._versions.page(before, limit + 1)
        items = [self._version(row) for row in found[:limit]]
        return Page[PolicyVersion](
            items=items, next_cursor=str(found[limit - 1].number) if len(found) > limit else None
        )

    async def get(self, version: str) -> PolicyDetail:
        """A version, by itself or its first 8 letters, or `current` (which raises InvalidPolicy). Raises NotFound."""
        await self.look_again()
        if version == CURRENT:
            await self.load()
        if version in (CURRENT, BUILTIN.version):
            standing = self._standing if version == CURRENT else None
            if standing is None or standing.row is None:
                return _builtin(current=self._standing == Standing(BUILTIN))
            return self._detail(standing.row)
        row = await self._versions.find(version) if len(version) >= LEAST_PREFIX else None
        if row is None:
            raise NotFound(f"there is no policy {version[:100]!r}", field="version", fix="list the policies")
        return self._detail(row)

    def health(self) -> PolicyHealth:
        """What counts here, and what is wrong with what should."""
        standing = self._standing
        return PolicyHealth(
            version=None if standing is None else standing.policy.version,
            source=None if standing is None else standing.source,
            error=None if self._fault is None else str(self._fault),
        )

    def _version(self, row: PolicyRow) -> PolicyVersion:
        document = canonical.loads(row.content)
        return PolicyVersion(**self._fields(row, document))

    def _detail(self, row: PolicyRow) -> PolicyDetail:
        document = canonical.loads(row.content)
        return PolicyDetail(**self._fields(row, document), document=document)

    def _fields(self, row: PolicyRow, document: Mapping[str, Any]) -> dict[str, Any]:
        standing = None if self._standing is None else self._standing.row
        return {
            "version": row.version,
            "name": document.get("name"),
            "source": row.source,
            "rules": len(document["rules"]),
            "current": standing is not None and standing.number == row.number,
            "created_by": row.created_by,
            "created_at": moment(row.created_at),
        }


def _builtin(*, current: bool) -> PolicyDetail:
    """Each step type's own gate, and no rules."""
    return PolicyDetail(
        version=BUILTIN.version,
        name=None,
        source="builtin",
        rules=0,
        current=current,
        created_by=None,
        created_at=None,
        document={"version": 1, "rules": []},
    )


def _number(cursor: str) -> int:
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        raise InvalidValue("is not one that a list has given", field="cursor", fix="send next_cursor as it came")
    return int(cursor)
