"""A way out of a network namespace that ends nowhere, and a note of every packet that takes it.

with listening(folder) as heard: ...        # heard: {"tcp 192.0.2.1:443", "dns 10.88.0.2: example.org", …}
"""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RESOLVER, _OTHER_END = "10.88.0.2", "nowhere"
_ALL, _IPV4 = 0x0003, 0x0800
_PROTOCOLS = {6: "tcp", 17: "udp"}


@contextmanager
def listening(folder: Path) -> Iterator[set[str]]:
    """Leads packets for other machines, and questions to DNS, to where nobody answers; what was sent so far."""
    heard: set[str] = set()
    _lead(folder)
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL)) as ear:
        ear.bind((_OTHER_END, 0))
        ear.settimeout(0.2)
        ended = threading.Event()
        listener = threading.Thread(target=_listen, args=(ear, heard, ended))
        listener.start()
        try:
            yield heard
        finally:
            ended.set()
            listener.join()


def call_outside() -> None:
    """Something that has to be heard."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        any_socket.sendto(b"?", ("192.0.2.1", 9))


def _lead(folder: Path) -> None:
    Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")  # it would look for routers by itself
    resolver = folder / "resolv.conf"
    resolver.write_text(f"nameserver {RESOLVER}\n", "utf8")
    for command in (
        f"mount --bind {resolver} /etc/resolv.conf",
        f"ip link add outside type veth peer name {_OTHER_END}",
        f"ip link set {_OTHER_END} up",
        "ip addr add 10.88.0.1/24 dev outside",
        "ip link set outside up",
        f"ip neigh add {RESOLVER} lladdr 02:00:00:00:00:01 dev outside nud permanent",
        f"ip route add default via {RESOLVER}",
    ):
        subprocess.run(command.split(), check=True)


def _listen(ear: socket.socket, heard: set[str], ended: threading.Event) -> None:
    """Until `ended`, and then until nothing comes any more."""
    while True:
        try:
            heard.add(_said(ear.recv(65535)))
        except TimeoutError:
            if ended.is_set():
                return


def _said(frame: bytes) -> str:
    """Protocol, address and port of an Ethernet frame; of a question to DNS, its name."""
    packet = frame[14:]
    if int.from_bytes(frame[12:14], "big") != _IPV4:
        return f"a frame of type {frame[12:14].hex()}"
    length = (packet[0] & 0x0F) * 4
    body, address = packet[length:], socket.inet_ntoa(packet[16:20])
    port = int.from_bytes(body[2:4], "big")
    if packet[9] == socket.IPPROTO_UDP and port == 53:
        return f"dns {address}: {_name(body[20:])}"
    return f"{_PROTOCOLS.get(packet[9], packet[9])} {address}:{port}"


def _name(question: bytes) -> str:
    labels = []
    while question and (size := question[0]):
        labels.append(question[1 : size + 1].decode("ascii", "replace"))
        question = question[size + 1 :]
    return ".".join(labels)
