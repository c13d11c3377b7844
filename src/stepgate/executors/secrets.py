"""Secrets in a command's environment: given by name, shown by name, and kept out of everything it leaves behind."""

import asyncio
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from stepgate.domain.errors import ChangeRefused, InvalidValue, NotFound, PathRefused, Problem, StepgateError
from stepgate.executors.base import Context
from stepgate.workspace.access import Root
from stepgate.workspace.changes import Kind
from stepgate.workspace.layers.layer import Layer
from stepgate.workspace.redaction import Forms
from stepgate.workspace.secrets import SETTING, Secret
from stepgate.workspace.states import stat_beneath


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of one attempt, read once, so that what is approved and what is used cannot differ."""

    given: tuple[Secret, ...] = ()
    forms: Forms = field(default_factory=lambda: Forms({}))

    @classmethod
    async def of(cls, context: Context, names: Sequence[str]) -> Self:
        """Raises InvalidValue (`secret_unavailable`), naming the element of `secrets`, where one cannot be had."""
        if not names:
            return cls()
        source = context.secrets
        if source is None:
            raise InvalidValue(
                f"there is no secret {names[0]}: this worker has no source of secrets",
                code="secret_unavailable",
                field="secrets[0]",
                fix=f"set {SETTING} to a folder with one file for each secret",
            )
        root = context.root.path

        def read() -> tuple[Secret, ...]:
            return tuple(source.read(name, root, f"secrets[{place}]") for place, name in enumerate(names))

        given = await asyncio.to_thread(read)
        return cls(given, Forms({secret.name: secret.value for secret in given}))

    @property
    def environment(self) -> Mapping[str, str]:
        """Values by name."""
        return {secret.name: secret.value for secret in self.given}

    @property
    def versions(self) -> Mapping[str, str]:
        """What is shown and approved."""
        return {secret.name: secret.version for secret in self.given}

    def refuse_in(self, layer: Layer, root: Root, most: int) -> None:
        """Raises ChangeRefused where what a command left or replaced holds a value, before any of it is stored; blocks.

        Call it when no process of the layer is left.
        """
        if not self.given:
            return
        seen: set[str] = set()
        for touched in layer.touched(most):
            seen.add(touched.path)
            name = self.forms.name_in(touched.path.encode())
            entry = touched.entry
            if entry is not None and name is None:
                match stat.S_IFMT(entry.stat.st_mode):
                    case stat.S_IFREG:
                        name = self._in_descriptor(entry.open())
                    case stat.S_IFLNK:
                        target = os.readlink(os.fsencode(entry.name), dir_fd=entry.parent)
                        name = self.forms.name_in(target)
                    case _:
                        pass
            if name is not None:
                raise self._refused(touched.path, name, "holds")
            if (name := self._before(root, touched.path, seen)) is not None:
                raise self._refused(touched.path, name, "held before")

    def _before(self, root: Root, path: str, seen: set[str]) -> str | None:
        """The same for what is replaced, which is kept so that the change can be undone."""
        try:
            found = stat_beneath(root, path, seen)
            if found is None or found.kind is not Kind.FILE:
                return None
            descriptor, _ = root.open_file(path, allow_hard_links=True)
        except (NotFound, PathRefused):  # somebody else moved it: the harvest finds out the same and says so
            return None
        return self._in_descriptor(descriptor)

    def _in_descriptor(self, descriptor: int) -> str | None:
        try:
            return self.forms.name_in_file(descriptor)
        finally:
            os.close(descriptor)

    def _refused(self, path: str, name: str, how: str) -> ChangeRefused:
        shown = self.forms.clean(path)
        return ChangeRefused(
            f"{shown!r} {how} the value of the secret {name}, which would be stored with the change",
            code="secret_in_change",
            field="path",
            fix="let the command write it nowhere but /tmp",
            details={"paths": [shown]},
        )

    def cleaned(self, error: Exception) -> Exception:
        """The error, or one in its place, that can be recorded: no value is in its words."""
        if not self.given:
            return error
        if not isinstance(error, StepgateError):
            said = f"{error!r} {error}"
            return error if self.forms.clean(said) == said else RuntimeError("an error that named a secret's value")
        clean = self.forms.clean
        error.message = clean(error.message)
        error.args = (error.message,)
        error.details = self._clean_json(error.details)
        error.problems = tuple(Problem(one.field, clean(one.message), one.fix) for one in error.problems)
        return error

    def _clean_json(self, value: Any) -> Any:
        match value:
            case str():
                return self.forms.clean(value)
            case Mapping():
                return {name: self._clean_json(item) for name, item in value.items()}
            case list() | tuple():
                return [self._clean_json(item) for item in value]
            case _:
                return value
