"""Attacks on processes of the host."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import processes

ATTACKS: Final = (
    Attack("terminate", Kind.PROCESSES, processes.terminate, Sign.HARMED),
    Attack(
        "signal everybody",
        Kind.PROCESSES,
        processes.signal_everybody,
        Sign.HARMED,
        harmful="every process of the user would be signalled",
    ),
    Attack("terminate a group", Kind.PROCESSES, processes.terminate_group, Sign.HARMED),
    Attack("terminate by descriptor", Kind.PROCESSES, processes.terminate_by_descriptor, Sign.HARMED),
    Attack("queue a signal", Kind.PROCESSES, processes.queue_signal, Sign.HARMED),
    Attack("signal by the owner of a descriptor", Kind.PROCESSES, processes.signal_by_descriptor_owner, Sign.HARMED),
    Attack("ptrace", Kind.PROCESSES, processes.trace, Sign.CLAIM),
    Attack("process_vm_readv", Kind.PROCESSES, processes.read_memory, Sign.TOLD),
    Attack("process_vm_writev", Kind.PROCESSES, processes.write_memory, Sign.HARMED),
    Attack("/proc/pid/mem", Kind.PROCESSES, processes.memory_file, Sign.TOLD),
    Attack("environment of a process", Kind.PROCESSES, processes.environment_of_a_process, Sign.TOLD),
    Attack("arguments of every process", Kind.PROCESSES, processes.arguments_of_every_process, Sign.TOLD),
    Attack("pidfd_getfd", Kind.PROCESSES, processes.take_descriptor, Sign.TOLD),
    Attack("kcmp", Kind.PROCESSES, processes.compare, Sign.CLAIM),
    Attack("priority", Kind.PROCESSES, processes.priority, Sign.HARMED),
    Attack("affinity", Kind.PROCESSES, processes.affinity, Sign.HARMED),
    Attack("limits of a process", Kind.PROCESSES, processes.limits_of_a_process, Sign.HARMED),
    Attack("disk priority", Kind.PROCESSES, processes.disk_priority, Sign.CLAIM),
    Attack("out-of-memory score", Kind.PROCESSES, processes.memory_killer_score, Sign.HARMED),
    Attack("move pages", Kind.PROCESSES, processes.move_pages_of_a_process, Sign.CLAIM),
    Attack("list processes", Kind.PROCESSES, processes.list_processes, Sign.CLAIM),
    Attack("signal the parent", Kind.PROCESSES, processes.stop_the_parent, Sign.CLAIM),
)
