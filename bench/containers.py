"""The containers that the benchmarks deploy, as commands."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent

STARLETTE = """
import sys, uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

async def answer(request):
    await request.json()
    return Response()

app = Starlette(routes=[Route("/", answer, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


@dataclass(frozen=True)
class FastServer:
    """The fastest container this machine can give: `server.c`, or `server.py` where nothing compiles C."""

    program: tuple[str, ...]
    completions: Path
    """Gets a line `JOB_ID NANOSECONDS` for every answer to /on-job-complete."""

    @property
    def marker(self) -> str:
        """Stands in the command line of its processes."""
        return self.program[-1]

    def command(self, delay_ms: int = 0, refuse: str = "") -> list[str]:
        """The container's command. With a delay, every batch takes that long, one after another.

        Batches with the character `refuse` in them are answered 500.
        """
        return [*self.program, "$(CORTEX_PORT)", str(self.completions), str(delay_ms), *([refuse] if refuse else [])]

    def completion_times(self) -> dict[str, int]:
        """Job id -> nanoseconds since 1970 at which /on-job-complete was answered."""
        lines = (line.split() for line in self.completions.read_text().splitlines())
        return {job_id: int(moment) for job_id, moment in lines}


def fast_server(directory: Path) -> FastServer:
    """Compile the server into a directory."""
    completions = directory / "completions"
    completions.touch()
    compiler = next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)
    if compiler is None:
        print("no C compiler (cc, gcc, clang): a Python server stands in, so rates are lower", file=sys.stderr)
        return FastServer((sys.executable, str(HERE / "server.py")), completions)
    binary = directory / "bench-server"
    subprocess.run([compiler, "-O2", "-o", str(binary), str(HERE / "server.c")], check=True)
    return FastServer((str(binary),), completions)


def starlette_server(directory: Path) -> list[str]:
    """The command of a usual Python server that parses what it gets; the port is its last argument."""
    script = directory / "bench_starlette.py"
    script.write_text(STARLETTE)
    return [sys.executable, str(script)]
