"""What the worker and the launcher's processes say to each other: small JSON messages with descriptors.

Standard library only: the launcher uses it too.
"""

import array
import json
import socket
from typing import Any, Final, NamedTuple

MESSAGE_BYTES: Final = 1 << 16


class Handed(NamedTuple):
    """The descriptors of one sandbox, in the order they are sent.

    The supervisor keeps `release`, the other end of `block`, so that the command is not let go when the worker dies.
    """

    spec: int
    stdin: int
    stdout: int
    stderr: int
    arguments: int
    filter: int
    block: int
    release: int


def receive(connection: socket.socket, descriptors: int) -> tuple[bytes, list[int]]:
    """One message with its descriptors, which are not inherited by later programs."""
    space = socket.CMSG_LEN(descriptors * 4)
    data, ancillary, _flags, _from = connection.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    received = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    return data, list(received)


def send(connection: socket.socket, message: dict[str, Any], descriptors: tuple[int, ...] = ()) -> None:
    """One JSON message with descriptors; never raises SIGPIPE."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    connection.sendmsg([json.dumps(message).encode()], rights, socket.MSG_NOSIGNAL)
