"""What workers run as: chosen here, by the settings."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from services.common.engine import ENGINES
from services.common.settings import SettingsError
from services.scheduler.adapters.local_workers import (
    LocalWorkerDriver,
    LocalWorkerSettings,
    Machine,
    check_user,
    find_machine,
)
from services.scheduler.adapters.log_files import LogFiles
from services.scheduler.adapters.tokens import JwtTokens
from services.scheduler.settings import Settings
from services.scheduler.usecases.ports.ledger import Ledger
from services.scheduler.usecases.ports.logs import LogReader
from services.scheduler.usecases.ports.workers import WorkerDriver

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runtime:
    """How workers are run, and where their output is read."""

    driver: WorkerDriver
    logs: LogReader


@asynccontextmanager
async def workers(settings: Settings, environ: Mapping[str, str], ledger: Ledger) -> AsyncIterator[Runtime]:
    """The runtime that the settings choose. Raises `SettingsError`, or `CortexError` when there is no cluster."""
    if settings.workers == "kubernetes":
        async with _kubernetes(settings, environ, ledger) as runtime:
            yield runtime
    else:
        yield Runtime(await _local(settings, environ), LogFiles(settings.data_dir / "logs"))


@asynccontextmanager
async def _kubernetes(settings: Settings, environ: Mapping[str, str], ledger: Ledger) -> AsyncIterator[Runtime]:
    # Late: Kubernetes' library takes a second and 40 MiB, which one machine saves.
    from services.common.kubernetes import Cluster
    from services.scheduler.adapters.kubernetes_workers import KubernetesWorkerDriver, load_settings
    from services.scheduler.adapters.kubernetes_workers.pod_logs import PodLogs

    if settings.kubernetes_settings is None:
        message = "CORTEX_KUBERNETES_SETTINGS is not set: it names the file that says how workers run as pods"
        raise SettingsError(message)
    told = load_settings(settings.kubernetes_settings)
    tokens = JwtTokens(ledger.secret)

    async def is_over(job_id: str) -> bool:
        job = await ledger.job(job_id)
        return job is None or job.state.status.final

    cluster = await Cluster.connect(environ)
    driver = KubernetesWorkerDriver(
        cluster, cluster.namespace, told, ledger.generation, lambda job_id: tokens.sign(job_id, "")
    )
    try:
        await driver.open(is_over)
        yield Runtime(driver, PodLogs(cluster, cluster.namespace, told.deployment))
    finally:
        await driver.close()
        await cluster.close()


async def _local(settings: Settings, environ: Mapping[str, str]) -> WorkerDriver:
    if settings.workers in ENGINES:
        check_user(settings.workers)
    machine = await asyncio.to_thread(find_machine, environ)
    log.info("to be shared out among workers: %s", machine)
    return LocalWorkerDriver(_local_settings(settings, machine), environ)


def _local_settings(settings: Settings, machine: Machine) -> LocalWorkerSettings:
    return LocalWorkerSettings(
        data_dir=settings.data_dir,
        scheduler_address=f"unix:{settings.scheduler_socket}" if settings.scheduler_socket else settings.grpc_address,
        public_url=settings.public_url,
        http_socket=settings.http_socket,
        collector_socket=settings.collector_socket,
        collector_port=settings.collector_port,
        working_dir=settings.working_dir,
        lifeline_fd=settings.lifeline_fd,
        engine=settings.workers if settings.workers in ENGINES else None,
        machine=machine,
    )
