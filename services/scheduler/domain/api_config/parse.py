"""A configuration file's bytes to checked APIs: the rules above the container's level.

Every rule raises a `CortexError` whose message names the file, the API, the path in it and the value, and says what
is allowed. The first mistake found is the one reported.
"""

import json
import re
from collections.abc import Collection

from services.common.errors import Category, CortexError
from services.scheduler.domain.api_config.containers import dns_1035, parse_container, port
from services.scheduler.domain.api_config.document import Value, load
from services.scheduler.domain.api_config.endpoints import RESERVED_ENDPOINTS, normalize_endpoint
from services.scheduler.domain.api_config.model import KIND, ApiConfig, Container, Pod
from services.scheduler.domain.api_config.reader import Place, Section, items, section, show, string
from services.scheduler.domain.queue_name import check_queue_name

MAX_NAME = 42
"""Leaves room for what is put around the name in Kubernetes."""

DEFAULT_PORT = 8080
MAX_CONCURRENCY = 10_000
"""The most batches that a container may take at once."""

MAX_API_BYTES = 256 * 1024
"""The most that one API's configuration may hold, written as JSON: every listing carries it."""

_KEYS = ("name", "kind", "pod", "node_groups", "networking", "queue_name")
_POD_KEYS = ("port", "max_concurrency", "containers")
_OTHER_KINDS = ("RealtimeAPI", "AsyncAPI", "TaskAPI", "TrafficSplitter")
_NODE_GROUP = re.compile(r"[A-Za-z0-9_-]+")


def parse_api_file(file_name: str, data: bytes, reserved: Collection[str] = RESERVED_ENDPOINTS) -> list[ApiConfig]:
    """Every API of a file, in its order. `reserved` are endpoints that no API may have, nor a path below them.

    Raises `CortexError`; category TOO_LARGE for a file that is too large, else INVALID.
    """
    document = load(file_name, data)
    if not isinstance(document, list):
        raise _malformed(file_name, document)
    if not document:
        raise Place(file_name).error("spec.no_apis", "the list is empty; it must hold at least one API")
    configs = []
    for index, entry in enumerate(document):
        if not isinstance(entry, dict):
            raise _malformed(f"{file_name}: [{index}]", entry)
        config = parse_api(file_name, index, entry, reserved)
        _refuse_large(config)
        configs.append(config)
    _refuse_duplicates(file_name, configs)
    return configs


def parse_api(file_name: str, index: int, entry: dict[str, Value], reserved: Collection[str]) -> ApiConfig:
    """One API of a file."""
    name = dns_1035(Section(Place(f"{file_name}: [{index}]"), entry), MAX_NAME)
    api = Section(Place(f"{file_name}: {name}"), entry)
    if name.startswith("b-"):
        raise api.place.key("name").error("configreader.cant_have_prefix", f'{show(name)} may not start with "b-"')
    _require_batch_api(api)
    api.require_known(_KEYS)
    return ApiConfig(
        name=name,
        pod=_pod(api),
        node_groups=_node_groups(api),
        endpoint=_endpoint(api, name, reserved),
        queue_name=_queue_name(api),
        index=index,
        file_name=file_name,
        submitted=entry,
    )


def _refuse_large(config: ApiConfig) -> None:
    size = len(json.dumps(config.submitted, ensure_ascii=False).encode())
    if size > MAX_API_BYTES:
        text = f"the configuration of this API takes {size} bytes as JSON; {MAX_API_BYTES} is the most"
        message = f"{config.file_name}: {config.name}: {text}"
        raise CortexError("spec.config_too_large", message, Category.TOO_LARGE)


def _malformed(place: str, found: Value) -> CortexError:
    what = "nothing" if found is None else show(found)
    text = "a configuration file holds a list of APIs, each a mapping that starts with `- name:`"
    return CortexError("spec.malformed_config", f"{place}: {text} (found {what})")


def _require_batch_api(api: Section) -> None:
    kind = api.string("kind", f"`kind: {KIND}`")
    if kind in _OTHER_KINDS:
        text = f"{kind} cannot be deployed here; the one kind that is supported is {KIND}"
        raise api.place.key("kind").error("resources.operation_is_only_supported_for_kind", text)
    if kind != KIND:
        raise api.place.key("kind").error("configreader.invalid_str", f"{show(kind)} is not a kind of API; give {KIND}")


def _pod(api: Section) -> Pod:
    api.require("pod", "the containers to run")
    pod = section(api.place.key("pod"), api.values["pod"])
    pod.require_known(_POD_KEYS)
    return Pod(
        port=port(pod, DEFAULT_PORT),
        max_concurrency=pod.integer("max_concurrency", 1, 1, MAX_CONCURRENCY),
        containers=_containers(pod),
    )


def _containers(pod: Section) -> tuple[Container, ...]:
    place = pod.place.key("containers")
    entries = items(place, pod.require("containers", "a list of containers"))
    if not entries:
        raise place.error("configreader.too_few_elements", "the list is empty; give at least one container")
    containers = tuple(parse_container(at, entry) for at, entry in entries)
    seen: dict[str, int] = {}
    for index, container in enumerate(containers):
        if (first := seen.setdefault(container.name, index)) != index:
            text = f"{show(container.name)} is the name of containers[{first}] already; choose another"
            raise place.index(index).key("name").error("spec.duplicate_container_name", text)
    if any(each.compute.gpu for each in containers) and any(each.compute.inf for each in containers):
        text = "gpu and inf cannot be asked for in the same pod; choose one of them for all containers"
        raise place.error("spec.compute_resource_conflict", text)
    return containers


def _node_groups(api: Section) -> tuple[str, ...] | None:
    groups = api.strings("node_groups")
    place = api.place.key("node_groups")
    if groups == ():
        raise place.error(
            "configreader.cannot_be_empty", "the list is empty; leave the key out to allow every node group"
        )
    for index, group in enumerate(groups or ()):
        if not _NODE_GROUP.fullmatch(group):
            text = f"{show(group)} may hold letters, digits, dashes and underscores only"
            raise place.index(index).error("configreader.alpha_numeric_dash_underscore", text)
    return groups


def _endpoint(api: Section, name: str, reserved: Collection[str]) -> str:
    networking = api.section("networking") or Section(api.place.key("networking"), {})
    networking.require_known(("endpoint",))
    place = networking.place.key("endpoint")
    value = string(place, networking.values["endpoint"]) if networking.given("endpoint") else f"/{name}"
    return normalize_endpoint(place, value, reserved)


def _queue_name(api: Section) -> str:
    if not api.given("queue_name"):
        return ""
    place = api.place.key("queue_name")
    return check_queue_name(str(place), string(place, api.values["queue_name"]))


def _refuse_duplicates(file_name: str, configs: list[ApiConfig]) -> None:
    names: dict[str, ApiConfig] = {}
    endpoints: dict[str, ApiConfig] = {}
    for config in configs:
        place = Place(f"{file_name}: {config.name}")
        if (first := names.setdefault(config.name, config)) is not config:
            text = f"the APIs at [{first.index}] and [{config.index}] are both named {show(config.name)}; rename one"
            raise place.key("name").error("spec.duplicate_name", text)
        if (first := endpoints.setdefault(config.endpoint, config)) is not config:
            text = f"{show(config.endpoint)} is the endpoint of {first.name} in the same file; choose another"
            raise place.key("networking.endpoint").error("spec.duplicate_endpoint_in_one_deploy", text)
