"""Deletion: preconditions, the grace of pods, finalizers, and what goes along."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.cluster.api.errors import ApiError, conflict
from tests.cluster.api.kinds import Kind, Object

_FINALIZERS = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
_FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class Deletion:
    """`DeleteOptions`."""

    uid: str = ""
    version: str = ""
    grace: int | None = None
    """`gracePeriodSeconds`; None: the object's own."""
    policy: str = ""
    """`propagationPolicy`; empty: the resource's own."""

    @classmethod
    def parse(cls, body: Object, query: dict[str, str]) -> "Deletion":
        """From the body, or the address."""
        preconditions = body.get("preconditions") or {}
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        policy = body.get("propagationPolicy") or query.get("propagationPolicy", "")
        if policy not in ("", "Background", *_FINALIZERS):
            raise ApiError(422, f'propagationPolicy: Unsupported value: "{policy}"', "Invalid")
        uid, version = preconditions.get("uid", ""), preconditions.get("resourceVersion", "")
        return cls(uid, version, None if grace is None else int(grace), policy)

    def check(self, kind: Kind, live: Object) -> None:
        """Raises `ApiError` 409 when it is not the object that is meant."""
        metadata = live["metadata"]
        for word, field, wanted in (("UID", "uid", self.uid), ("ResourceVersion", "resourceVersion", self.version)):
            if wanted and wanted != metadata[field]:
                why = f"Precondition failed: {word} in precondition: {wanted}, {word} in object meta: {metadata[field]}"
                raise conflict(kind.plural, kind.group, metadata["name"], why)


def marked(kind: Kind, live: Object, options: Deletion) -> Object:
    """The object as it is once its deletion has been asked for; the same one when nothing changes."""
    metadata = dict(live["metadata"])
    grace = _grace(kind, live, options)
    if "deletionTimestamp" not in metadata:
        # For back compatibility a Job that is deleted without a word leaves its pods behind.
        policy = options.policy or ("Orphan" if kind.key == "jobs.batch" else "Background")
        others = [one for one in metadata.get("finalizers") or [] if one not in _FINALIZERS.values()]
        finalizers = [*others, *([_FINALIZERS[policy]] if policy in _FINALIZERS else [])]
        metadata["finalizers"] = finalizers
        if not finalizers:
            del metadata["finalizers"]
    elif grace >= metadata.get("deletionGracePeriodSeconds", 0):
        return live
    metadata["deletionTimestamp"] = (datetime.now(UTC) + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata["deletionGracePeriodSeconds"] = grace
    if "generation" in metadata and "deletionTimestamp" not in live["metadata"]:
        metadata["generation"] += 1
    status = (
        {**(live.get("status") or {}), "phase": "Terminating"} if kind.plural == "namespaces" else live.get("status")
    )
    return {**live, "metadata": metadata} | ({} if status is None else {"status": status})


def dies_at_once(thing: Object) -> bool:
    """Nothing holds it any more."""
    metadata = thing["metadata"]
    held = metadata.get("finalizers") or (thing.get("spec") or {}).get("finalizers")
    return not held and not metadata.get("deletionGracePeriodSeconds", 0)


def _grace(kind: Kind, live: Object, options: Deletion) -> int:
    if kind.plural != "pods":
        return 0
    spec, status = live["spec"], live.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in _FINISHED:
        return 0
    grace = spec.get("terminationGracePeriodSeconds", 30) if options.grace is None else options.grace
    return max(1, grace) if options.grace != 0 else 0
