"""The whole suite as it is deployed: what the chart renders, run as pods by the tests' cluster.

Two gateways, two schedulers that a Lease elects one of, two controllers, the collector, and the real Envoy in front
with TLS and tokens: images are entry points, everything else (settings, secrets, rights, probes, services, namespaces,
the order of nodes) is the chart's. Beside them a real PostgreSQL and an S3 server. Clients come in by the edge alone.
"""

import asyncio
import base64
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from services.common.kubernetes import CONFIG_MAPS, JOBS, PODS, SECRETS, Object
from tests.cluster.kit import TestCluster
from tests.cluster.kubelet.kubelet import Node
from tests.cluster.release import Release
from tests.contract.object_servers import AwsServer, running_ministack
from tests.deploy.chart import CHART, Json, render
from tests.e2e.system import CONTAINER, CORTEX
from tests.edge_kit import AUDIENCE, ISSUER, Issuer, certificate, trusting
from tests.integration.postgres_kit import QUOTED_PASSWORD, USER, Postgres, postgres_server

KUBECTL = shutil.which("kubectl")
NAME = "cortex-cortex-batch"
WORKERS = "cortex-workers"
"""The namespace of their pods."""
SERVICES = ("gateway", "scheduler", "controller", "collector", "dequeuer")
PATIENCE_S = 120.0
_TAINT = {"key": "workload", "value": "true", "effect": "NoSchedule"}
NODES = [
    Node("system", labels={"pool": "system"}),
    *(Node(f"workload-{number}", labels={"workload": "true"}, taints=[_TAINT]) for number in (1, 2)),
]


def values(ledger: str, issuer: Issuer, s3: AwsServer) -> Json:
    """As an operator would give them; only waits are shorter."""
    environ = {**s3.environ, "AWS_ENDPOINT_URL": f"http://s3.aws:{_port(s3.endpoint)}", "AWS_REGION": "us-east-1"}
    return {
        "nodeSelector": {"pool": "system"},
        "ledger": {"url": ledger},
        "edge": {
            "replicas": 1,
            "tls": {"secretName": "edge-tls"},
            "jwt": {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks": issuer.jwks()},
        },
        "scheduler": {
            "extraEnv": [{"name": name, "value": value} for name, value in environ.items()],
            "startupDeadlineSeconds": 120,
        },
        "workers": {"namespace": WORKERS, "createNamespace": True, "graceSeconds": 15},
    }


@dataclass
class Deployed:
    """The suite, and the cluster that it is in."""

    cluster: TestCluster
    release: Release
    postgres: Postgres
    s3: AwsServer
    http: aiohttp.ClientSession
    shell: Mapping[str, str]
    """The environment of a client's terminal."""
    directory: Path

    # Clients

    async def cortex(self, *arguments: str, code: int = 0) -> str:
        """What the command line prints."""
        return await _said([str(CORTEX), *arguments], self.shell, code)

    async def watch(self, api: str, job_id: str) -> "asyncio.Task[int]":
        """The command line watches a job, and has heard of it already; its exit code."""
        process = await asyncio.create_subprocess_exec(
            str(CORTEX), "watch", api, job_id, env=self.shell, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline()
        communicating = asyncio.create_task(process.communicate())

        async def ended() -> int:
            await communicating
            return await process.wait()

        return asyncio.create_task(ended())

    async def kubectl(self, *arguments: str, text: str = "") -> str:
        """What the real kubectl prints."""
        assert KUBECTL is not None
        environ = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig), "HOME": str(self.directory)}
        return await _said([KUBECTL, "-n", self.release.namespace, *arguments], environ, 0, text)

    async def call(self, method: str, path: str, **more: Any) -> Any:
        """The JSON that an HTTP request is answered with. Raises aiohttp's errors."""
        async with self.http.request(method, path, raise_for_status=True, **more) as answer:
            return await answer.json()

    async def submit(self, api: str, items: list[Any], workers: int = 2, **fields: Any) -> str:
        """Submit a job over HTTP; its id."""
        given = {"workers": workers, "item_list": {"items": items, "batch_size": 1}, **fields}
        return str((await self.call("POST", f"/batch/{api}", json=given))["job_id"])

    async def job(self, api: str, job_id: str) -> dict[str, Any]:
        """Its status, or what was wrong with asking for it."""
        try:
            answer: dict[str, Any] = await self.call("GET", f"/batch/{api}", params={"jobID": job_id})
        except (aiohttp.ClientError, TimeoutError) as error:
            return {"job_status": {"status": repr(error)}}
        return answer

    async def until(self, api: str, job_id: str, holds: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until this holds of the job's status."""
        job: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not holds(job := (await self.job(api, job_id))["job_status"]):
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE_S:g} s: {job}\n{_logs(self.release)}") from None
        return job

    async def ended_well(self, api: str, job_id: str, count: int) -> None:
        """Wait for the end: every batch was done once and counted once, the completion told once, nothing is left."""
        job = await self.until(api, job_id, lambda job: "end_time" in job)
        assert job["status"] == "succeeded", f"{job}\n{_logs(self.release)}"
        assert job["batch_counts"] == {"pending": 0, "leased": 0, "succeeded": count, "failed": 0}
        metrics = (await self.job(api, job_id))["metrics"]
        assert (metrics["succeeded"], metrics["failed"]) == (count, 0)
        done = self.done(api)
        assert (len(done), max(done.values())) == (count, 1), done.most_common(5)
        assert len(self.noted(api, "COMPLETED")) == 1
        await self.nothing_is_left()

    # What containers did

    def api(self, name: str, **env: str) -> Json:
        """An API of the journeys' container."""
        notes = self.directory / "notes" / name
        notes.mkdir(parents=True, exist_ok=True)
        container: Json = {"name": "api", "image": f"{name}:1", "command": [sys.executable, str(CONTAINER)]}
        return {"pod": {"containers": [container | {"env": {"NOTES": str(notes), **env}}]}}

    async def deploy(self, name: str, **env: str) -> None:
        """Deploy it, with the command line."""
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump([{"name": name, "kind": "BatchAPI", **self.api(name, **env)}]))
        await self.cortex("deploy", str(file))

    def noted(self, api: str, name: str) -> list[Any]:
        """The lines of a file that the containers wrote."""
        file = self.directory / "notes" / api / name
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def batches(self, api: str) -> list[Any]:
        """Those that were answered."""
        names = [file.name for file in (self.directory / "notes" / api).iterdir()]
        return [batch for name in names if name.islower() for batch in self.noted(api, name)]

    def done(self, api: str) -> Counter[str]:
        """How often each item was done."""
        return Counter(json.dumps(item) for batch in self.batches(api) for item in batch["items"])

    async def some_are_done(self, api: str, count: int) -> None:
        """Wait until so many items are done."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.done(api)) < count:
                await asyncio.sleep(0.05)

    # The cluster

    async def pods(self) -> list[Object]:
        """The workers'."""
        return (await self.cluster.client.list(PODS, WORKERS))[0]

    async def nothing_is_left(self) -> None:
        """Wait until all that belonged to jobs is gone."""
        async with asyncio.timeout(PATIENCE_S):
            for resource in (JOBS, PODS, CONFIG_MAPS, SECRETS):
                while (await self.cluster.client.list(resource, WORKERS))[0]:
                    await asyncio.sleep(0.05)

    async def leader(self) -> int:
        """The number of the scheduler that leads by the Lease."""
        lease = await self.kubectl("-n", WORKERS, "get", "lease", f"{NAME}-scheduler", "-o", "json")
        return int(json.loads(lease)["spec"]["holderIdentity"].rpartition("-")[2])


@asynccontextmanager
async def deployed(directory: Path) -> AsyncIterator[Deployed]:
    """All of it, ready."""
    issuer, tls = Issuer(), certificate(directory)
    (directory / "s3").mkdir()
    async with AsyncExitStack() as stack:
        postgres = stack.enter_context(postgres_server())
        s3 = stack.enter_context(running_ministack(directory / "s3"))
        ledger = f"postgresql://{USER}:{QUOTED_PASSWORD}@postgres.db:5432/{postgres.database()}"
        rendered = render(values(ledger, issuer, s3))
        # Nodes are not lost here: not even when this machine is too busy for the heartbeats.
        cluster = await stack.enter_async_context(TestCluster(NODES, node_grace_seconds=PATIENCE_S))
        for name in SERVICES:
            image = f"cortex-batch/{name}:0.1.0"
            cluster.images.entrypoints[image] = [sys.executable, "-P", "-m", f"services.{name}"]
        cluster.serve("postgres.db", {5432: [postgres.port]})
        cluster.serve("s3.aws", {_port(s3.endpoint): [_port(s3.endpoint)]})
        cluster.serve("localhost", {_port(cluster.server.url): [_port(cluster.server.url)]})  # as kubeconfigs say
        crds = [yaml.safe_load(path.read_text()) for path in sorted((CHART / "crds").glob("*.yaml"))]
        release = Release(cluster, [*crds, _secret("edge-tls", tls), *rendered])
        await stack.enter_async_context(release)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await release.ready()
        except TimeoutError:
            raise AssertionError(_logs(release)) from None
        url = f"https://127.0.0.1:{release.port(f'{NAME}-edge', 443)}"
        shell = {
            **os.environ,
            "CORTEX_CLI_CONFIG_DIR": str(directory / "client"),
            "SSL_CERT_FILE": tls["certificate"],
            "CORTEX_TOKEN": issuer.token(),
        }
        await _said([str(CORTEX), "env", "configure", "edge", "--operator-endpoint", url], shell, 0)
        http = aiohttp.ClientSession(
            url,
            headers={"Authorization": f"Bearer {issuer.token()}"},
            connector=aiohttp.TCPConnector(ssl=trusting(tls)),
            timeout=aiohttp.ClientTimeout(30),
        )
        await stack.enter_async_context(http)
        yield Deployed(cluster, release, postgres, s3, http, shell, directory)


def _logs(release: Release) -> str:
    """The ends of what the services wrote."""
    kinds = {"scheduler": 2, "gateway": 2, "controller": 2, "edge": 1, "collector": 1}
    names = [(kind, number) for kind, count in kinds.items() for number in range(count)]
    return "\n".join(f"--- {kind} {number}\n{release.log(f'{NAME}-{kind}', number)[-3000:]}" for kind, number in names)


async def _said(command: list[str], environ: Mapping[str, str], code: int, text: str = "") -> str:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(PATIENCE_S):
        said, complaints = await process.communicate(text.encode())
    assert process.returncode == code, f"{command}: {process.returncode}\n{said.decode()}\n{complaints.decode()}"
    return said.decode()


def _secret(name: str, tls: Mapping[str, str]) -> Json:
    data = {
        f"tls.{end}": base64.b64encode(Path(tls[file]).read_bytes()).decode()
        for end, file in (("crt", "certificate"), ("key", "key"))
    }
    metadata = {"name": name, "namespace": "cortex"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def _port(url: str) -> int:
    return int(url.rpartition(":")[2].rstrip("/"))
