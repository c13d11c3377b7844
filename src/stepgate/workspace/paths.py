"""Which texts may name something in a workspace, decided without touching a file."""

from stepgate.domain.errors import PathRefused

MAX_DEPTH = 64
MAX_NAME_BYTES = 255
MAX_PATH_BYTES = 4095

# NTFS and FAT know `.git` by its short name too, where Linux and WSL2 mount them.
PROTECTED_NAMES = frozenset({".git", "git~1"})
# Code points that HFS+ drops when it compares names, so that ".g\u200cit" opens ".git" there (CVE-2014-9390).
_IGNORABLE = dict.fromkeys([*range(0x200C, 0x2010), *range(0x202A, 0x202F), *range(0x206A, 0x2070), 0xFEFF])


def check_relative(path: str, field: str = "path", *, allow_root: bool = False) -> str:
    """The path with `.` and empty components removed, as `a/b/c`; `""` for the workspace itself if `allow_root`.

    Raises PathRefused for absolute paths, `..`, NUL, text that is not UTF-8, over 64 components,
    names over 255 bytes and paths over 4095 bytes.
    """
    if not path:
        raise PathRefused("the path is empty", field=field, fix="name a file in the workspace")
    if path[0] == "/":
        raise PathRefused(
            "the path is absolute", field=field, fix="write it relative to the workspace, such as src/main.py"
        )
    if "\x00" in path:
        raise PathRefused("the path contains a NUL character", field=field, fix="remove the NUL character")
    try:
        size = len(path.encode())
    except UnicodeEncodeError as error:
        raise PathRefused("the path is not UTF-8", field=field, fix="rename the file to valid UTF-8") from error
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathRefused("the path contains '..'", field=field, fix="write it relative to the workspace, without '..'")
    if not parts and not allow_root:
        raise PathRefused("the path names the workspace itself", field=field, fix="name something inside it")
    if len(parts) > MAX_DEPTH:
        raise PathRefused(f"the path is more than {MAX_DEPTH} folders deep", field=field)
    if size > MAX_PATH_BYTES:
        raise PathRefused(f"the path is longer than {MAX_PATH_BYTES} bytes", field=field)
    if size > MAX_NAME_BYTES and any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise PathRefused(f"a name in the path is longer than {MAX_NAME_BYTES} bytes", field=field)
    return "/".join(parts)


def is_protected(path: str) -> bool:
    """Whether a relative path is, or lies beneath, something no step may read or change: `.git` in any spelling."""
    if path.isascii():
        lower = path.lower()
        return any(name in lower for name in PROTECTED_NAMES) and any(
            _folded(part) in PROTECTED_NAMES for part in path.split("/")
        )
    return any(_folded(part) in PROTECTED_NAMES for part in path.translate(_IGNORABLE).split("/"))


def _folded(name: str) -> str:
    # Trailing dots and blanks are dropped by SMB and NTFS, where Linux and macOS workspaces may lie; after a colon NTFS
    # names a stream of the same file or folder.
    return name.casefold().partition(":")[0].rstrip(". ")


def parent_of(path: str) -> str:
    """The folder a path lies in, `""` for the workspace itself."""
    return path.rpartition("/")[0]


def ancestors(path: str) -> tuple[str, ...]:
    """Every folder above a path, outermost first, without the workspace itself."""
    parts = path.split("/")[:-1]
    return tuple("/".join(parts[: depth + 1]) for depth in range(len(parts)))
