"""A process of Stepgate in a mount namespace of its own, where a mount appears in its workspace and goes again.

    python -m tests.worker.mounting DATABASE_URL FOLDER

Prints a JSON object of what it said to that.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from stepgate.domain.errors import PathRefused
from tests.worker.lab import Lab, opened, step_of
from tests.workspace.mounting import enter_namespace, mount, unmount

EDIT = {"key": "e", "type": "edit_file", "input": {"path": "a.txt", "content": "new\n"}}
READ = {"key": "r", "type": "read_file", "input": {"path": "a.txt"}}


async def main(database_url: str, folder: str) -> None:
    async with opened(database_url, Path(folder)) as lab:
        sys.stdout.write(json.dumps(await told(lab)))


async def told(lab: Lab) -> dict[str, Any]:
    (lab.workspace / "a.txt").write_text("old\n")
    inside = lab.workspace / "sub"
    inside.mkdir()
    early = await lab.create([EDIT])
    await lab.until_step(early, "e", "awaiting_approval")
    await lab.until_idle()
    mount(inside)
    refused: list[Any] = []
    try:
        await lab.create([READ])
    except PathRefused as error:
        refused = [error.reason_code, error.field, error.details["paths"]]
    await lab.approve(early, "e")
    failed = step_of(await lab.until_status(early, "failed"), "e")
    unmount(inside)
    later = await lab.create([READ])
    await lab.until_status(later, "completed")
    return {
        "created": refused,
        "worked": failed.error,
        "text": (lab.workspace / "a.txt").read_text(),
    }


if __name__ == "__main__":
    enter_namespace()
    asyncio.run(main(*sys.argv[1:]))
