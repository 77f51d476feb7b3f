"""One pod on a node, from its binding to its end.

Images, volumes, network; init containers one by one, where one with `restartPolicy: Always` is a sidecar: the next one
starts when it has started, and it goes on, restarted in place as often as it ends. Then the main containers. When
those have ended for good, or the pod is to go, what still runs is stopped: first the main containers, then the sidecars
in the reverse of their order, all within the one grace period.
"""

import asyncio
import contextlib
import logging
import time
from pathlib import Path

from services.common.errors import CortexError
from services.common.kubernetes import PODS, Cluster, Object
from services.dequeuer.pod.expansion import expand
from tests.cluster.api.clock import now
from tests.cluster.kubelet.container import Container, found
from tests.cluster.kubelet.environment import ConfigurationError, variables_of
from tests.cluster.kubelet.images import CHECKOUT
from tests.cluster.kubelet.mounts import Mount
from tests.cluster.kubelet.network import Network, Service
from tests.cluster.kubelet.probes import probe
from tests.cluster.kubelet.settings import Settings
from tests.cluster.kubelet.status import final_phase, status_of
from tests.cluster.kubelet.volumes import Volumes

log = logging.getLogger(__name__)

_REPORT_SECONDS = 0.2


class Pod:
    """Runs a pod that is bound to one of our nodes."""

    def __init__(self, cluster: Cluster, settings: Settings, pod: Object, address: str) -> None:
        self.pod = pod
        self.uid: str = pod["metadata"]["uid"]
        self._cluster = cluster
        self._settings = settings
        self._directory = settings.directory / self.uid
        spec = pod["spec"]
        logs = self._directory / "logs"
        self.initial = [Container(one, logs / one["name"], self._changed) for one in spec.get("initContainers") or []]
        self.mains = [Container(one, logs / one["name"], self._changed) for one in spec["containers"]]
        self.network = Network(address, self._hostname)
        self._volumes = Volumes(cluster, pod, self._directory / "volumes")
        self._known: Object = {"startTime": now(), "qosClass": (pod.get("status") or {}).get("qosClass", "BestEffort")}
        self._known |= {"hostIP": "127.0.0.1", "hostIPs": [{"ip": "127.0.0.1"}]}
        self._news = asyncio.Event()
        self._leaving = asyncio.Event()
        self._lives: dict[str, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()
        self._gone = False
        """The API has forgotten the pod, or the node is lost: nothing is reported any more."""

    @property
    def _hostname(self) -> str:
        return str(self.pod["spec"].get("hostname") or self.pod["metadata"]["name"])[:63]

    # What others say

    def update(self, pod: Object) -> None:
        """The API's latest word."""
        self.pod = pod
        if "deletionTimestamp" in pod["metadata"]:
            self._leaving.set()

    def vanish(self) -> None:
        """Everything ends at once, and nobody hears of it."""
        self._gone = True
        for container in [*self.initial, *self.mains]:
            container.kill()
        self._leaving.set()

    def evict(self, reason: str, message: str) -> None:
        """The node needs the room: the pod fails, by no fault of its own."""
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
        self._known |= {"reason": reason, "message": message}
        self._known["conditions"] = [{**condition, "lastTransitionTime": now()}]
        self._leaving.set()

    def container(self, name: str) -> Container:
        """By name."""
        return next(one for one in [*self.initial, *self.mains] if one.name == name)

    # The pod's life

    async def run(self) -> None:
        """Until it has ended, and its end has been told."""
        reporting = asyncio.create_task(self._report())
        refreshing = asyncio.create_task(self._refresh())
        working = asyncio.create_task(self._work())
        leaving = asyncio.create_task(self._leaving.wait())
        try:
            await asyncio.wait([working, leaving], return_when=asyncio.FIRST_COMPLETED)
            await self._stop(working)
            self._known["phase"] = final_phase(self.initial, self.mains)
            if self._known.get("reason") == "Evicted":
                self._known["phase"] = "Failed"
            self._changed()
            await self._told()
            leaving = asyncio.create_task(self._leaving.wait())
            if not self._gone and "deletionTimestamp" not in self.pod["metadata"]:
                return
            if not self._gone:
                await self._delete()
        finally:
            for task in (reporting, refreshing, working, leaving, *self._lives.values()):
                task.cancel()
            for container in [*self.initial, *self.mains]:
                container.kill()
            await self.network.stop()
            self._volumes.remove()

    async def _work(self) -> None:
        await self._prepare()
        for container in self.initial:
            if not await self._initialize(container):
                return
        for container in self.mains:
            await self._pull(container)
            self._lives[container.name] = asyncio.create_task(self._live(container))
        await asyncio.gather(*(self._lives[one.name] for one in self.mains))

    async def _prepare(self) -> None:
        """Volumes and network, tried again until they are there."""
        for container in [*self.initial, *self.mains]:
            container.wait("PodInitializing" if self.initial else "ContainerCreating")
        while True:
            try:
                await self._volumes.make()
                await self.network.start(self._services())
                break
            except (ConfigurationError, CortexError) as error:
                log.info("%s: %s", self.pod["metadata"]["name"], error)
                await asyncio.sleep(self._settings.refresh_seconds)
        self._known |= {"podIP": self.network.address, "podIPs": [{"ip": self.network.address}]}
        (self._directory / "hosts").write_text(self.network.hosts())
        self._changed()

    def _services(self) -> list[Service]:
        """What it reaches: where it listens at all addresses itself, nobody else can listen at one of them."""
        containers = [*self.initial, *self.mains]
        own = {port["containerPort"] for one in containers for port in one.spec.get("ports") or []}
        return [
            Service(one.name, {port: backends for port, backends in one.ports.items() if port not in own})
            for one in self._settings.services
        ]

    async def _initialize(self, container: Container) -> bool:
        """False when the pod cannot be initialized any more."""
        await self._pull(container)
        life = asyncio.create_task(self._live(container))
        self._lives[container.name] = life
        if not container.sidecar:
            await life
            return container.exit_code == 0
        while not container.started:
            await asyncio.sleep(0.01)
        return True

    async def _pull(self, container: Container) -> None:
        image, tries = container.spec["image"], 0
        while image in self._settings.images.missing:
            message = f'failed to pull and unpack image "{image}": not found'
            container.wait("ErrImagePull", message)
            await asyncio.sleep(self._settings.pull_backoff_seconds)
            tries += 1
            container.wait("ImagePullBackOff", f'Back-off pulling image "{image}": {message}')
            await asyncio.sleep(self._settings.pull_backoff_seconds * min(2**tries, 16))

    async def _live(self, container: Container) -> None:
        """All lives of one container."""
        delay = 0.0
        while True:
            code = await self._once(container)
            policy = "Always" if container.sidecar else self.pod["spec"]["restartPolicy"]
            if policy == "Always" and container in self.initial and not container.sidecar:
                policy = "OnFailure"
            if self._stopping.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return
            if delay:
                message = f"back-off {delay:g}s restarting failed container={container.name}"
                container.wait("CrashLoopBackOff", message)
            await asyncio.sleep(delay)
            if self._stopping.is_set():
                return
            longer = delay * 2 or self._settings.crash_backoff_seconds
            delay = min(longer, self._settings.most_backoff_seconds)

    async def _once(self, container: Container) -> int:
        """One life, with its probes."""
        known = {**self._settings.images.environment, "HOSTNAME": self._hostname, "PWD": str(CHECKOUT)}
        told = {**self.pod, "status": {**(self.pod.get("status") or {}), **self._known}}
        while True:
            try:
                environment = await variables_of(self._cluster, told, container.spec, known)
                break
            except (ConfigurationError, CortexError) as error:
                container.wait("CreateContainerConfigError", str(error))
                await asyncio.sleep(self._settings.refresh_seconds)
        own = {name: value for name, value in environment.items() if name not in known}
        entrypoint = self._settings.images.entrypoints.get(container.spec["image"], [])
        command = [expand(word, own) for word in container.spec.get("command") or entrypoint]
        command += [expand(word, own) for word in container.spec.get("args") or []]
        mounts = self._mounts(container, own)
        if not command or not found(command[0], environment, mounts):
            return container.fail_to_start(
                f'exec: "{command[0] if command else ""}": executable file not found in $PATH'
            )
        killed = asyncio.Event()
        probing = asyncio.create_task(self._probe(container, environment, killed))
        try:
            return await container.run(command, environment, mounts, self.network.entering(), self._hostname)
        finally:
            probing.cancel()

    async def _probe(self, container: Container, environment: dict[str, str], killed: asyncio.Event) -> None:
        while not container.running:
            await asyncio.sleep(0.01)
        probing = asyncio.create_task(probe(container, self.network, environment, killed))
        try:
            await killed.wait()
            grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30)
            await container.stop(time.monotonic() + grace)
        finally:
            probing.cancel()

    def _mounts(self, container: Container, variables: dict[str, str]) -> list[Mount]:
        found = [Mount(self._directory / "hosts", str(Path("/etc/hosts").resolve()), read_only=True)]
        sources = {volume["name"]: volume for volume in self.pod["spec"].get("volumes") or []}
        for given in container.spec.get("volumeMounts") or []:
            part = expand(given.get("subPathExpr", ""), variables) or given.get("subPath", "")
            source = self._volumes.path(given["name"]) / part
            if part and not source.exists():
                source.mkdir(parents=True)
            fixed = {"emptyDir", "hostPath"}.isdisjoint(sources[given["name"]])
            found.append(
                Mount(source.resolve() if part else source, given["mountPath"], fixed or bool(given.get("readOnly")))
            )
        return found

    # Its end

    async def _stop(self, working: asyncio.Task[None]) -> None:
        """Main containers first, then sidecars from the last to the first."""
        self._stopping.set()
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
        asked = self.pod["metadata"].get("deletionGracePeriodSeconds")
        grace = self.pod["spec"].get("terminationGracePeriodSeconds", 30) if asked is None else asked
        deadline = time.monotonic() + (0 if self._gone or self._known.get("reason") == "Evicted" else grace)
        await asyncio.gather(*(self._end(one, deadline) for one in self.mains))
        for container in reversed(self.initial):
            await self._end(container, deadline)

    async def _end(self, container: Container, deadline: float) -> None:
        await container.stop(deadline)
        life = self._lives.get(container.name)
        if life is not None and not container.running:
            life.cancel()
        if life is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await life
        if "waiting" in container.state and container.restarts >= 0:
            container.state = container.last_state or container.state

    async def _delete(self) -> None:
        metadata = self.pod["metadata"]
        while True:
            with contextlib.suppress(CortexError):
                await self._cluster.delete(PODS, metadata["namespace"], metadata["name"], uid=self.uid, grace_seconds=0)
                return
            await asyncio.sleep(_REPORT_SECONDS)

    # Its reports

    def _changed(self) -> None:
        self._news.set()

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(self._settings.refresh_seconds)
            await self._volumes.refresh()

    async def _report(self) -> None:
        while True:
            await self._news.wait()
            if self._gone:
                return
            await self._told()
            await asyncio.sleep(0.01)

    async def _told(self) -> None:
        """The status of now is at the API server."""
        while not self._gone:
            self._news.clear()
            status = status_of(self.pod, self.initial, self.mains, self._known)
            metadata = self.pod["metadata"]
            change = {"metadata": {"uid": self.uid, "resourceVersion": metadata["resourceVersion"]}, "status": status}
            try:
                self.pod = await self._cluster.patch(PODS, metadata["namespace"], metadata["name"], change, "status")
                return
            except CortexError as error:
                if error.kind == "kubernetes.conflict":
                    await self._look_again()
                    continue
                if error.kind == "kubernetes.not_found":
                    self._gone = True
                    return
                log.info("%s: %s", metadata["name"], error.message)
            await asyncio.sleep(_REPORT_SECONDS)

    async def _look_again(self) -> None:
        metadata = self.pod["metadata"]
        with contextlib.suppress(CortexError):
            pod = await self._cluster.get(PODS, metadata["namespace"], metadata["name"])
            if pod is None or pod["metadata"]["uid"] != self.uid:
                self.vanish()
            else:
                self.update(pod)
