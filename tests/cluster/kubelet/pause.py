"""The first process of a pod: it holds the network namespace, and makes sockets in it for the kubelet.

Run by itself, without our packages: `python -I -S pause.py FD`. Requests and answers are datagrams of JSON; a socket
comes along with its answer.
"""

import fcntl
import json
import socket
import struct
import sys

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR = 0x8913, 0x8914, 0x8916
_IFF_UP = 0x1


def main() -> None:
    """Until the kubelet closes its end."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    _bring_up()
    channel.send(b"{}")
    while request := channel.recv(4096):
        try:
            made = _made(json.loads(request))
        except OSError as error:
            channel.send(json.dumps({"error": str(error)}).encode())
            continue
        with made:
            socket.send_fds(channel, [b"{}"], [made.fileno()])


def _made(request: dict[str, object]) -> socket.socket:
    """A listening socket, or one that is to be connected."""
    if "listen" not in request:
        return socket.socket()
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((str(request["listen"]), int(str(request["port"]))))
    made.listen(128)
    return made


def _bring_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", b"lo", 0))
        (flags,) = struct.unpack_from("H", answer, 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(sys.argv[2]))
        fcntl.ioctl(control, _SIOCSIFADDR, address)


if __name__ == "__main__":
    main()
