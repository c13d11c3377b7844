"""Every error Stepgate raises on purpose.

StepgateError
├── InvalidValue                 a value that cannot be accepted (bad input), named by field
│   ├── InvalidPlan              a plan that fails validation; `problems` lists every fault
│   ├── InvalidPolicy            a policy file that fails validation or one of its own examples
│   ├── InvalidReference         a `${{ }}` reference that cannot be parsed or resolved
│   └── PathRefused              a workspace path that is absolute, escapes, or is not a regular file
├── NotFound                     no run, step or other object of that id
├── Conflict                     the request does not fit the present state
│   ├── IllegalTransition        no such transition in the state machine
│   ├── AlreadyDecided           another decision stands
│   ├── StaleApproval            the hash or revision is not the one now asked for
│   ├── StaleSteps               other steps were added meanwhile
│   ├── NoSteps                  a run without steps cannot start
│   ├── BudgetExhausted          a model call may cost more than is left
│   ├── IdempotencyMismatch      the key was used with another request
│   ├── EditConflict             an edit or patch does not fit the file
│   └── WorkspaceConflict        somebody else wrote the paths meanwhile
├── Expired                      the approval request has expired
├── Forbidden                    the caller may not do this
│   └── Unauthenticated          the caller has not shown who they are
├── ChangeRefused                a layer holds something that may not become a change set
├── Unavailable                  a part of the environment is missing
│   ├── DatabaseUnavailable      down, unreachable, too old
│   ├── SchemaMismatch           not migrated, or newer than the code
│   ├── SandboxUnavailable       no sandbox of the required strength
│   ├── WorkspaceUnavailable     locked, half-applied, or gone
│   └── ModelUnavailable         the model router cannot be used
├── ModelFailure                 one model call failed; says whether asking again may help and what it may have cost
├── LeaseLost                    another worker drives the run now
└── IntegrityError               recorded data contradicts itself
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault in the input: the field's path, what is wrong, how to mend it."""

    field: str
    message: str
    fix: str | None = None


class StepgateError(Exception):
    """The root. `code` is stable and machine-readable; `message` is one sentence for a person."""

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        field: str | None = None,
        fix: str | None = None,
        details: Mapping[str, Any] | None = None,
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason_code = code or self.code
        self.field = field
        self.fix = fix
        self.details: Mapping[str, Any] = details or {}
        self.problems = problems or ((Problem(field, message, fix),) if field else ())

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        return f"{where}{self.message}" + (f" ({self.fix})" if self.fix else "")


class InvalidValue(StepgateError):
    code, title = "invalid_value", "Invalid value"


class InvalidPlan(InvalidValue):
    code, title = "invalid_plan", "Invalid plan"


class InvalidPolicy(InvalidValue):
    code, title = "invalid_policy", "Invalid policy"


class InvalidReference(InvalidValue):
    code, title = "invalid_reference", "Invalid reference"


class PathRefused(InvalidValue):
    code, title = "path_refused", "Path refused"


class NotFound(StepgateError):
    code, title = "not_found", "Not found"


class Conflict(StepgateError):
    code, title = "conflict", "Conflict"


class IllegalTransition(Conflict):
    code, title = "illegal_transition", "Not possible in this state"


class AlreadyDecided(Conflict):
    code, title = "already_decided", "Already decided"


class StaleApproval(Conflict):
    code, title = "stale_approval", "The action changed"


class StaleSteps(Conflict):
    code, title = "stale_steps", "Other steps came first"


class NoSteps(Conflict):
    code, title = "no_steps", "The run has no steps"


class BudgetExhausted(Conflict):
    code, title = "budget_exhausted", "The budget is used up"


class IdempotencyMismatch(Conflict):
    code, title = "idempotency_mismatch", "Idempotency key reused"


class EditConflict(Conflict):
    code, title = "edit_conflict", "The edit does not fit the file"


class WorkspaceConflict(Conflict):
    code, title = "workspace_conflict", "The workspace changed"


class Expired(StepgateError):
    code, title = "expired", "Expired"


class Forbidden(StepgateError):
    code, title = "forbidden", "Forbidden"


class Unauthenticated(Forbidden):
    code, title = "unauthenticated", "Not authenticated"


class ChangeRefused(StepgateError):
    code, title = "change_refused", "Change refused"


class Unavailable(StepgateError):
    code, title = "unavailable", "Unavailable"


class DatabaseUnavailable(Unavailable):
    code, title = "database_unavailable", "Database unavailable"


class SchemaMismatch(Unavailable):
    code, title = "schema_mismatch", "Database schema does not fit"


class SandboxUnavailable(Unavailable):
    code, title = "sandbox_unavailable", "No sandbox"


class WorkspaceUnavailable(Unavailable):
    code, title = "workspace_unavailable", "Workspace unavailable"


class ModelUnavailable(Unavailable):
    code, title = "model_unavailable", "Model unavailable"


class ModelFailure(StepgateError):
    """`retryable`: asking again may help, after `retry_after_s` where the router gave a hint; `status` is of HTTP.

    `billed` is False where no work was done, True where it was, None where nobody can know (a timeout). `answer` is
    what came back (a `llm.protocol.ModelAnswer`) where the call succeeded but its answer is no use: its cost is real.
    `most_attempts` bounds how often such a question is asked at all, where the router gives a reason for that.
    """

    code, title = "model_failure", "The model call failed"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retryable: bool = False,
        retry_after_s: float | None = None,
        status: int | None = None,
        billed: bool | None = None,
        answer: object | None = None,
        fix: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code, fix=fix, details=details)
        self.most_attempts: int | None = None
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.status = status
        self.billed = billed
        self.answer = answer


class LeaseLost(StepgateError):
    code, title = "lease_lost", "Another worker drives the run"


class IntegrityError(StepgateError):
    code, title = "integrity", "Recorded data contradicts itself"
