"""Runs one worker: `CORTEX_WORKER_SPEC=FILE python -P -m services.dequeuer`.

With the argument `write-job-spec` it only puts a large job's specification together, and ends: see `job_spec_parts`.

Its exit codes: `services.common.exit_codes`.
"""

import logging
import os
import sys

from services.common import exit_codes, lifecycle, logs
from services.common.names import GRPC_VARIABLES
from services.common.settings import SettingsError
from services.dequeuer.job_spec_parts import write_once
from services.dequeuer.settings import POD_WORKER_VARIABLE, Settings, read, read_document

WRITE_DOCUMENT = "write-job-spec"


def main() -> int:
    """Run until the end; returns the exit code."""
    environ = dict(os.environ)
    try:
        if sys.argv[1:] == [WRITE_DOCUMENT]:
            logs.configure("cortex-dequeuer", environ.get("CORTEX_LOG_LEVEL", "INFO"))
            document = read_document(environ)
            return write_once(document.parts, document.directory)
        settings = read(environ)
    except SettingsError as error:
        print(f"error: {error.message}", file=sys.stderr)  # noqa: T201  # this is the process's last word
        return exit_codes.NEVER_OF_USE if POD_WORKER_VARIABLE in environ else exit_codes.FAILED
    logs.configure("cortex-dequeuer", settings.log_level)
    _label_records(settings)
    os.environ.update(GRPC_VARIABLES | environ)
    from services.dequeuer import wiring  # imports gRPC

    code = 0

    async def work(stop: lifecycle.Stop) -> None:
        nonlocal code
        code = await wiring.run(settings, environ, stop)

    return lifecycle.run(work, settings.lifeline_fd, for_throughput=True) or code


def _label_records(settings: Settings) -> None:
    """This process works for one job: everything that it logs is about that job."""
    spec = settings.spec
    labels = logs.labels(spec.api_name, spec.api_id, spec.job_id)["labels"]

    def label(record: logging.LogRecord) -> bool:
        record.labels = labels
        return True

    for handler in logging.getLogger().handlers:
        handler.addFilter(label)


if __name__ == "__main__":
    sys.exit(main())
