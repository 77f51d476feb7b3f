"""moto's server: AWS as somebody else than ministack understands it."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_RUNNING = re.compile(r"Running on (http://\S+)")


@contextmanager
def moto_server() -> Iterator[str]:
    """Its URL, while it runs, on a free port."""
    process = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main(['-H', '127.0.0.1', '-p', '0'])"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield next(found[1] for line in process.stderr if (found := _RUNNING.search(line)))
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()
