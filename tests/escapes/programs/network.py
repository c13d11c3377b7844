"""Reaching anything that listens on the host, and anything beyond."""

import ctypes
import fcntl
import os
import socket
import struct
from typing import Any

from tests.escapes.inside import FACTS, call, claim, each


def _connect(family: int, address: Any) -> None:
    with socket.socket(family) as client:
        client.settimeout(3)
        client.connect(address)
        client.sendall(FACTS["token"].encode())


def _send(family: int, address: Any) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.sendto(FACTS["token"].encode(), address)


def tcp() -> None:
    _connect(socket.AF_INET, ("127.0.0.1", FACTS["tcp"]))


def tcp6() -> None:
    _connect(socket.AF_INET6, ("::1", FACTS["tcp6"]))


def udp() -> None:
    _send(socket.AF_INET, ("127.0.0.1", FACTS["udp"]))


def udp6() -> None:
    _send(socket.AF_INET6, ("::1", FACTS["udp6"]))


def host_address() -> None:
    each(
        *(
            lambda address=address: _connect(socket.AF_INET, (address, FACTS["tcp_any"]))
            for address in FACTS["addresses"]
        )
    )


def fast_open() -> None:
    MSG_FASTOPEN = 0x20000000
    with socket.socket() as client:
        client.sendto(FACTS["token"].encode(), MSG_FASTOPEN, ("127.0.0.1", FACTS["tcp"]))


def abstract_stream() -> None:
    _connect(socket.AF_UNIX, "\0" + FACTS["abstract"])


def abstract_datagram() -> None:
    _send(socket.AF_UNIX, "\0" + FACTS["abstract_datagram"])


def path_socket() -> None:
    _connect(socket.AF_UNIX, FACTS["socket"])


def path_socket_by_magic_link() -> None:
    each(
        lambda: _connect(socket.AF_UNIX, f"/proc/self/root{FACTS['socket']}"),
        lambda: _connect(socket.AF_UNIX, f"/proc/1/root{FACTS['socket']}"),
    )


def planted_socket() -> None:
    _connect(socket.AF_UNIX, "listening")


def planted_datagram_socket() -> None:
    _send(socket.AF_UNIX, "listening-datagram")


def socket_of_git() -> None:
    _connect(socket.AF_UNIX, ".git/listening")


def inherited_socket() -> None:
    for number in range(3, 256):
        try:
            with socket.socket(fileno=os.dup(number)) as found:
                found.sendall(FACTS["token"].encode())
        except OSError:
            continue


def host_interfaces() -> None:
    names = [name for _index, name in socket.if_nameindex()]
    if set(names) & set(FACTS["interfaces"]) - {"lo"}:
        claim(f"interfaces of the host: {names}")


def netlink_families() -> None:
    for protocol in (4, 6, 9, 12, 15, 16, 20, 21):
        try:
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).close()
        except OSError:
            continue
        claim(f"netlink {protocol} was opened")


def packet() -> None:
    each(
        lambda: _opened(socket.AF_PACKET, socket.SOCK_RAW, 0),
        lambda: _opened(socket.AF_PACKET, socket.SOCK_DGRAM, 0),
    )


def raw_internet() -> None:
    each(lambda: _opened(socket.AF_INET, socket.SOCK_RAW, 1), lambda: _opened(socket.AF_INET6, socket.SOCK_RAW, 58))


def _opened(family: int, kind: int, protocol: int) -> None:
    socket.socket(family, kind, protocol).close()
    claim(f"a socket of family {int(family)}, kind {int(kind)}, protocol {protocol} was made")


def other_families() -> None:
    for family in set(range(3, 46)) - {10, 16}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                _opened(family, kind, 0)
            except OSError:
                continue


def other_protocols() -> None:
    kinds = (
        (socket.SOCK_STREAM, 132),
        (socket.SOCK_SEQPACKET, 132),
        (socket.SOCK_STREAM, 262),
        (socket.SOCK_DGRAM, 136),
    )
    each(*(lambda kind=kind, protocol=protocol: _opened(socket.AF_INET, kind, protocol) for kind, protocol in kinds))


def virtual_machine_socket() -> None:
    AF_VSOCK = 40
    socket.socket(AF_VSOCK, socket.SOCK_STREAM).close()
    claim("a socket to the hypervisor was made")


def kernel_crypto() -> None:
    AF_ALG = 38
    socket.socket(AF_ALG, socket.SOCK_SEQPACKET).close()
    claim("a socket to the kernel's cryptography was made")


def tunnel() -> None:
    os.close(os.open("/dev/net/tun", os.O_RDWR))
    claim("the driver of virtual interfaces was opened")


def ring_connects() -> None:
    ring = call("io_uring_setup", 4, ctypes.create_string_buffer(120))
    claim(f"ring {ring} connects past the filter")


def set_up_interface() -> None:
    SIOCSIFFLAGS = 0x8914
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", 0x1 | 0x8 | 0x40))
    claim("an interface was set up")
