"""Watches: the history from a version on, then what happens."""

import asyncio
import json
from collections.abc import AsyncIterator

from tests.cluster.api.errors import ApiError
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.selectors import Match
from tests.cluster.api.store import Change, Store

_BOOKMARK_SECONDS = 2.0
"""A real server sends one a minute; tests want to see some."""


async def events(
    store: Store, kind: Kind, namespace: str, match: Match, since: int | None, bookmarks: bool
) -> AsyncIterator[Object]:
    """Events until the watch is cut. `since` None: what there is now, first."""

    def selected(thing: Object | None) -> bool:
        return thing is not None and (not namespace or thing["metadata"].get("namespace") == namespace) and match(thing)

    subscription = store.subscribe(kind, store.version if since is None else since)
    try:
        if since is None:
            for thing in store.all(kind, namespace):
                if match(thing):
                    yield {"type": "ADDED", "object": thing}
        while True:
            try:
                async with asyncio.timeout(_BOOKMARK_SECONDS if bookmarks else None):
                    change = await subscription.queue.get()
            except TimeoutError:
                yield {"type": "BOOKMARK", "object": _bookmark(kind, store.version)}
                continue
            if change is None:
                return
            if event := _seen(change, selected(change.before), selected(change.after)):
                yield event
    finally:
        store.unsubscribe(kind, subscription)


def _seen(change: Change, was: bool, is_now: bool) -> Object | None:
    """What a watcher sees whose selectors matched before and match now."""
    match was, is_now:
        case False, True:
            return {"type": "ADDED", "object": change.after}
        case True, True:
            return {"type": "MODIFIED", "object": change.after}
        case True, False:
            return {"type": "DELETED", "object": _at(change)}
    return None


def _at(change: Change) -> Object:
    """The last state that the selectors matched, with the version at which they did no more."""
    last = change.last if change.after is None else change.before or change.last
    return {**last, "metadata": {**last["metadata"], "resourceVersion": str(change.version)}}


def _bookmark(kind: Kind, version: int) -> Object:
    metadata = {"resourceVersion": str(version), "creationTimestamp": None}
    return {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}


def error_event(error: ApiError) -> Object:
    """What a watch says when it cannot go on."""
    return {"type": "ERROR", "object": error.status()}


def line(event: Object) -> bytes:
    """As it goes over the wire."""
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"
