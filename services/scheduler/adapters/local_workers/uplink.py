"""Outgoing network for a worker's network namespace, by slirp4netns where it is installed.

slirp4netns carries the namespace's connections from outside, with this machine's network. So it is started here and not
by the dequeuer, which has left that network. A socket joins the two. The dequeuer says on it that its namespace is
there, slirp4netns that the network is, and the kernel closes the dequeuer's end however the dequeuer dies, which
slirp4netns takes as its own end; a dead scheduler disturbs neither.

The machine's loopback stays out of reach (`--disable-host-loopback`), but for names: slirp4netns has an address from
which it carries questions to the machine's resolver, wherever that is. (libslirp before 4.7 carries every port of that
address, so that there a resolver on 127.0.0.1 opens its neighbours too.)

Why not pasta, which would do as well: it has no descriptor that says when it is ready and none that ends it.
"""

import shutil
import socket
import subprocess
from pathlib import Path

from services.scheduler.adapters.local_workers.processes import Watched, start_time

LOG = "uplink.log"
"""What slirp4netns says, in the worker's directory."""

RESOLV_CONF = "resolv.conf"
"""What the worker's containers are to find as /etc/resolv.conf, in the worker's directory."""

_CIDR = "198.19.73.0/24"
"""Of a range that no network uses (RFC 2544); slirp4netns's own choice is also that of common virtual machines."""

_NAME_SERVER = "198.19.73.3"
"""slirp4netns's, always the third."""

_ATTACH = 'read -r go && exec "$@" 3>&0'
"""Waits until the namespace is there."""


class Uplink:
    """The socket between a dequeuer and its slirp4netns; held here only until both have it."""

    def __init__(self) -> None:
        """Raises FileNotFoundError where slirp4netns is not installed."""
        program = shutil.which("slirp4netns")
        if program is None:
            raise FileNotFoundError("slirp4netns is not installed")
        options = ["--configure", "--disable-host-loopback", f"--cidr={_CIDR}"]
        self._command = ["/bin/sh", "-c", _ATTACH, "sh", program, *options, "--exit-fd=0", "--ready-fd=3"]
        self._ours, self._dequeuers = socket.socketpair()

    @property
    def fd(self) -> int:
        """The dequeuer's end."""
        return self._dequeuers.fileno()

    def attach(self, pid: int, variables: dict[str, str], directory: Path) -> None:
        """Start what waits for the namespace of this dequeuer. Raises OSError."""
        (directory / RESOLV_CONF).write_text(_resolv_conf(Path("/etc/resolv.conf")))
        with (directory / LOG).open("wb") as output:
            process = subprocess.Popen(
                [*self._command, str(pid), "tap0"],
                env=variables,
                stdin=self._ours.fileno(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        process.returncode = 0  # tells Popen that it need not wait for it: `Watched` does
        Watched(process.pid, start_time(process.pid) or 0.0, lambda _: None)

    def close(self) -> None:
        """Leave it to those two."""
        self._ours.close()
        self._dequeuers.close()


def _resolv_conf(machines: Path) -> str:
    """The machine's, but for the name servers."""
    try:
        lines = machines.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join([f"nameserver {_NAME_SERVER}", *(line for line in lines if "nameserver" not in line), ""])
