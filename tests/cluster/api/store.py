"""What etcd is to the real one: objects, one counter of versions, and the history that watches follow.

Stored objects are never changed in place: a change stores a new one. So reading needs no copies, and an event can
carry the object before and after.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.cluster.api.errors import expired
from tests.cluster.api.kinds import Kind, Object

_HISTORY = 10_000


@dataclass(frozen=True, slots=True)
class Change:
    """One object became another one."""

    version: int
    before: Object | None
    after: Object | None
    """None: removed; `last` is what there was, with the version of its removal."""
    last: Object


class Subscription:
    """The changes of one resource, in order, from some version on."""

    def __init__(self, backlog: Iterable[Change]) -> None:
        self.queue: asyncio.Queue[Change | None] = asyncio.Queue()
        for change in backlog:
            self.queue.put_nowait(change)


class Store:
    """Objects by resource, namespace and name."""

    def __init__(self) -> None:
        self.version = 1
        self.oldest = 0
        """Watches must begin at this version or later."""
        self._objects: dict[str, dict[tuple[str, str], Object]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._subscriptions: dict[str, set[Subscription]] = {}
        self.listeners: list[Callable[[Kind, Change], None]] = []
        """The control plane's own, which miss nothing."""

    def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, or None."""
        return self._objects.get(kind.key, {}).get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Object]:
        """A namespace's, or everything, ordered as etcd orders it."""
        objects = self._objects.get(kind.key, {})
        return [objects[key] for key in sorted(objects) if not namespace or key[0] == namespace]

    def put(self, kind: Kind, new: Object) -> Object:
        """Store it under a new version, which it carries from now on."""
        key = _key(new)
        before = self._objects.get(kind.key, {}).get(key)
        stamped = self._stamped(new)
        self._objects.setdefault(kind.key, {})[key] = stamped
        self._tell(kind, Change(self.version, before, stamped, stamped))
        return stamped

    def remove(self, kind: Kind, namespace: str, name: str) -> Object:
        """Forget it. Raises KeyError when there is none."""
        before = self._objects[kind.key].pop((namespace, name))
        last = self._stamped(before)
        self._tell(kind, Change(self.version, before, None, last))
        return last

    def subscribe(self, kind: Kind, since: int) -> Subscription:
        """Every change after that version. Raises `ApiError` 410 when the history does not reach back so far."""
        history = self._history.get(kind.key, ())
        if since < self.oldest:
            raise expired(since, self.oldest)
        subscription = Subscription(change for change in history if change.version > since)
        self._subscriptions.setdefault(kind.key, set()).add(subscription)
        return subscription

    def unsubscribe(self, kind: Kind, subscription: Subscription) -> None:
        """No more changes for it."""
        self._subscriptions[kind.key].discard(subscription)

    def compact(self) -> None:
        """Forget the history: whoever asks for an older version than now learns that it is gone."""
        self.version += 1
        self.oldest = self.version
        self._history.clear()

    def cut(self) -> None:
        """End every watch."""
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.queue.put_nowait(None)

    def _stamped(self, thing: Object) -> Object:
        self.version += 1
        return {**thing, "metadata": {**thing["metadata"], "resourceVersion": str(self.version)}}

    def _tell(self, kind: Kind, change: Change) -> None:
        history = self._history.setdefault(kind.key, deque())
        history.append(change)
        if len(history) > _HISTORY:
            self.oldest = max(self.oldest, history.popleft().version)
        for subscription in self._subscriptions.get(kind.key, ()):
            subscription.queue.put_nowait(change)
        for listener in self.listeners:
            listener(kind, change)


def _key(thing: Object) -> tuple[str, str]:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
