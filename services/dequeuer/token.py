"""The token that a dequeuer shows: from its specification, or from a file that somebody else keeps up to date.

A new one also comes over the work stream. The latest counts: a file that has not changed since it was read last holds
none that is newer than that.
"""

import logging
from pathlib import Path

from cortex.batch.v1.worker_spec_pb2 import WorkerSpec

log = logging.getLogger(__name__)


class Token:
    """See the module's text."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._token = spec.token
        self._file = Path(spec.pod.token_file) if spec.pod.token_file else None
        self._read = ""

    @property
    def may_change(self) -> bool:
        """A token that is refused may be replaced by a good one."""
        return self._file is not None

    def current(self) -> str:
        """The token for a new work stream."""
        if self._file is not None:
            try:
                told = self._file.read_text().strip()
            except OSError as error:  # it is being replaced, or will be there soon
                log.warning("the token file %s cannot be read: %s", self._file, error)
                return self._token
            if told != self._read:
                self._read = self._token = told
        return self._token

    def renew(self, token: str) -> None:
        """The scheduler sent a new one."""
        self._token = token
