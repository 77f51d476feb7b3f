"""Workers as pods of a Kubernetes cluster (1.33 and later).

`manifests/` turns an API's configuration and a job into the objects that Kubernetes is given, purely; `settings` are
the operator's part of them.
"""

from services.scheduler.adapters.kubernetes_workers.settings import KubernetesWorkerSettings, load_settings

__all__ = ["KubernetesWorkerSettings", "load_settings"]
