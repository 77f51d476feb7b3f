"""Starts etcd, kube-apiserver and kube-controller-manager on loopback, as children of this process.

python -m tests.cluster.real.control_plane -- pytest tests/cluster     # the command sees CORTEX_TEST_KUBECONFIG
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from tests.cluster.certificates import self_signed
from tests.cluster.real.build import CannotBuildError, binaries
from tests.ports import free_ports

KUBECONFIG = "CORTEX_TEST_KUBECONFIG"
_START_SECONDS = 60
_STOP_SECONDS = 15
_TOKEN = "tests"  # on loopback, for as long as the tests run
_CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "ttl-after-finished-controller",
    "disruption-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
)


class ControlPlane:
    """The three processes."""

    def __init__(self, programs: Path, directory: Path) -> None:
        self._programs = programs
        self._directory = directory
        self._etcd, self._peers, self._api, self._manager = free_ports(4)
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def kubeconfig(self) -> Path:
        """For an administrator."""
        return self._directory / "kubeconfig"

    def start(self) -> None:
        """Raises RuntimeError with the log's end when it does not come up."""
        certificate, key = self_signed()
        (self._directory / "tls.crt").write_bytes(certificate)
        (self._directory / "tls.key").write_bytes(key)
        (self._directory / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
        self.kubeconfig.write_text(json.dumps(self._configuration()))
        self._run("etcd", self._etcd_flags())
        self._run("kube-apiserver", self._api_flags())
        self._wait()
        self._run("kube-controller-manager", self._manager_flags())

    def stop(self) -> None:
        """All of them, the last one first."""
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _etcd_flags(self) -> dict[str, object]:
        client, peers = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peers}"
        return {
            "data-dir": self._directory / "etcd",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
            "unsafe-no-fsync": "true",
            "log-level": "error",
        }

    def _api_flags(self) -> dict[str, object]:
        keys = self._directory / "tls.key"
        return {
            "etcd-servers": f"http://127.0.0.1:{self._etcd}",
            "bind-address": "127.0.0.1",
            "secure-port": self._api,
            "tls-cert-file": self._directory / "tls.crt",
            "tls-private-key-file": keys,
            "cert-dir": self._directory,
            "token-auth-file": self._directory / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": "10.96.0.0/16",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": keys,
            "service-account-signing-key-file": keys,
            "endpoint-reconciler-type": "none",
            "kubelet-preferred-address-types": "InternalIP",
            "v": "0",
        }

    def _manager_flags(self) -> dict[str, object]:
        return {
            "kubeconfig": self.kubeconfig,
            "bind-address": "127.0.0.1",
            "secure-port": self._manager,
            "cert-dir": self._directory / "manager",
            "controllers": ",".join(_CONTROLLERS),
            "leader-elect": "false",
            "root-ca-file": self._directory / "tls.crt",
            "node-monitor-period": "1s",
            "node-monitor-grace-period": "4s",
            "v": "0",
        }

    def _run(self, program: str, flags: dict[str, object]) -> None:
        command = [str(self._programs / program), *(f"--{name}={value}" for name, value in flags.items())]
        with (self._directory / f"{program}.log").open("wb") as output:
            self._processes.append(
                subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
                )
            )

    def _wait(self) -> None:
        context = ssl.create_default_context(cafile=str(self._directory / "tls.crt"))
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and all(process.poll() is None for process in self._processes):
            try:
                with urllib.request.urlopen(f"https://127.0.0.1:{self._api}/readyz", context=context, timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        logs = [path.read_text(errors="replace")[-2000:] for path in self._directory.glob("*.log")]
        raise RuntimeError("the control plane does not come up:\n" + "\n".join(logs))

    def _configuration(self) -> dict[str, object]:
        cluster = {
            "server": f"https://127.0.0.1:{self._api}",
            "certificate-authority": str(self._directory / "tls.crt"),
        }
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "real", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "real", "context": {"cluster": "real", "user": "admin", "namespace": "default"}}],
            "current-context": "real",
        }


def main(command: list[str]) -> int:
    """Run a command beside a control plane; its exit code."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cb-control-plane-")))
        plane = ControlPlane(binaries(), directory)
        stack.callback(plane.stop)
        plane.start()
        return subprocess.run(command, env={**os.environ, KUBECONFIG: str(plane.kubeconfig)}, check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[sys.argv.index("--") + 1 :]))
    except (CannotBuildError, RuntimeError) as error:
        sys.exit(f"no control plane: {error}")
