"""Attacks on interfaces of the kernel."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import kernel

ATTACKS: Final = (
    Attack("bpf map", Kind.KERNEL, kernel.bpf_map, Sign.CLAIM),
    Attack("bpf program", Kind.KERNEL, kernel.bpf_program, Sign.CLAIM),
    Attack("io_uring", Kind.KERNEL, kernel.io_uring, Sign.CLAIM),
    Attack("add_key", Kind.KERNEL, kernel.add_key, Sign.CLAIM),
    Attack("keyctl", Kind.KERNEL, kernel.session_keys, Sign.CLAIM),
    Attack("request_key", Kind.KERNEL, kernel.request_key, Sign.CLAIM),
    Attack("userfaultfd", Kind.KERNEL, kernel.fault_handling, Sign.CLAIM),
    Attack("perf_event_open", Kind.KERNEL, kernel.performance_events, Sign.CLAIM),
    Attack("x32 entry", Kind.KERNEL, kernel.x32_entry, Sign.CLAIM),
    Attack("i386 entry", Kind.KERNEL, kernel.i386_entry, Sign.CLAIM),
    Attack("kexec_load", Kind.KERNEL, kernel.new_kernel, Sign.CLAIM),
    Attack("modules", Kind.KERNEL, kernel.load_module, Sign.CLAIM),
    Attack("kernel log", Kind.KERNEL, kernel.kernel_log, Sign.CLAIM),
    Attack("swapon", Kind.KERNEL, kernel.swap, Sign.CLAIM),
    Attack("reboot", Kind.KERNEL, kernel.reboot, Sign.CLAIM),
    Attack("acct", Kind.KERNEL, kernel.accounting, Sign.CLAIM),
    Attack("quotactl", Kind.KERNEL, kernel.quota, Sign.CLAIM),
    Attack("set time", Kind.KERNEL, kernel.set_time, Sign.CLAIM),
    Attack("iopl and ioperm", Kind.KERNEL, kernel.port_access, Sign.CLAIM),
    Attack("modify_ldt", Kind.KERNEL, kernel.local_descriptors, Sign.CLAIM),
    Attack("fanotify", Kind.KERNEL, kernel.watch_the_file_system, Sign.CLAIM),
    Attack("vmsplice", Kind.KERNEL, kernel.give_pages, Sign.CLAIM),
    Attack("filter replaced", Kind.KERNEL, kernel.filter_replaced, Sign.CLAIM),
    Attack("personality", Kind.KERNEL, kernel.filter_taken_off, Sign.CLAIM),
    Attack("page zero", Kind.KERNEL, kernel.page_zero, Sign.CLAIM),
    Attack("/proc/sys", Kind.KERNEL, kernel.kernel_settings, Sign.CLAIM),
    Attack("sysrq", Kind.KERNEL, kernel.magic_keys, Sign.CLAIM),
    Attack("memory of the machine", Kind.KERNEL, kernel.memory_of_the_machine, Sign.CLAIM),
    Attack("control groups", Kind.KERNEL, kernel.cgroup_files, Sign.CLAIM),
    Attack("memfd_secret", Kind.KERNEL, kernel.hidden_memory, Sign.CLAIM),
    Attack("core dump", Kind.KERNEL, kernel.dump_core, Sign.CLAIM),
)
