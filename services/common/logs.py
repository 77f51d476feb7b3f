"""Our own log: JSON lines on standard error, with the ids by which people look things up."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec


class JsonFormatter(logging.Formatter):
    """One record as one JSON object. What `extra={"labels": {...}}` carries goes in as `cortex.labels`."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "message": record.getMessage(),
        }
        if labels := getattr(record, "labels", None):
            entry["cortex.labels"] = labels
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(entry).decode()


def configure(service: str, level: str = "INFO") -> None:
    """Send this process's log to standard error as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def labels(api_name: str, api_id: str, job_id: str = "") -> dict[str, dict[str, str]]:
    """`extra` for a record about an API or a job: apiName, apiKind, apiID, jobID."""
    found = {"apiName": api_name, "apiKind": "BatchAPI", "apiID": api_id}
    return {"labels": found | ({"jobID": job_id} if job_id else {})}
