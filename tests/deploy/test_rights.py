"""The chart's roles: what the scheduler's driver, the controller and their leases need, and hardly anything else."""

from functools import partial
from pathlib import Path

import pytest

from services.common.kubernetes import BATCH_APIS, BATCH_JOBS, SECRETS, Cluster
from services.common.kubernetes.lease import Lease
from tests.cluster.api.rights import rights_of
from tests.cluster.kit import TestCluster
from tests.deploy.chart import CLOSED, Json, objects, render
from tests.integration.controller_kit import mirrored, needs_kubectl, ready, scheduled
from tests.integration.kubernetes_kit import Pods, until
from tests.unit import kubernetes_work
from tests.unit.kubernetes_work import JOB_ID

PREFIX = "cortex-cortex-batch"
NEEDS_A_NODE = {("", "pods/log", "get"), ("", "pods/status", "patch")}
"""Rights that are used where nodes run pods, and lose them."""

RENEWAL = ("coordination.k8s.io", "leases", "update")
"""Comes every two seconds, which no test waits for."""


def roles(*names: str) -> Json:
    """Roles of the chart, as one."""
    found = objects(render(CLOSED), "Role")
    return {"rules": [rule for name in names for rule in found[f"{PREFIX}-{name}"]["rules"]]}


class AsTheScheduler(Pods):
    """Drivers that have the scheduler's rights and no others."""

    async def connect(self) -> Cluster:
        if not self._clusters:
            return await super().connect()  # the test's own
        self._clusters.append(await Cluster.connect({"KUBECONFIG": str(self.own_cluster.kubeconfig_of("scheduler"))}))
        return self._clusters[-1]


async def elected(cluster: Cluster, name: str) -> None:
    """Take a lease, keep it once, and let it go."""
    lease = Lease(cluster, name, "pod-1")
    await lease.acquire()
    await lease.acquire()
    await lease.release()


async def test_the_scheduler_may_do_what_its_driver_does_and_nothing_more() -> None:
    role = roles("scheduler")
    async with AsTheScheduler() as pods:
        rights = pods.own_cluster.server.rights
        rights.grant("scheduler", "default", role)
        first = await pods.driver(epoch=1)
        await elected(pods._clusters[-1], f"{PREFIX}-scheduler")
        worker = await first.have(0)
        later = await pods.driver(epoch=2)
        assert await later.adopt(worker)
        await later.resize(kubernetes_work.job(), 2)
        await later.write_job_spec(kubernetes_work.job(), "{}")
        await later.kill(worker)
        await until(partial(pods.is_leaving, worker))
        await later.clean_up(JOB_ID)
        assert rights_of(role) - rights.used["scheduler"] == NEEDS_A_NODE


async def test_no_other_lease_is_the_schedulers() -> None:
    async with AsTheScheduler() as pods:
        pods.own_cluster.server.rights.grant("scheduler", "default", roles("scheduler"))
        await elected(pods.cluster, "somebody-elses")
        with pytest.raises(Exception, match="forbidden"):
            await Lease(await pods.connect(), "somebody-elses", "pod-1")._try()


@needs_kubectl
async def test_the_controller_may_do_what_it_does_and_nothing_more(tmp_path: Path) -> None:
    role = roles("controller", "controller-lease")
    items = tmp_path / "items.ndjson"
    items.write_text("1\n2\n")
    async with TestCluster() as cluster, scheduled(tmp_path) as kit:
        cluster.server.rights.grant("controller", "default", role)
        restricted = {
            "KUBECONFIG": str(cluster.kubeconfig_of("controller")),
            "CORTEX_LEASE": f"{PREFIX}-controller",
        }
        async with mirrored(tmp_path, cluster, kit.address, **restricted) as resources:
            await resources.apply_api()
            await resources.until(BATCH_APIS, "hello", lambda api: ready(api) == "True")
            secret = {"metadata": {"name": "hook"}, "type": "batch.cortex.dev/webhook", "data": {"key": "c2VjcmV0"}}
            await resources.cluster.create(SECRETS, "default", {"apiVersion": "v1", "kind": "Secret", **secret})
            webhook = {"url": "http://127.0.0.1:9", "secret_key_ref": {"name": "hook", "key": "key"}}
            await resources.apply_job("digits", items, webhook=webhook, ttlSecondsAfterFinished=0)
            worker = await kit.worker()
            await worker.open()
            await worker.work_off()
            await worker.answer_completion()
            await resources.gone(BATCH_JOBS, "digits")
            await resources.delete(BATCH_APIS, "hello")
            await resources.gone(BATCH_APIS, "hello")
            used = cluster.server.rights.used["controller"] | {RENEWAL}
            assert rights_of(role) - used == set()
