"""Attacks over networks and sockets."""

from typing import Final

from tests.escapes.attack import Attack, Kind, Sign
from tests.escapes.programs import network

ATTACKS: Final = (
    Attack("tcp", Kind.NETWORK, network.tcp, Sign.HEARD),
    Attack("tcp over IPv6", Kind.NETWORK, network.tcp6, Sign.HEARD),
    Attack("udp", Kind.NETWORK, network.udp, Sign.HEARD),
    Attack("udp over IPv6", Kind.NETWORK, network.udp6, Sign.HEARD),
    Attack("another address of the host", Kind.NETWORK, network.host_address, Sign.HEARD),
    Attack("tcp fast open", Kind.NETWORK, network.fast_open, Sign.HEARD),
    Attack("abstract stream", Kind.NETWORK, network.abstract_stream, Sign.HEARD),
    Attack("abstract datagram", Kind.NETWORK, network.abstract_datagram, Sign.HEARD),
    Attack("path socket", Kind.NETWORK, network.path_socket, Sign.HEARD),
    Attack("path socket by magic link", Kind.NETWORK, network.path_socket_by_magic_link, Sign.HEARD),
    Attack("planted socket", Kind.NETWORK, network.planted_socket, Sign.HEARD),
    Attack("planted datagram socket", Kind.NETWORK, network.planted_datagram_socket, Sign.HEARD),
    Attack("socket in .git", Kind.NETWORK, network.socket_of_git, Sign.HEARD),
    Attack("inherited socket", Kind.NETWORK, network.inherited_socket, Sign.HEARD),
    Attack("interfaces", Kind.NETWORK, network.host_interfaces, Sign.CLAIM),
    Attack("netlink", Kind.NETWORK, network.netlink_families, Sign.CLAIM),
    Attack("packet", Kind.NETWORK, network.packet, Sign.CLAIM),
    Attack("raw", Kind.NETWORK, network.raw_internet, Sign.CLAIM),
    Attack("other families", Kind.NETWORK, network.other_families, Sign.CLAIM),
    Attack("other protocols", Kind.NETWORK, network.other_protocols, Sign.CLAIM),
    Attack("vsock", Kind.NETWORK, network.virtual_machine_socket, Sign.CLAIM),
    Attack("kernel cryptography", Kind.NETWORK, network.kernel_crypto, Sign.CLAIM),
    Attack("tun", Kind.NETWORK, network.tunnel, Sign.CLAIM),
    Attack("io_uring connects", Kind.NETWORK, network.ring_connects, Sign.CLAIM),
    Attack("set up an interface", Kind.NETWORK, network.set_up_interface, Sign.CLAIM),
)
