"""A policy file for a process under test."""

import json
from pathlib import Path
from typing import Any


def rule(verdict: str, name: str = "r", approvals: dict[str, Any] | None = None, **match: Any) -> dict[str, Any]:
    more = {} if approvals is None else {"approvals": approvals}
    return {"name": name, "match": match, "verdict": verdict, **more}


def policy_file(folder: Path, *rules: dict[str, Any], name: str = "policy.json") -> Path:
    """Writes the rules where no workspace can be; returns what `STEPGATE_POLICY` is set to."""
    path = folder / name
    path.write_text(json.dumps({"version": 1, "rules": list(rules)}))
    return path


PREVIEW = rule("ask", "preview", {"preview": True}, executor="run_command", sandbox_level="bwrap-full")
