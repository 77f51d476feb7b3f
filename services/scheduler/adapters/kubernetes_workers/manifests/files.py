"""The config maps and the secret that a job's pods mount. They hang on its Job, and go with it."""

import base64
import hashlib
from collections.abc import Iterator

import yaml
from google.protobuf import json_format

from cortex.batch.v1 import worker_spec_pb2 as pb
from services.scheduler.adapters.kubernetes_workers.manifests.volumes import (
    CLIENT_FILE,
    DIGEST_FILE,
    DOCUMENT_FILE,
    TOKEN_FILE,
    WORKER_FILE,
    document_map_name,
    part_file,
)
from services.scheduler.adapters.kubernetes_workers.manifests.work import Json, Work

ENVIRONMENT_NAME = "cortex"
"""How `cli.yaml` calls this deployment."""


def worker_map(work: Work, owner: Json, spec: pb.WorkerSpec) -> Json:
    """What the dequeuers are told, all the same, and how the containers reach this deployment."""
    client = {
        "default_environment": ENVIRONMENT_NAME,
        "environments": [{"name": ENVIRONMENT_NAME, "operator_endpoint": work.settings.public_url}],
    }
    data = {
        WORKER_FILE: json_format.MessageToJson(spec, indent=None),
        CLIENT_FILE: yaml.safe_dump(client, sort_keys=False),
    }
    return _config_map(f"{work.name}-worker", owner, data)


def document_maps(owner: Json, document: str, parts: int) -> list[Json]:
    """The job's document, whole or in as many parts as its pods expect.

    Parts are changed one after the other: the digest of the whole says when all of them are of one document.
    """
    name = owner["metadata"]["name"]
    if not parts:
        return [_config_map(document_map_name(name), owner, {DOCUMENT_FILE: document})]
    maps = []
    for number, text in enumerate(_cut(document, parts)):
        data = {part_file(number): text}
        if number == 0:
            data[DIGEST_FILE] = hashlib.sha256(document.encode()).hexdigest()
        maps.append(_config_map(document_map_name(name, number), owner, data))
    return maps


def token_secret(owner: Json, token: str) -> Json:
    """What proves that a dequeuer belongs to its job."""
    metadata = _metadata(f"{owner['metadata']['name']}-token", owner)
    data = {TOKEN_FILE: base64.b64encode(token.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def _config_map(name: str, owner: Json, data: dict[str, str]) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(name, owner), "data": data}


def _metadata(name: str, owner: Json) -> Json:
    """Of something that belongs to a Job as the API server knows it."""
    job = owner["metadata"]
    reference = {"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": job["uid"], "controller": True}
    labels = {name: value for name, value in job["labels"].items() if not name.startswith("kueue.")}
    return {"name": name, "namespace": job["namespace"], "labels": labels, "ownerReferences": [reference]}


def _cut(text: str, parts: int) -> Iterator[str]:
    """Equal pieces, in bytes, but for characters that are not cut."""
    data = text.encode()
    size = -(-len(data) // parts)
    start = 0
    for number in range(parts):
        end = len(data) if number == parts - 1 else min(len(data), (number + 1) * size)
        while end < len(data) and data[end] & 0xC0 == 0x80:  # within a character
            end += 1
        yield data[start:end].decode()
        start = max(start, end)
