"""What starting a program costs without an engine: a small process that does nothing else."""

import subprocess
import sys
from typing import Self

PROGRAM = """
import subprocess, sys, time
for line in sys.stdin:
    began = time.perf_counter()
    subprocess.run(["/bin/true"], check=True)
    print((time.perf_counter() - began) * 1000, flush=True)
"""


class Spawner:
    """Starts `/bin/true` when asked, and waits for it."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.spawn_ms()  # the first one reads the program from disk
        return self

    def spawn_ms(self) -> float:
        """Start, execution and end of one, in milliseconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
