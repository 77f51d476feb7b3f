"""Workers as processes of this machine.

`driver` starts, watches and ends dequeuers; `directories` are the files they find; `worker_spec` turns an API's
configuration into what a dequeuer is told; `ports` decides where a worker listens, and whether it needs a network
namespace of its own (`namespaces`, with an `uplink`); `devices` shares out GPUs; `engines` are podman and docker;
`processes` knows a process by pid and start time.
"""

from services.scheduler.adapters.local_workers.devices import Machine, find_machine
from services.scheduler.adapters.local_workers.driver import LocalWorkerDriver
from services.scheduler.adapters.local_workers.engines import check_user
from services.scheduler.adapters.local_workers.settings import LocalWorkerSettings

__all__ = ["LocalWorkerDriver", "LocalWorkerSettings", "Machine", "check_user", "find_machine"]
