"""Workers as processes of this machine.

`driver` starts, watches and ends workers; each is the process of a `dequeuer`, and finds its files in `directories`.
`preparation` puts together what it is told, with `worker_spec` for the configuration's part. `ports` decides where it
listens, and whether it needs a network namespace of its own (`namespaces`, with an `uplink`). `devices` shares out what
the `machine` has; `engines` are podman and docker; `processes` knows a process by pid and start time.
"""

from services.scheduler.adapters.local_workers.driver import LocalWorkerDriver
from services.scheduler.adapters.local_workers.engines import check_user
from services.scheduler.adapters.local_workers.machine import Machine, find_machine
from services.scheduler.adapters.local_workers.settings import LocalWorkerSettings

__all__ = ["LocalWorkerDriver", "LocalWorkerSettings", "Machine", "check_user", "find_machine"]
