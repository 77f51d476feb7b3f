"""The garbage collector: what belongs to an object goes with it; and namespaces, whose end takes everything in them."""

from tests.cluster.api.api import Api
from tests.cluster.api.deletion import Deletion
from tests.cluster.api.kinds import Kind, Object
from tests.cluster.api.store import Change
from tests.cluster.controllers.loop import Key, Loop

_SWEEP: Key = ("", "everything")


class GarbageCollector:
    """Sweeps after everything that could leave something behind."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.loop = Loop(api, "garbage collector", self._keys, self._sync)

    def _keys(self, kind: Kind, change: Change) -> set[Key]:
        if kind.plural == "events":
            return set()
        going = change.after is None or "deletionTimestamp" in change.last["metadata"]
        owned = change.before is None and bool(change.last["metadata"].get("ownerReferences"))
        return {_SWEEP} if going or owned else set()

    def _sync(self, key: Key) -> float | None:
        everything = [(kind, thing) for kind in self._stored() for thing in self._api.store.all(kind)]
        uids = {thing["metadata"]["uid"]: thing for _, thing in everything}
        owned = [(kind, thing) for kind, thing in everything if thing["metadata"].get("ownerReferences")]
        for kind, thing in owned:
            self._maybe_delete(kind, thing, uids)
        for kind, thing in everything:
            finalizers = thing["metadata"].get("finalizers") or []
            if "deletionTimestamp" not in thing["metadata"]:
                continue
            if "orphan" in finalizers:
                self._orphan(kind, thing, owned)
            elif "foregroundDeletion" in finalizers:
                self._foreground(kind, thing, owned)
            elif kind.plural == "namespaces":
                self._empty(kind, thing, everything)
        return None

    def _stored(self) -> list[Kind]:
        """One kind for each resource, though it may be served in several versions."""
        return list({kind.key: kind for kind in self._api.kinds}.values())

    def _maybe_delete(self, kind: Kind, thing: Object, uids: dict[str, Object]) -> None:
        owners = [uids.get(one["uid"]) for one in thing["metadata"]["ownerReferences"]]
        if any(owner is not None for owner in owners) or "deletionTimestamp" in thing["metadata"]:
            return
        self._delete(kind, thing, "Background")

    def _foreground(self, kind: Kind, thing: Object, owned: list[tuple[Kind, Object]]) -> None:
        mine = [(its, one) for its, one in owned if _owns(thing, one) and self._current(its, one) is not None]
        for its, one in mine:
            if "deletionTimestamp" not in one["metadata"]:
                self._delete(its, one, "Foreground")
        blocking = [one for its, one in mine if _blocks(thing, one) and self._current(its, one) is not None]
        if not blocking:
            self._without_finalizer(kind, thing, "foregroundDeletion")

    def _orphan(self, kind: Kind, thing: Object, owned: list[tuple[Kind, Object]]) -> None:
        uid = thing["metadata"]["uid"]

        def released(live: Object) -> Object:
            live["metadata"]["ownerReferences"] = [
                one for one in live["metadata"].get("ownerReferences") or [] if one["uid"] != uid
            ]
            return live

        for its, one in owned:
            if _owns(thing, one) and self._current(its, one) is not None:
                self._api.change(its, one["metadata"].get("namespace", ""), one["metadata"]["name"], released)
        self._without_finalizer(kind, thing, "orphan")

    def _without_finalizer(self, kind: Kind, thing: Object, finalizer: str) -> None:
        def changed(live: Object) -> Object:
            live["metadata"]["finalizers"] = [
                one for one in live["metadata"].get("finalizers") or [] if one != finalizer
            ]
            return live

        self._api.change(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"], changed)

    def _empty(self, kind: Kind, namespace: Object, everything: list[tuple[Kind, Object]]) -> None:
        name = namespace["metadata"]["name"]
        inside = [
            (its, one)
            for its, one in everything
            if one["metadata"].get("namespace") == name and self._current(its, one)
        ]
        for its, one in inside:
            if "deletionTimestamp" not in one["metadata"]:
                self._delete(its, one, "Background")
        if not any(self._current(its, one) for its, one in inside):
            self._api.store.remove(kind, "", name)

    def _delete(self, kind: Kind, thing: Object, policy: str) -> None:
        options = Deletion(uid=thing["metadata"]["uid"], policy=policy)
        self._api.delete(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"], options)

    def _current(self, kind: Kind, thing: Object) -> Object | None:
        found = self._api.store.get(kind, thing["metadata"].get("namespace", ""), thing["metadata"]["name"])
        return found if found is not None and found["metadata"]["uid"] == thing["metadata"]["uid"] else None


def _owns(owner: Object, thing: Object) -> bool:
    return any(one["uid"] == owner["metadata"]["uid"] for one in thing["metadata"].get("ownerReferences") or [])


def _blocks(owner: Object, thing: Object) -> bool:
    references = thing["metadata"].get("ownerReferences") or []
    return any(one["uid"] == owner["metadata"]["uid"] and one.get("blockOwnerDeletion") for one in references)
