"""Secrets that an installation makes for itself once, in files of the state folder that only its user can read."""

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from stepgate.domain.errors import InvalidValue

AUDIT_KEY = "audit-key.pem"


def local_secret(state_dir: Path) -> str:
    """Proves that a caller can read this user's files."""
    return _kept(state_dir / "local-secret", lambda: secrets.token_urlsafe(32) + "\n").strip()


def secret_versions_key(state_dir: Path) -> bytes:
    """Keys the versions of secrets, so that nobody who sees a version can try values against it."""
    return _kept(state_dir / "secret-versions-key", lambda: secrets.token_urlsafe(32) + "\n").strip().encode()


def audit_key(state_dir: Path, configured: Path | None = None) -> Ed25519PrivateKey:
    """What audit bundles are signed with: the configured PEM file (PKCS#8, Ed25519), else one made for good.

    Raises InvalidValue for a configured file that holds no such key.
    """
    text = _kept(state_dir / AUDIT_KEY, _new_key) if configured is None else _read(configured)
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _no_key(configured or state_dir / AUDIT_KEY, str(error)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _no_key(configured or state_dir / AUDIT_KEY, "a key of another kind")
    return key


def _new_key() -> str:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _no_key(path, str(error)) from error


def _no_key(path: Path, why: str) -> InvalidValue:
    return InvalidValue(
        f"{path} holds no Ed25519 key: {why}",
        field="STEPGATE_AUDIT_KEY",
        fix="make one with `openssl genpkey -algorithm ed25519`, unencrypted, or unset it",
    )


def _kept(path: Path, make: Callable[[], str]) -> str:
    """The text of the file; made first, 0600, by whichever process comes first."""
    try:
        return path.read_text("utf-8")
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    temporary.touch(mode=0o600)
    temporary.write_text(make(), "utf-8")
    with suppress(FileExistsError):  # a link, unlike a rename, never replaces what another process made first
        path.hardlink_to(temporary)
    temporary.unlink()
    return path.read_text("utf-8")
