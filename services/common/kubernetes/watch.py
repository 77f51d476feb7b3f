"""Following what there is, through every break.

`follow` lists, then watches from there: first one `Followed` with everything, then changes. Where the server forgot
the version that we are at (410), or the connection breaks, it goes on from the newest version that it has seen, or
lists again; so its user hears of every end sooner or later, of a change maybe only the latest state. A server that is
away is asked again, with growing pauses, and says nothing meanwhile: no news is no news.
"""

import asyncio
import json
import logging
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

from services.common.errors import CortexError
from services.common.kubernetes.client import Cluster, Object
from services.common.kubernetes.errors import GONE, refusal
from services.common.kubernetes.resources import Resource

log = logging.getLogger(__name__)

WATCH_SECONDS = 300
"""The server ends a watch after this, and we ask again: so a connection that is dead unnoticed is found."""
SILENCE_SECONDS = 330.0
LEAST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 10.0
_LINE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Followed:
    """All there is: what is not in here is gone."""

    objects: tuple[Object, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """One object is new, different, or gone."""

    object: Object
    deleted: bool


async def follow(
    cluster: Cluster, resource: Resource, namespace: str | None, labels: str = ""
) -> AsyncGenerator[Followed | Change, None]:
    """What a label selector selects, for ever. See the module's text."""
    pause = 0.0
    version = ""
    while True:
        try:
            if not version:
                found, version = await cluster.list(resource, namespace, labels)
                yield Followed(tuple(found))
            async with aclosing(_watch(cluster, resource, namespace, labels, version)) as changes:
                async for change, seen in changes:
                    pause, version = 0.0, seen
                    if change is not None:
                        yield change
        except CortexError as error:
            log.warning("following %s: %s; going on soon", resource.plural, error.message)
            version = "" if error.kind == GONE else version
        # Also when the server ended the watch as it should: one that ends each at once is not to be besieged.
        pause = min(MAX_PAUSE_SECONDS, max(LEAST_PAUSE_SECONDS, pause * 2))
        await asyncio.sleep(pause * random.uniform(0.75, 1.25))  # noqa: S311  # spreads requests, guards nothing


async def _watch(
    cluster: Cluster, resource: Resource, namespace: str | None, labels: str, version: str
) -> AsyncGenerator[tuple[Change | None, str], None]:
    """Changes behind a version, each with the version to go on from; None for a bookmark, which is only that."""
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": str(WATCH_SECONDS),
        "labelSelector": labels,
    }
    async with cluster.stream(resource.path(namespace), query, SILENCE_SECONDS) as chunks:
        async for line in _lines(chunks):
            event = json.loads(line)
            subject = event["object"]
            if event["type"] == "ERROR":
                raise refusal(int(subject.get("code", 500)), json.dumps(subject).encode(), f"watch {resource.plural}")
            version = subject["metadata"]["resourceVersion"]
            bookmark = event["type"] == "BOOKMARK"
            yield None if bookmark else Change(subject, event["type"] == "DELETED"), version


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines: an object may be over a megabyte, more than line readers take."""
    rest = b""
    async for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            if line:
                yield line
        if len(rest) > _LINE_BYTES:
            raise CortexError("kubernetes.invalid", "the API server sent a line of over 8 MiB in a watch")
