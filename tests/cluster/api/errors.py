"""Refusals: every error is a `Status` object, as the real server's."""

from typing import Any

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
}


class ApiError(Exception):
    """A refusal with its HTTP code."""

    def __init__(self, code: int, message: str, reason: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or _REASONS.get(code, "Unknown")
        self.details = details

    def status(self) -> dict[str, Any]:
        """The answer's body."""
        status: dict[str, Any] = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        status |= {"message": self.message, "reason": self.reason, "code": self.code}
        return status | ({"details": self.details} if self.details else {})


def not_found(resource: str, group: str, name: str) -> ApiError:
    """No object has this name."""
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return ApiError(404, f'{_qualified(resource, group)} "{name}" not found', details=details)


def already_exists(resource: str, group: str, name: str) -> ApiError:
    """An object has this name."""
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    return ApiError(409, f'{_qualified(resource, group)} "{name}" already exists', "AlreadyExists", details)


def conflict(resource: str, group: str, name: str, why: str) -> ApiError:
    """The object is another one than the caller believes."""
    details = {"name": name, "kind": resource} | ({"group": group} if group else {})
    message = f'Operation cannot be fulfilled on {_qualified(resource, group)} "{name}": {why}'
    return ApiError(409, message, details=details)


def invalid(kind: str, group: str, name: str, causes: list[str]) -> ApiError:
    """The object breaks rules: one sentence each, `path: Kind of mistake: more`."""
    several = causes[0] if len(causes) == 1 else f"[{', '.join(causes)}]"
    details: dict[str, Any] = {"name": name, "kind": kind} | ({"group": group} if group else {})
    details["causes"] = [_cause(cause) for cause in causes]
    return ApiError(422, f'{kind}{"." + group if group else ""} "{name}" is invalid: {several}', details=details)


def _cause(sentence: str) -> dict[str, str]:
    field, _, message = sentence.partition(": ")
    word = message.partition(":")[0]
    return {"reason": f"FieldValue{word.title().replace(' ', '')}", "message": message, "field": field}


def _qualified(resource: str, group: str) -> str:
    return f"{resource}.{group}" if group else resource


EXPIRED = "too old resource version: {asked} ({oldest})"


def expired(asked: int, oldest: int) -> ApiError:
    """A watch from before the compaction."""
    return ApiError(410, EXPIRED.format(asked=asked, oldest=oldest))
