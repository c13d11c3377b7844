import asyncio
import signal

import pytest

from stepgate.workspace.sandbox.command import Finished, Killed
from stepgate.workspace.sandbox.limits import Limits
from tests.workspace.sandbox.lab import Lab

MIB = 1 << 20


def _was_killed(finished: Finished, why: Killed) -> None:
    assert finished.killed is why, finished
    assert (finished.exit_code, finished.signal) == (None, 9)


async def test_a_command_that_takes_too_long_is_killed(lab: Lab) -> None:
    finished = await lab.shell("echo begun; sleep 60", Limits(wall_s=0.3))
    _was_killed(finished, Killed.WALL)
    assert finished.stdout == b"begun\n"
    assert 300 <= finished.wall_ms < 10_000


async def test_processor_time_is_counted_over_all_children(lab: Lab) -> None:
    finished = await lab.shell("for i in 1 2 3; do (while :; do :; done) & done; wait", Limits(cpu_s=0.5, wall_s=30))
    _was_killed(finished, Killed.CPU)
    assert finished.cpu_ms is not None
    assert 500 <= finished.cpu_ms < 5000


async def test_what_a_command_used_before_it_was_killed_is_told(lab: Lab) -> None:
    script = "import os\nx = bytearray(b'x') * (40 << 20)\nos.fork()\nwhile True: pass"
    finished = await lab.python(script, limits=Limits(wall_s=1))
    _was_killed(finished, Killed.WALL)
    assert finished.wall_ms >= 1000
    assert finished.cpu_ms is not None
    assert finished.cpu_ms >= 50
    assert finished.peak_memory_bytes is not None
    assert finished.peak_memory_bytes > 40 * MIB


@pytest.mark.parametrize("processes", [1, 8])
async def test_memory_that_grows_as_fast_as_it_can_is_stopped_soon_after_the_limit(lab: Lab, processes: int) -> None:
    script = (
        f"import os\nfor _ in range({processes - 1}):\n  if os.fork() == 0: break\n"
        "kept = []\nwhile True: kept.append(bytearray(b'x') * (4 << 20))"
    )
    finished = await lab.python(script, limits=Limits(memory_bytes=128 * MIB, wall_s=30))
    _was_killed(finished, Killed.MEMORY)
    assert finished.peak_memory_bytes is not None
    # Twice the limit is what the kernel lets any one process have, whatever the watch sees.
    assert 128 * MIB < finished.peak_memory_bytes < 2 * processes * 128 * MIB


async def test_memory_is_counted_over_all_children(lab: Lab) -> None:
    hog = "import time; x = bytearray(40 << 20); time.sleep(60)"
    finished = await lab.shell(
        f"for i in 1 2 3 4; do python3 -c '{hog}' & done; wait", Limits(memory_bytes=100 * MIB, wall_s=30)
    )
    _was_killed(finished, Killed.MEMORY)
    assert finished.peak_memory_bytes is not None
    assert finished.peak_memory_bytes > 100 * MIB


async def test_shared_memory_counts_as_memory(lab: Lab) -> None:
    hog = (
        "import mmap, time; m = mmap.mmap(-1, 200 << 20); [m.write(bytes(1 << 20)) for _ in range(200)]; time.sleep(60)"
    )
    finished = await lab.python(hog, limits=Limits(memory_bytes=100 * MIB, wall_s=30))
    _was_killed(finished, Killed.MEMORY)


async def test_one_process_cannot_take_far_more_memory_than_allowed_between_two_looks(lab: Lab) -> None:
    finished = await lab.python("x = bytearray(600 << 20)", limits=Limits(memory_bytes=100 * MIB, wall_s=30))
    assert finished.exit_code == 1
    assert b"MemoryError" in finished.stderr


async def test_a_fork_bomb_is_bounded(lab: Lab) -> None:
    bomb = "import os, time\nn = 0\ntry:\n  while os.fork(): n += 1\nexcept OSError: print(n)\ntime.sleep(1)"
    finished = await lab.python(bomb, limits=Limits(pids=20, wall_s=30))
    # The first process, the shell of the sandbox and this one are among the twenty.
    assert 10 <= int(finished.stdout) < 20


async def test_threads_count_as_processes(lab: Lab) -> None:
    script = (
        "import threading, time\nn = 0\ntry:\n"
        "  while n < 200: threading.Thread(target=time.sleep, args=(1,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\nprint(n)"
    )
    finished = await lab.python(script, limits=Limits(pids=20))
    assert 5 <= int(finished.stdout) < 20


async def test_limits_of_one_command_do_not_count_the_processes_of_another(lab: Lab) -> None:
    script = "for i in 1 2 3 4 5 6; do sleep 0.3 & done; wait; echo all"
    finished = await asyncio.gather(*(lab.shell(script, Limits(pids=12)) for _ in range(4)))
    assert [one.stdout for one in finished] == [b"all\n"] * 4


async def test_a_command_that_floods_its_output_is_killed(lab: Lab) -> None:
    finished = await lab.run("/usr/bin/yes", limits=Limits(output_bytes=100, output_kill_bytes=MIB))
    _was_killed(finished, Killed.OUTPUT)
    assert len(finished.stdout) == 100
    assert finished.truncated


async def test_writing_too_much_to_the_workspace_is_killed(lab: Lab) -> None:
    script = "for i in 1 2 3 4 5 6; do head -c 4000000 /dev/zero > f$i; done; sleep 60"
    _was_killed(await lab.shell(script, Limits(written_bytes=16 * MIB)), Killed.DISK)


@pytest.mark.parametrize("where", ["/tmp", "/dev/shm"])
async def test_scratch_is_counted_like_files_on_disk(lab: Lab, where: str) -> None:
    script = f"for i in 1 2 3 4 5 6; do head -c 4000000 /dev/zero > {where}/f$i; done; sleep 60"
    _was_killed(await lab.shell(script, Limits(tmp_bytes=16 * MIB)), Killed.TMP)


@pytest.mark.parametrize("where", ["/tmp", "/dev/shm", "/workspace/deep"])
async def test_empty_files_are_counted_too(lab: Lab, where: str) -> None:
    script = f"import os, time; os.makedirs({where!r}, exist_ok=True)\n"
    script += f"for n in range(3000): open(f'{where}/{{n}}', 'w').close()\ntime.sleep(60)"
    _was_killed(await lab.python(script, limits=Limits(files=1000)), Killed.FILES)


async def test_a_very_deep_folder_does_not_stop_the_watch(lab: Lab) -> None:
    script = "import os, time\nfor n in range(3000): os.mkdir('d'); os.chdir('d')\n"
    script += "os.chdir('/tmp')\nfor n in range(3000): open(str(n), 'w').close()\ntime.sleep(60)"
    _was_killed(await lab.python(script, limits=Limits(files=2000)), Killed.FILES)


async def test_files_in_a_folder_closed_to_its_owner_do_not_stop_the_watch(lab: Lab) -> None:
    script = (
        "mkdir shut; for i in 1 2 3 4; do head -c 4000000 /dev/zero > shut/f$i; done; chmod 0 shut;"
        " for i in 1 2 3 4 5 6; do head -c 4000000 /dev/zero > f$i; done; sleep 60"
    )
    _was_killed(await lab.shell(script, Limits(written_bytes=16 * MIB)), Killed.DISK)


async def test_one_file_cannot_grow_over_its_limit(lab: Lab) -> None:
    finished = await lab.shell("head -c 2000000 /dev/zero > f; wc -c < f", Limits(file_bytes=MIB))
    assert finished.stdout.strip() == str(MIB).encode()
    finished = await lab.run("/usr/bin/head", "-c", "2000000", "/dev/zero", limits=Limits(file_bytes=MIB))
    assert finished.exit_code == 0
    finished = await lab.shell("exec head -c 2000000 /dev/zero > f", Limits(file_bytes=MIB))
    assert (finished.exit_code, finished.signal) == (128 + signal.SIGXFSZ, signal.SIGXFSZ)


async def test_one_process_cannot_open_more_files_than_allowed(lab: Lab) -> None:
    script = "import os\nn = 0\ntry:\n  while n < 500: os.open('.', 0); n += 1\nexcept OSError: pass\nprint(n)"
    finished = await lab.python(script, limits=Limits(open_files=64))
    assert 40 < int(finished.stdout) < 64


async def test_there_are_no_core_dumps(lab: Lab) -> None:
    finished = await lab.shell("ulimit -c; kill -SEGV $$")
    assert finished.stdout == b"0\n"
    assert finished.signal == 11
