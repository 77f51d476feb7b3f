"""Images: names, what they start, and whether they can be had."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


@dataclass(slots=True)
class Images:
    """The registry. Every image holds this machine: its files, its Python, this checkout as the working directory."""

    entrypoints: dict[str, list[str]] = field(default_factory=dict)
    """What an image starts when its container has no `command`."""
    missing: set[str] = field(default_factory=set)
    """Images that cannot be pulled; take one out and pods that wait for it go on."""
    environment: dict[str, str] = field(default_factory=lambda: _environment())
    """What every image sets."""


def _environment() -> dict[str, str]:
    here = Path(sys.executable).parent
    return {"PATH": f"{here}:{os.environ.get('PATH', os.defpath)}", "HOME": "/root", "PYTHONUNBUFFERED": "1"}
