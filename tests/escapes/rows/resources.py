"""Attacks on resources; each takes well over the limits it is given."""

from typing import Final

from stepgate.workspace.sandbox.limits import Limits
from tests.escapes import looks
from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import memory, resources

_MIB: Final = 1 << 20
PROCESSES: Final = Limits(wall_s=60, cpu_s=20, pids=24)
MEMORY: Final = Limits(wall_s=60, cpu_s=20, memory_bytes=96 * _MIB)
DISK: Final = Limits(
    wall_s=60, cpu_s=20, file_bytes=16 * _MIB, written_bytes=24 * _MIB, tmp_bytes=24 * _MIB, files=1000
)
PIPES: Final = Limits(wall_s=60, cpu_s=20, memory_bytes=72 * _MIB)
OUTPUT: Final = Limits(wall_s=60, cpu_s=20, output_bytes=65536, output_kill_bytes=2 * _MIB)
TIME: Final = Limits(wall_s=60, cpu_s=0.3)
SHORT: Final = Limits(wall_s=0.5)
DESCRIPTORS: Final = Limits(wall_s=60, cpu_s=20, open_files=256)

ATTACKS: Final = (
    Attack("fork bomb", Kind.RESOURCES, resources.fork_bomb, Sign.KEPT, PROCESSES),
    Attack("thread bomb", Kind.RESOURCES, resources.thread_bomb, Sign.KEPT, PROCESSES),
    Attack("private memory", Kind.RESOURCES, memory.private_memory, Sign.KEPT, MEMORY),
    Attack("memory in children", Kind.RESOURCES, memory.memory_in_children, Sign.KEPT, MEMORY),
    Attack("shared memory", Kind.RESOURCES, memory.shared_memory, Sign.KEPT, MEMORY),
    Attack("shared memory out of sight", Kind.RESOURCES, memory.shared_memory_out_of_sight, Sign.KEPT, MEMORY),
    Attack("memory file", Kind.RESOURCES, memory.memory_file, Sign.KEPT, MEMORY),
    Attack("secret memory", Kind.RESOURCES, memory.secret_memory_file, Sign.KEPT, MEMORY),
    Attack("System V memory", Kind.RESOURCES, memory.system_v_memory, Sign.KEPT, MEMORY),
    Attack("input that grows", Kind.RESOURCES, memory.input_that_grows, Sign.KEPT, MEMORY),
    Attack("page tables", Kind.RESOURCES, memory.page_tables, Sign.KEPT, MEMORY),
    Attack("pipe buffers", Kind.RESOURCES, memory.pipe_buffers, Sign.KEPT, PIPES),
    Attack("socket buffers", Kind.RESOURCES, memory.socket_buffers, Sign.KEPT, MEMORY),
    Attack("sparse file", Kind.RESOURCES, resources.sparse_file, Sign.KEPT, DISK),
    Attack("large file", Kind.RESOURCES, resources.large_file, Sign.KEPT, DISK),
    Attack("files in all", Kind.RESOURCES, resources.files_in_all, Sign.KEPT, DISK),
    Attack("scratch in all", Kind.RESOURCES, resources.scratch_in_all, Sign.KEPT, DISK),
    Attack("/dev/shm in all", Kind.RESOURCES, resources.shared_scratch_in_all, Sign.KEPT, DISK),
    Attack("nameless files", Kind.RESOURCES, resources.nameless_files, Sign.KEPT, DISK),
    Attack("reserved disk", Kind.RESOURCES, resources.reserved_disk, Sign.KEPT, DISK),
    Attack("many files", Kind.RESOURCES, resources.many_files, Sign.KEPT, DISK),
    Attack("many folders, deep", Kind.RESOURCES, resources.many_folders_deep, Sign.KEPT, DISK),
    Attack("many names of a file", Kind.RESOURCES, resources.many_links, Sign.KEPT, DISK),
    Attack("flood of output", Kind.RESOURCES, resources.flood_of_output, Sign.KEPT, OUTPUT),
    Attack("flood of errors", Kind.RESOURCES, resources.flood_of_errors, Sign.KEPT, OUTPUT),
    Attack("flood of both", Kind.RESOURCES, resources.flood_of_both, Sign.KEPT, OUTPUT),
    Attack("one huge line", Kind.RESOURCES, resources.one_huge_line, Sign.KEPT, OUTPUT),
    Attack("processor time", Kind.RESOURCES, resources.processor_time, Sign.KEPT, TIME),
    Attack("processor time in children", Kind.RESOURCES, resources.processor_time_in_children, Sign.KEPT, TIME),
    Attack(
        "processor time in forgotten children",
        Kind.RESOURCES,
        resources.processor_time_in_forgotten_children,
        Sign.KEPT,
        TIME,
    ),
    Attack("sleeping for ever", Kind.RESOURCES, resources.sleeping_for_ever, Sign.KEPT, SHORT),
    Attack("descriptors", Kind.RESOURCES, resources.descriptors, Sign.KEPT, DESCRIPTORS),
    Attack("event polls", Kind.RESOURCES, resources.event_polls, Sign.KEPT, DESCRIPTORS),
    Attack("message queues", Kind.RESOURCES, resources.message_queues, Sign.KEPT),
    Attack("System V queues", Kind.RESOURCES, resources.system_v_queues, Sign.KEPT),
    Attack("locked memory", Kind.RESOURCES, resources.locked_memory, Sign.KEPT),
    Attack("real time", Kind.RESOURCES, resources.real_time, Sign.CLAIM),
    Attack("higher priority", Kind.RESOURCES, resources.higher_priority, Sign.CLAIM),
    Attack("raised limits", Kind.RESOURCES, resources.raised_limits, Sign.CLAIM),
    Attack(
        "lock on the workspace",
        Kind.RESOURCES,
        resources.lock_the_workspace,
        Sign.SEEN,
        look=looks.lock_on_the_workspace,
    ),
    Attack("lock on a file", Kind.RESOURCES, resources.lock_a_file, Sign.SEEN, look=looks.lock_on_a_file),
    Attack("lease on a file", Kind.RESOURCES, resources.lease_on_a_file, Sign.SEEN, look=looks.held_up_writers),
)
