"""The process under measurement, as the one that measures sees it."""

import asyncio
import json
import subprocess
import sys
from typing import Any


class Child:
    """The worker's process."""

    def __init__(self, environment: dict[str, str]) -> None:
        arguments = [sys.executable, "-m", "bench.worker_process"]
        self._process = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._read()

    async def work(self, **task: Any) -> dict[str, Any]:
        """Lets it drive everything that is due, or do the task named; returns what it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        return await asyncio.to_thread(self._read)

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker's process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
