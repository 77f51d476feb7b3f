"""A kubelet without a container runtime: a client of any API server that runs containers' commands as processes here.

`kubelet.py` registers nodes, binds pods to them (`scheduling.py`) and has a `pod.py` for each: it makes the volumes
(`volumes.py`) and a network namespace (`network.py`), starts the containers in their order (`container.py`: a process
in its own mount namespace, `mounts.py`), probes them (`probes.py`), and reports (`status.py`). `endpoint.py` serves the
logs. An image is a name: `images.py` says what it starts, and which ones are missing.
"""
