"""Workers as pods of a Kubernetes cluster (1.33 and later).

`driver` is the `WorkerDriver`. It sees what there is through `observed`, reads it with `pod_status` and `job_status`,
tells it on with `tellings`, and changes it through `job_objects`; what cannot be done at once is the `caretaker`'s.
`manifests/` turns an API's configuration and a job into the objects that Kubernetes is given, purely; `settings` are
the operator's part of them. `pod_logs` reads what containers wrote.
"""

from services.scheduler.adapters.kubernetes_workers.driver import KubernetesWorkerDriver
from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings, load_settings

__all__ = ["KubernetesWorkerDriver", "KubernetesWorkerSettings", "load_settings"]
