"""Changes one file: the change set is computed and shown first, and exactly what was shown is what is applied."""

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from stepgate.domain.errors import EditConflict, NotFound, StepgateError
from stepgate.domain.policy.action import Reach
from stepgate.domain.state import Effect, Gate
from stepgate.executors.base import Context, Done, Executor, Failed, Outcome, Params, Prepared
from stepgate.executors.fields import RelativePath, Sha256, Text
from stepgate.executors.model_edit import MAX_INSTRUCTION_CHARS, Written, recall, write
from stepgate.executors.preview import change_digest, hold_to, listed, risk_of, shown, stale, touched, without_preview
from stepgate.executors.readings import exact_line
from stepgate.workspace.access import FileContent, Root
from stepgate.workspace.building import MAX_EDIT_BYTES, build_edit
from stepgate.workspace.changes import ChangeSet
from stepgate.workspace.diff import unified
from stepgate.workspace.edits import Edit, apply_edits
from stepgate.workspace.patch import apply_patch

WAYS: Final = ("content", "edits", "patch", "instruction", "delete")
_EXECUTABLE: Final = 0o111


class Replacement(Params):
    """One edit: where `find` stands, and it must stand there once, comes `replace`."""

    find: Annotated[Text, Field(min_length=1)] = Field(description="text that is in the file exactly once")
    replace: Text = Field(description="the text to stand in its place")


class EditFileParams(Params):
    """Which file, and exactly one of `content`, `edits`, `patch`, `instruction` and `delete`."""

    path: RelativePath = Field(description="the file, relative to the workspace; folders above it are made")
    content: Text | None = Field(default=None, description="the whole new content")
    edits: list[Replacement] | None = Field(
        default=None, min_length=1, max_length=1000, description="replacements, made one after another"
    )
    patch: Text | None = Field(default=None, description="a unified diff of this one file; it must fit to the letter")
    instruction: Text | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_INSTRUCTION_CHARS,
        description="what a model should change; it writes the file before anybody is asked to approve",
    )
    delete: bool | None = Field(default=None, description="true deletes the file")
    base_sha256: Sha256 | None = Field(
        default=None, description="the sha256 the file must have, so that nobody's change is overwritten unseen"
    )
    mode: str | None = Field(
        default=None,
        pattern=r"^0?[0-7]{3}$",
        description="permission bits in octal; if not given those it has, 0644 for a new file",
        examples=["0755"],
    )

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, raw: Any) -> Any:
        """Checked on what was written, so that it holds before references are resolved."""
        if not isinstance(raw, Mapping) or set(raw) - set(cls.model_fields):
            return raw
        given = [name for name in WAYS if raw.get(name) is not None and raw.get(name) is not False]
        if len(given) != 1:
            what = f"{' and '.join(given)} are given" if given else "nothing says what to change"
            fix = f"give exactly one of {', '.join(WAYS)}"
            raise PydanticCustomError("shape", "{message}", {"message": what, "fix": fix})
        return raw

    @model_validator(mode="after")
    def _mode_of_what_stays(self) -> Self:
        if self.delete and self.mode is not None:
            raise PydanticCustomError("refused", "a deleted file has no mode", {"fix": "leave mode out"})
        return self


class EditFile(Executor[EditFileParams]):
    """The workspace is not touched here: the engine applies the change set that `execute` returns."""

    type = "edit_file"
    effect = Effect.WORKSPACE
    gate = Gate.ASK
    summary = "Creates, changes or deletes one file; a person sees the diff first."
    params = EditFileParams

    def reach(self, params: EditFileParams) -> Reach:
        return Reach(paths=(params.path,), complete=True)

    def prepares_long(self, params: EditFileParams) -> bool:
        """A model writes."""
        return params.instruction is not None

    async def prepare(self, context: Context, params: EditFileParams) -> Prepared:
        """The diff; with `instruction` the model writes here, once for each state of the file.

        Raises ModelUnavailable `offline_cannot_write`.
        """
        title = exact_line(f"{'Delete' if params.delete else 'Edit'} {params.path}")
        try:
            written = await _written(context, params)
            change_set = await asyncio.to_thread(_build, context, params, written)
        except StepgateError as error:
            return without_preview(title, params, error)
        seen = await asyncio.to_thread(shown, change_set, context.blobs)
        action = _action(params, change_set, written)
        notes = _notes(params, change_set)
        rendering = {
            "title": title,
            "path": exact_line(params.path),
            **seen,
            "notes": notes,
            "written": action["written"],
        }
        risk = _risk(params, seen)
        return Prepared(action, rendering, risk, change=touched(change_set))

    async def execute(self, context: Context, params: EditFileParams) -> Outcome:
        """Raises EditConflict and InvalidValue by field where the edit does not fit the file, StaleApproval where it
        would not be the change that was approved.
        """
        if params.instruction is not None and context.prepared is None:
            return Failed("not_prepared", "what the model wrote was never shown", field="instruction")
        written = await _written(context, params)
        change_set = await asyncio.to_thread(_build, context, params, written)
        hold_to(context, _action(params, change_set, written), params.path)
        diff = await asyncio.to_thread(
            unified, change_set, context.blobs, max_bytes=context.bounds.max_output_bytes // 2
        )
        changed = bool(change_set.changes)
        output = {"change_set_id": change_set.id if changed else None, **listed(change_set), "diff": diff}
        return Done(output, change_set if changed else None)


async def _written(context: Context, params: EditFileParams) -> Written | None:
    """What a model wrote: before the approval it is asked, or its earlier writing found; afterwards only found."""
    if params.instruction is None:
        return None
    present = await asyncio.to_thread(_read, context.root, params.path)
    _check_base(present, params)
    approved = context.prepared
    if approved is not None:
        found = await recall(context, params.path, params.instruction, present, approved.action)
        if found is None:
            raise stale(params.path)
        return found
    if (rendering := await context.shown()) is not None:
        found = await recall(context, params.path, params.instruction, present, rendering)
        if found is not None:
            return found
    return await write(context, params.path, params.instruction, present)


def _build(context: Context, params: EditFileParams, written: Written | None) -> ChangeSet:
    mode = int(params.mode, 8) if params.mode is not None else None
    base = params.base_sha256
    new: bytes | None = None
    if written is not None:
        new, base = written.content, written.base_sha256
    elif params.content is not None:
        new = params.content.encode()
    elif not params.delete:
        present = _read(context.root, params.path)
        _check_base(present, params)
        new = _edited(present, params)
        base = present.sha256 if present else None
    return build_edit(context.root, params.path, new, mode, base, blobs=context.blobs)


def _edited(present: FileContent | None, params: EditFileParams) -> bytes | None:
    if params.patch is not None:
        return apply_patch(present.data if present else None, params.patch, params.path)
    if present is None:
        raise NotFound(f"there is no file {params.path!r} to edit", field="path", fix="create it with content")
    return apply_edits(present.data, [Edit(one.find, one.replace) for one in params.edits or ()])


def _read(root: Root, path: str) -> FileContent | None:
    try:
        return root.read(path, MAX_EDIT_BYTES)
    except NotFound:
        return None


def _check_base(present: FileContent | None, params: EditFileParams) -> None:
    found = present.sha256 if present else None
    if params.base_sha256 is not None and found != params.base_sha256:
        raise EditConflict(
            f"{params.path!r} is not what the edit was made for" if present else f"{params.path!r} does not exist",
            field="base_sha256",
            fix="read the file again and renew the edit",
            details={"base_sha256": params.base_sha256, "sha256": found},
        )


def _action(params: EditFileParams, change_set: ChangeSet, written: Written | None) -> dict[str, Any]:
    change = change_set.get(params.path)
    before, after = (change.before, change.after) if change else (None, None)
    return {
        "path": params.path,
        "change_set": change_digest(change_set),
        "before": before.sha256 if before else None,
        "after": after.sha256 if after else None,
        "mode": f"{after.mode:04o}" if after else None,
        "written": written.action if written else None,
    }


def _notes(params: EditFileParams, change_set: ChangeSet) -> list[str]:
    if not change_set.changes:
        return ["the file is already like this: nothing will change"]
    return ["a model wrote this change"] if params.instruction is not None else []


def _risk(params: EditFileParams, seen: Mapping[str, Any]) -> str:
    """High where the person cannot see all of it as it is, or where the file can be run afterwards."""
    runnable = params.mode is not None and int(params.mode, 8) & _EXECUTABLE
    return "high" if runnable else risk_of(seen)
