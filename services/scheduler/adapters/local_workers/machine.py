"""Which GPUs and Inferentia chips there are to be shared out.

What the operator says (`CORTEX_GPUS`), else what the shell lets programs see (`CUDA_VISIBLE_DEVICES`), else what the
machine has. An Inferentia chip has several cores, and its runtime is told of cores.
"""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import CortexError

CUDA_VARIABLE = "CUDA_VISIBLE_DEVICES"
"""Tells CUDA programs which GPUs are theirs; empty for none."""

_CORES_OF_OLD_CHIPS = 4
"""Of an Inf1 chip, whose drivers may not say how many cores there are; later ones do."""

_LIST_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to be shared out."""

    gpus: tuple[str, ...] = ()
    """As `CUDA_VISIBLE_DEVICES` names them: indexes, or UUIDs."""
    chips: tuple[str, ...] = ()
    """Inferentia chips, by their number N in /dev/neuronN."""
    cores_of_chip: int = _CORES_OF_OLD_CHIPS

    def __str__(self) -> str:
        return f"GPUs: {', '.join(self.gpus) or 'none'}; Inferentia chips: {', '.join(self.chips) or 'none'}"


def find_machine(environ: Mapping[str, str], dev: Path = Path("/dev")) -> Machine:
    """What this machine has. Raises `CortexError` when the operator's own word makes no sense. May take a second."""
    chips = _numbered(dev, "neuron")
    cores = _cores_of_chip(chips[0]) if chips else _CORES_OF_OLD_CHIPS
    if said := environ.get("CORTEX_GPUS", "").strip():
        return Machine(_said(said), chips, cores)
    if CUDA_VARIABLE in environ:
        return Machine(_visible(environ[CUDA_VARIABLE]), chips, cores)
    return Machine(_numbered(dev, "nvidia") or _listed_by_driver(), chips, cores)


def _said(text: str) -> tuple[str, ...]:
    """`2`: so many; `0,3` or `2,`: these."""
    if text.isdigit():
        return tuple(str(number) for number in range(int(text)))
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    if len(set(names)) < len(names) or any(re.search(r"\s", name) for name in names):
        raise CortexError(
            "system.invalid_gpus",
            f"the GPUs are given as {text!r}: give their number (2), or a list without repetitions (0,3 or GPU-8a56,)",
        )
    return names


def _visible(text: str) -> tuple[str, ...]:
    """As CUDA reads it: what follows a name that is none, such as -1, does not count."""
    names = []
    for name in (part.strip() for part in text.split(",")):
        if not name or name.startswith("-") or name in names:
            break
        names.append(name)
    return tuple(names)


def _numbered(dev: Path, name: str) -> tuple[str, ...]:
    found = (re.fullmatch(rf"{name}(\d+)", path.name) for path in dev.glob(f"{name}*"))
    return tuple(str(number) for number in sorted(int(match[1]) for match in found if match))


def _listed_by_driver() -> tuple[str, ...]:
    """Where the devices are elsewhere (WSL), NVIDIA's own program knows."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    try:
        told = subprocess.run(
            [program, "-L"], check=False, capture_output=True, text=True, errors="replace", timeout=_LIST_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(re.findall(r"^GPU (\d+):", told.stdout, re.MULTILINE)) if told.returncode == 0 else ()


def _cores_of_chip(chip: str) -> int:
    try:
        return int(Path(f"/sys/class/neuron_device/neuron{chip}/core_count").read_text())
    except (OSError, ValueError):
        return _CORES_OF_OLD_CHIPS
