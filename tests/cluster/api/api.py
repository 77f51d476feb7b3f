"""The verbs, as functions on the store: what HTTP requests and the control plane's loops do with objects.

Every write goes one way: take what is meant, fill in the defaults, refuse what is wrong, note who owns which field,
count the generation, store. Nothing awaits in here, so each verb is one transaction.
"""

import copy
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.cluster.api import apply, crds, schema
from tests.cluster.api.apply import Writer
from tests.cluster.api.clock import now
from tests.cluster.api.decoding import decoded
from tests.cluster.api.deletion import Deletion, dies_at_once, marked
from tests.cluster.api.errors import ApiError, already_exists, conflict, invalid, not_found
from tests.cluster.api.kinds import Kind, Kinds, Object
from tests.cluster.api.rules import defaults, mistakes
from tests.cluster.api.store import Store

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_CONTROL_PLANE = Writer("kube-controller-manager", "Update")
_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
_KEPT = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion")


@dataclass(frozen=True, slots=True)
class Write:
    """How a request writes."""

    writer: Writer = _CONTROL_PLANE
    subresource: str = ""
    dry_run: bool = False
    validation: str = "Warn"
    """Of fields that nobody knows: Ignore, Warn or Strict."""
    warnings: list[str] = field(default_factory=list)
    """Sentences for the caller."""


CONTROL_PLANE = Write()


class Api:
    """The verbs."""

    def __init__(self) -> None:
        self.kinds = Kinds()
        self.store = Store()
        for namespace in ("default", "kube-system", "kube-public", "kube-node-lease"):
            self.create(self.kinds.named("namespaces"), "", {"metadata": {"name": namespace}})

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Raises `ApiError` 404."""
        found = self.store.get(kind, namespace, name)
        if found is None:
            raise not_found(kind.plural, kind.group, name)
        return self.shown(kind, found)

    def shown(self, kind: Kind, thing: Object) -> Object:
        """As readers of this version see it."""
        return {**thing, "apiVersion": kind.api_version, "kind": kind.name}

    def create(self, kind: Kind, namespace: str, given: Object, how: Write = CONTROL_PLANE) -> Object:
        """A new object."""
        thing = self._decoded(kind, given, how)
        metadata = thing["metadata"]
        self._in_namespace(kind, metadata, namespace)
        if not metadata.get("name"):
            if not (prefix := metadata.get("generateName")):
                raise invalid(
                    kind.name, kind.group, "", ["metadata.name: Required value: name or generateName is required"]
                )
            metadata["name"] = prefix[:58] + "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))
        if self.store.get(kind, metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(kind.plural, kind.group, metadata["name"])
        for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"):
            metadata.pop(name, None)
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        if kind.custom or kind.plural in ("jobs", "pods", "poddisruptionbudgets", "customresourcedefinitions"):
            metadata["generation"] = 1
        if kind.status:
            thing.pop("status", None) if kind.plural != "nodes" else None
        return self._stored(kind, thing, None, how)

    def replace(self, kind: Kind, namespace: str, name: str, given: Object, how: Write = CONTROL_PLANE) -> Object:
        """PUT: the object as it shall be."""
        thing = self._decoded(kind, given, how)
        self._in_namespace(kind, thing["metadata"], namespace)
        if thing["metadata"].setdefault("name", name) != name:
            said = thing["metadata"]["name"]
            raise ApiError(400, f"the name of the object ({said}) does not match the name on the URL ({name})")
        live = self.get(kind, namespace, name)
        return self._updated(kind, live, thing, how)

    def change(
        self, kind: Kind, namespace: str, name: str, by: Callable[[Object], Object], how: Write = CONTROL_PLANE
    ) -> Object:
        """PATCH of every kind but apply: a function of the object that is there."""
        live = self.get(kind, namespace, name)
        changed = by(copy.deepcopy(live))
        return self._updated(kind, live, self._decoded(kind, changed, how), how)

    def apply(self, kind: Kind, namespace: str, name: str, given: Object, how: Write, force: bool) -> Object:
        """Server-side apply; makes the object when there is none."""
        configuration = self._decoded(kind, given, how, complete=False)
        metadata = configuration["metadata"]
        if metadata.get("managedFields"):
            raise ApiError(400, "metadata.managedFields must be nil")
        self._in_namespace(kind, metadata, namespace)
        if metadata.setdefault("name", name) != name:
            raise ApiError(
                400, f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
            )
        live = self.store.get(kind, namespace, name)
        if live is None:
            if how.subresource:
                raise not_found(kind.plural, kind.group, name)
            fresh = {"apiVersion": kind.api_version, "kind": kind.name, "metadata": {"name": name}}
            owned = apply.applied(kind, fresh, configuration, how.writer, force)["metadata"]["managedFields"]
            thing = self.create(kind, namespace, configuration, _unstored(how))
            thing["metadata"]["managedFields"] = owned
            return thing if how.dry_run else self._put(kind, thing)
        if metadata.get("resourceVersion", live["metadata"]["resourceVersion"]) != live["metadata"]["resourceVersion"]:
            raise conflict(kind.plural, kind.group, name, _MODIFIED)
        merged = apply.applied(kind, live, configuration, how.writer, force)
        return self._updated(kind, live, self._decoded(kind, merged, how), how, owned=True)

    def delete(self, kind: Kind, namespace: str, name: str, options: Deletion, dry_run: bool = False) -> Object:
        """Mark it for deletion, or remove it where nothing holds it."""
        live = self.get(kind, namespace, name)
        options.check(kind, live)
        thing = marked(kind, live, options)
        if dry_run:
            return thing
        if dies_at_once(thing):
            return self._removed(kind, thing)
        return live if thing is live else self.shown(kind, self.store.put(kind, thing))

    # Writing

    def _updated(self, kind: Kind, live: Object, thing: Object, how: Write, owned: bool = False) -> Object:
        name = live["metadata"]["name"]
        metadata = thing["metadata"]
        if metadata.get("uid", live["metadata"]["uid"]) != live["metadata"]["uid"]:
            there = live["metadata"]["uid"]
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {there}"
            raise conflict(kind.plural, kind.group, name, why)
        if metadata.get("resourceVersion") not in (None, "", live["metadata"]["resourceVersion"]):
            raise conflict(kind.plural, kind.group, name, _MODIFIED)
        thing = _allowed(kind, live, thing, how.subresource)
        if not owned:
            thing["metadata"]["managedFields"] = live["metadata"].get("managedFields", [])
        return self._stored(kind, thing, live, how, owned)

    def _stored(self, kind: Kind, thing: Object, live: Object | None, how: Write, owned: bool = False) -> Object:
        if kind.custom:
            thing = schema.defaulted(thing, kind.schema or {})
        else:
            defaults.fill(kind, thing, creating=live is None)
        if live is None and (status := defaults.fresh_status(kind, thing)) is not None:
            thing["status"] = status
        if kind.plural == "customresourcedefinitions":
            thing = crds.established(thing)
        if found := mistakes(kind, thing, live):
            raise invalid(kind.name, kind.group, thing["metadata"]["name"], found)
        if live is not None and _same(live, thing):
            return live
        if live is not None and _generation_counts(kind) and _meaning(kind, thing) != _meaning(kind, live):
            thing["metadata"]["generation"] = live["metadata"].get("generation", 1) + 1
        if not owned:
            thing = apply.tracked(kind, live, thing, how.writer)
        if how.dry_run:
            return thing
        if live is not None and "deletionTimestamp" in thing["metadata"] and dies_at_once(thing):
            self.store.put(kind, thing)
            return self._removed(kind, thing)
        return self._put(kind, thing)

    def _put(self, kind: Kind, thing: Object) -> Object:
        stored = self.shown(kind, self.store.put(kind, thing))
        if kind.plural == "customresourcedefinitions":
            self.kinds.replace(thing["spec"]["group"], thing["spec"]["names"]["plural"], crds.kinds_of(thing))
        return stored

    def _removed(self, kind: Kind, thing: Object) -> Object:
        metadata = thing["metadata"]
        last = self.store.remove(kind, metadata.get("namespace", ""), metadata["name"])
        if kind.plural == "customresourcedefinitions":
            group, plural = thing["spec"]["group"], thing["spec"]["names"]["plural"]
            for custom in {one.key: one for one in self.kinds if (one.group, one.plural) == (group, plural)}.values():
                for one in self.store.all(custom):
                    self.store.remove(custom, one["metadata"].get("namespace", ""), one["metadata"]["name"])
            self.kinds.replace(group, plural, [])
        return self.shown(kind, last)

    def _decoded(self, kind: Kind, given: Object, how: Write, complete: bool = True) -> Object:
        return decoded(kind, given, how.validation, how.warnings, complete)

    def _in_namespace(self, kind: Kind, metadata: Object, namespace: str) -> None:
        if not kind.namespaced:
            return
        if metadata.setdefault("namespace", namespace) != namespace:
            message = (
                f"the namespace of the provided object does not match the namespace sent on the request ({namespace})"
            )
            raise ApiError(400, message)
        there = self.store.get(self.kinds.named("namespaces"), "", namespace)
        if there is None:
            raise not_found("namespaces", "", namespace)
        if "deletionTimestamp" in there["metadata"] and not metadata.get("uid"):
            message = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise ApiError(403, message, "Forbidden")


def _unstored(how: Write) -> Write:
    return Write(how.writer, how.subresource, dry_run=True, validation=how.validation, warnings=how.warnings)


def _allowed(kind: Kind, live: Object, thing: Object, subresource: str) -> Object:
    """What this address may change of the object."""
    metadata = {name: value for name, value in thing["metadata"].items() if name not in _KEPT}
    metadata |= {name: live["metadata"][name] for name in _KEPT if name in live["metadata"]}
    if subresource == "status":
        if kind.custom:
            metadata = {**live["metadata"], "managedFields": thing["metadata"].get("managedFields", [])}
        return {**live, "metadata": metadata} | ({"status": thing["status"]} if "status" in thing else {})
    if kind.status:
        kept = {name: part for name, part in thing.items() if name != "status"}
        return {**kept, "metadata": metadata} | ({"status": live["status"]} if "status" in live else {})
    return {**thing, "metadata": metadata}


def _generation_counts(kind: Kind) -> bool:
    return kind.custom or kind.plural in ("jobs", "pods", "poddisruptionbudgets", "customresourcedefinitions")


def _meaning(kind: Kind, thing: Object) -> Object:
    """What a change of counts as a new generation."""
    left_out = ("metadata", "status") if kind.status else ("metadata",)
    return {name: part for name, part in thing.items() if name not in left_out}


def _same(one: Object, other: Object) -> bool:
    def bare(thing: Object) -> Object:
        return {
            **thing,
            "metadata": {name: part for name, part in thing["metadata"].items() if name != "managedFields"},
        }

    def owned(thing: Object) -> list[Object]:
        entries = thing["metadata"].get("managedFields") or []
        return [{name: part for name, part in entry.items() if name != "time"} for entry in entries]

    return bare(one) == bare(other) and owned(one) == owned(other)
