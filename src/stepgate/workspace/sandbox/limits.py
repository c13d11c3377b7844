"""What one command may use; every limit is enforced, and reaching one is reported by name."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from stepgate.domain.errors import InvalidValue

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds, bytes and counts for a whole command with all its children, unless a name says otherwise.

    `file_bytes` and `open_files` hold per file and per process. `output_bytes` of each stream are kept; a command that
    writes more than `output_kill_bytes` in all is killed. `written_bytes` and `files` count what it leaves in the
    workspace, `tmp_bytes` what lies in /tmp and /dev/shm (their files count to `files` too).
    """

    wall_s: float = 30.0
    cpu_s: float = 60.0
    memory_bytes: int = 1024 * _MIB
    pids: int = 128
    file_bytes: int = 256 * _MIB
    open_files: int = 1024
    tmp_bytes: int = 512 * _MIB
    written_bytes: int = 512 * _MIB
    files: int = 20_000
    output_bytes: int = 256 * 1024
    output_kill_bytes: int = 16 * _MIB

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise InvalidValue(f"{value} is not a positive number", field=f"limits.{name}")

    def narrowed(self, wanted: Mapping[str, float]) -> "Limits":
        """These limits with some of them lowered.

        Raises InvalidValue, with the field, for an unknown name, a value that is no positive number, or a higher one.
        """
        known = {field.name for field in fields(self)}
        values: dict[str, Any] = asdict(self)
        for name, value in wanted.items():
            field = f"limits.{name}"
            if name not in known:
                raise InvalidValue("no such limit", field=field, fix=f"one of {', '.join(sorted(known))}")
            highest = getattr(self, name)
            if isinstance(value, bool) or not value > 0:
                raise InvalidValue(f"{value!r} is not a positive number", field=field)
            if value > highest:
                raise InvalidValue(f"{value} is over what this worker allows", field=field, fix=f"at most {highest}")
            values[name] = float(value) if isinstance(highest, float) else int(value)
            if not values[name]:
                raise InvalidValue(f"{value!r} is not a positive number", field=field)
        return Limits(**values)


def resource_limits(limits: Limits) -> dict[str, int]:
    """The kernel's own limits, by name: hard stops behind the watch."""
    return {
        # Nothing is dumped; with 0 the host's collector of core dumps would be started all the same.
        "RLIMIT_CORE": 1,
        "RLIMIT_CPU": int(limits.cpu_s) + 2,
        # Twice the limit, so that the watch sees and names the excess before allocations begin to fail.
        "RLIMIT_DATA": 2 * limits.memory_bytes,
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_MEMLOCK": 1 << 16,
        "RLIMIT_MSGQUEUE": 0,
        "RLIMIT_NICE": 0,
        "RLIMIT_NOFILE": limits.open_files,
        "RLIMIT_NPROC": limits.pids,
        "RLIMIT_RTPRIO": 0,
        "RLIMIT_SIGPENDING": 1024,
    }
