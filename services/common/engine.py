"""The command line of a container engine, podman's or docker's: the same words for the same things, but for a few.

Everything here only says which words; who runs them waits for them as it can. Containers are found by their labels, so
that what a crash left behind is found by those who never knew their names.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ENGINES = ("podman", "docker")
"""The programs whose words are known."""

WORKER_LABEL = "cortex.worker"
"""The id of the worker that a container belongs to."""

JOB_LABEL = "cortex.job"
"""The id of its job."""

SYSTEM_LABEL = "cortex.system"
"""The data directory of the system that started it. `cortex up` removes by it what is left at its end."""

_PREFIX = re.compile(r"^Error(?: response from daemon)?: ")
_LONG_ID = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")
_SWEEP = """
for try in 1 2 3 4 5; do
  ids=$("$1" ps --all --quiet --filter "label=$2") || exit
  [ -z "$ids" ] && exit
  told=$("$1" rm --force $ids 2>&1) && exit
  sleep 1
done
echo "$told" >&2
exit 1
"""
"""Again, because docker refuses to remove what somebody else is removing."""


@dataclass(frozen=True, slots=True)
class Resources:
    """What a container gets of its machine."""

    memory_bytes: int | None = None
    shm_bytes: int | None = None
    cpu_millis: int = 0
    """Its weight where cores are short, as Kubernetes takes a request; 0 for the engine's own choice."""
    gpus: Sequence[str] = ()
    chips: Sequence[str] = ()
    """Inferentia chips, by their number."""


@dataclass(frozen=True, slots=True)
class ContainerPlan:
    """A container that is to be made."""

    name: str
    image: str
    command: Sequence[str]
    """Replaces what the image would run; empty: that."""
    network: str
    """As `Engine.network_of` says it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[tuple[str, str, str]] = ()
    """(path outside, path inside, `ro` or `rw`)."""
    resources: Resources = Resources()


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's words."""

    program: str
    """`podman` or `docker`."""

    def network_of(self, pid: int, infra: str) -> str:
        """What makes a container join a worker's network: podman takes a process's, docker another container's."""
        return f"ns:/proc/{pid}/ns/net" if self.program == "podman" else f"container:{infra}"

    def create(self, plan: ContainerPlan) -> list[str]:
        """Make a container from an image that is there. What it writes goes to who is attached and nowhere else."""
        words = [self.program, "create", "--pull=never", f"--name={plan.name}", f"--network={plan.network}"]
        # Without a label of SELinux the worker's directories can be read where that is in force.
        words += ["--log-driver=none", "--security-opt=label=disable"]
        words += [f"--label={name}={value}" for name, value in plan.labels.items()]
        words += [f"--env={name}={value}" for name, value in plan.variables.items()]
        words += [f"--volume={outside}:{inside}:{mode}" for outside, inside, mode in plan.mounts]
        words += self._limits(plan.resources)
        if not plan.command:
            return [*words, plan.image]
        return [*words, f"--entrypoint={plan.command[0]}", plan.image, *plan.command[1:]]

    def _limits(self, resources: Resources) -> list[str]:
        words = []
        if resources.memory_bytes is not None:  # swap as well: it would crawl instead of being told
            words += [f"--memory={resources.memory_bytes}b", f"--memory-swap={resources.memory_bytes}b"]
        if resources.shm_bytes is not None:
            words += [f"--shm-size={resources.shm_bytes}b"]
        if resources.cpu_millis:
            words += [f"--cpu-shares={max(2, resources.cpu_millis * 1024 // 1000)}"]
        if resources.gpus and self.program == "podman":
            words += [f"--device=nvidia.com/gpu={gpu}" for gpu in resources.gpus]
        elif resources.gpus:
            words += [f'--gpus="device={",".join(resources.gpus)}"']  # quoted: a comma separates options too
        return [*words, *(f"--device=/dev/neuron{chip}" for chip in resources.chips)]

    def start(self, name: str) -> list[str]:
        """Run a container that was made; what it writes comes out here, and this ends when it has ended."""
        return [self.program, "start", "--attach", name]

    def start_detached(self, name: str) -> list[str]:
        """Run a container that was made, and return."""
        return [self.program, "start", name]

    def pid(self, name: str) -> list[str]:
        """The pid of a container's first process."""
        return [self.program, "container", "inspect", "--format", "{{.State.Pid}}", name]

    def inspect(self, name: str) -> list[str]:
        """JSON of how a container is."""
        return [self.program, "container", "inspect", "--format", "{{json .State}}", name]

    def signal(self, name: str, signal: str) -> list[str]:
        """Send a container's first process a signal."""
        return [self.program, "kill", f"--signal={signal}", name]

    def exec(self, name: str, command: Sequence[str]) -> list[str]:
        """Run a command inside."""
        return [self.program, "exec", name, *command]

    def remove(self, name: str) -> list[str]:
        """End it, if it runs, and forget it."""
        return [self.program, "rm", "--force", name]

    def has_image(self, image: str) -> list[str]:
        """Succeeds when the image is there."""
        return [self.program, "image", "inspect", "--format", "{{.Id}}", image]

    def pull(self, image: str) -> list[str]:
        """Fetch an image."""
        return [self.program, "pull", "--quiet", image]

    def sweep(self, label: str, value: str) -> list[str]:
        """End and forget all containers with a label."""
        return ["/bin/sh", "-c", _SWEEP, "sh", self.program, f"{label}={value}"]

    def sweep_after(self, label: str, value: str) -> list[str]:
        """`sweep`, when standard input is closed."""
        return ["/bin/sh", "-c", f"read -r end; {_SWEEP}", "sh", self.program, f"{label}={value}"]


def container_name(worker_id: str, container: str, start: int) -> str:
    """The name of a container's start: unique on its machine."""
    return f"cortex-{worker_id}-{container}-{start}"


def last_line(text: str) -> str:
    """What an engine's program says in the end, without its own way to begin an error; ids as `ps` shows them.

    Docker's client adds to its daemon's reason that the container was not started: that is left out.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    reasons = [line for line in lines if not line.startswith("Error: failed to start containers")] or lines
    return _LONG_ID.sub(r"\1", _PREFIX.sub("", reasons[-1])) if reasons else "it does not say why"


def unmarked(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for the engine's own program: without what marks everything that belongs to a worker."""
    return {name: value for name, value in environ.items() if not name.startswith("CORTEX_")}
