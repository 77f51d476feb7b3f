"""The keys of one container, and their rules."""

import re
import shlex

from services.scheduler.domain.api_config.document import Value
from services.scheduler.domain.api_config.model import (
    KIND,
    RESERVED_CONTAINER_NAMES,
    RESERVED_PORTS,
    Compute,
    Container,
    Exec,
    HttpGet,
    Probe,
    ProbeHandler,
    TcpSocket,
)
from services.scheduler.domain.api_config.quantities import Quantity, parse_quantity
from services.scheduler.domain.api_config.reader import (
    INT64_MAX,
    Place,
    Section,
    integer,
    not_one_of,
    section,
    show,
    string,
    strings,
)

MAX_NAME = 63
RESERVED_ENV_PREFIXES = ("CORTEX_", "KUBEXIT_")
DEFAULT_CPU = "200m"
MIN_CPU = "20m"
MIN_MEM = "20Mi"

_KEYS = ("name", "image", "command", "args", "env", "readiness_probe", "liveness_probe", "compute")
_COMPUTE_KEYS = ("cpu", "mem", "gpu", "inf", "shm")
_HANDLERS = ("http_get", "tcp_socket", "exec")
_PROBE_KEYS = (
    *_HANDLERS,
    "initial_delay_seconds",
    "timeout_seconds",
    "period_seconds",
    "success_threshold",
    "failure_threshold",
)
_DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_ENV_NAME = re.compile(r"[^=\s]+")
_PROBE_PATH = re.compile(r"[!-~]+")
_PATH_PART = r"[a-z0-9]+(?:(?:\.|__|_|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*(?::[0-9]+)?/)?"  # a registry
    rf"{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"  # a tag
    r"(?:@[a-z0-9]+:[0-9a-fA-F]{32,128})?"  # a digest
)
_MAX_IMAGE = 512


def parse_container(place: Place, value: Value) -> Container:
    """One entry of `pod.containers`."""
    given = section(place, value)
    given.require_known(_KEYS)
    name = dns_1035(given, MAX_NAME)
    not_one_of(place.key("name"), name, RESERVED_CONTAINER_NAMES, "containers that are added to every pod")
    return Container(
        name=name,
        image=_image(given),
        command=_command(given),
        args=given.strings("args"),
        env=_env(given),
        readiness_probe=_probe(given, "readiness_probe"),
        liveness_probe=_probe(given, "liveness_probe"),
        compute=_compute(given),
    )


def dns_1035(given: Section, max_length: int) -> str:
    """The `name` of an API or a container: a DNS-1035 label."""
    place = given.place.key("name")
    name = given.string("name", "a name")
    if len(name) > max_length:
        raise place.error("configreader.too_long", f"{show(name)} has {len(name)} characters; {max_length} is the most")
    if not _DNS_1035.fullmatch(name):
        rule = "lower-case letters, digits and dashes; a letter first; no dash at the end"
        raise place.error("urls.dns1035", f"{show(name)} is not a valid name: {rule}")
    return name


def port(given: Section, default: int | None = None) -> int:
    """The `port` of a pod or a probe."""
    number = given.integer("port", default, 1, 65535)
    not_one_of(given.place.key("port"), number, RESERVED_PORTS, "sidecars")
    return number


def _image(given: Section) -> str:
    image = given.string("image", "a container image")
    if len(image) > _MAX_IMAGE or not _IMAGE.fullmatch(image):
        example = "registry.example.com/team/name:tag"
        raise given.place.key("image").error(
            "configreader.invalid_docker_image", f"{show(image)} is not an image such as {example}"
        )
    return image


def _command(given: Section) -> tuple[str, ...]:
    place = given.place.key("command")
    value = given.values.get("command")
    if not value and (value is None or isinstance(value, list | str)):
        example = 'such as ["python", "app.py"]'
        raise place.error("spec.field_must_be_specified_for_kind", f"a {KIND} must have a command, a list {example}")
    command = strings(place, value, _as_list(value) if isinstance(value, str) else "")
    if not command[0]:
        raise place.index(0).error("configreader.cannot_be_empty", '"" is not allowed; the first item names a program')
    return command


def _as_list(line: str) -> str:
    try:
        words = shlex.split(line)
    except ValueError:  # unbalanced quotes
        return ""
    return f"; write it as {show(list(words))}"


def _env(given: Section) -> dict[str, str]:
    entries = given.section("env")
    if entries is None:
        return {}
    return {_env_name(entries.place.key(name[:100]), name): _env_value(entries, name) for name in entries.values}


def _env_name(place: Place, name: str) -> str:
    if name.startswith(RESERVED_ENV_PREFIXES):
        prefixes = " and ".join(RESERVED_ENV_PREFIXES)
        text = f"names that start with {prefixes} are reserved; choose another name"
        raise place.error("spec.cortex_prefixed_env_var_not_allowed", text)
    if not _ENV_NAME.fullmatch(name):
        raise place.error("spec.invalid_env_var_name", "a variable's name may not be empty nor hold = or white space")
    return name


def _env_value(entries: Section, name: str) -> str:
    return string(entries.place.key(name[:100]), entries.require(name, 'a string ("" for an empty one)'))


def _probe(given: Section, key: str) -> Probe | None:
    probe = given.section(key)
    if probe is None:
        return None
    handlers = _HANDLERS if key == "liveness_probe" else _HANDLERS[:2]
    probe.require_known(_PROBE_KEYS)
    if probe.given("exec") and "exec" not in handlers:
        text = f"exec is for liveness_probe only; a {key} takes {' or '.join(handlers)}"
        raise probe.place.key("exec").error("configreader.unsupported_key", text)
    chosen = [handler for handler in handlers if probe.given(handler)]
    if len(chosen) != 1:
        text = f"give exactly one of {', '.join(handlers)} (found {', '.join(chosen) or 'none of them'})"
        raise probe.place.error("spec.specify_exactly_one_field", text)
    success_threshold = _number(probe, "success_threshold", 1)
    if key == "liveness_probe" and success_threshold != 1:
        text = f"{success_threshold} is not allowed: the success_threshold of a liveness_probe is 1"
        raise probe.place.key("success_threshold").error("configreader.invalid_int32", text)
    return Probe(
        handler=_handler(probe, chosen[0]),
        initial_delay_seconds=probe.integer("initial_delay_seconds", 0, 0),
        timeout_seconds=_number(probe, "timeout_seconds", 1),
        period_seconds=_number(probe, "period_seconds", 10),
        success_threshold=success_threshold,
        failure_threshold=_number(probe, "failure_threshold", 3),
    )


def _number(probe: Section, key: str, default: int) -> int:
    return probe.integer(key, default, 0) or default  # Kubernetes reads 0 as "not given"


def _handler(probe: Section, key: str) -> ProbeHandler:
    given = section(probe.place.key(key), probe.values[key])
    if key == "http_get":
        given.require_known(("port", "path"))
        return HttpGet(port(given), _probe_path(given))
    if key == "tcp_socket":
        given.require_known(("port",))
        return TcpSocket(port(given))
    given.require_known(("command",))
    given.require("command", "a list that names a program and its arguments")
    command = given.strings("command")
    if not command or not command[0]:
        raise given.place.key("command").error("configreader.cannot_be_empty", "name a program and its arguments")
    return Exec(command)


def _probe_path(given: Section) -> str:
    if not given.given("path"):
        return "/"
    place = given.place.key("path")
    path = string(place, given.values["path"])
    if path and not _PROBE_PATH.fullmatch(path):
        raise place.error("urls.endpoint", f"{show(path)} may hold neither white space nor characters outside ASCII")
    return path if path.startswith("/") else f"/{path}"


def _compute(given: Section) -> Compute:
    compute = given.section("compute")
    if compute is None:
        return Compute(cpu=parse_quantity(DEFAULT_CPU), mem=None)
    compute.require_known(_COMPUTE_KEYS)
    cpu_asked = compute if "cpu" in compute.values else Section(compute.place, {"cpu": DEFAULT_CPU})
    mem = _quantity(compute, "mem", MIN_MEM)
    shm = _quantity(compute, "shm", "0")
    if mem is not None and shm is not None and shm.milli > mem.milli:
        text = f"{shm.text} is more than the container's memory (mem: {mem.text}); lower it or raise mem"
        raise compute.place.key("shm").error("spec.shm_cannot_exceed_mem", text)
    return Compute(
        cpu=_quantity(cpu_asked, "cpu", MIN_CPU),
        mem=mem,
        gpu=_count(compute, "gpu"),
        inf=_count(compute, "inf"),
        shm=shm,
    )


def _count(compute: Section, key: str) -> int:
    return integer(compute.place.key(key), compute.values[key], 0, INT64_MAX) if compute.given(key) else 0


def _quantity(compute: Section, key: str, least: str) -> Quantity | None:
    if not compute.given(key):
        return None
    place = compute.place.key(key)
    value = compute.values[key]
    text = show(value) if isinstance(value, int | float) and not isinstance(value, bool) else string(place, value)
    quantity = parse_quantity(text)
    if quantity is None:
        examples = '200m, 0.5 or "2"' if key == "cpu" else "512Mi, 1G or a number of bytes"
        raise place.error("k8s.parse_quantity", f"{show(value)} is not an amount such as {examples}")
    minimum = parse_quantity(least)
    if minimum is not None and quantity.milli < minimum.milli:
        kind = "configreader.must_be_greater_than_or_equal_to"
        raise place.error(kind, f"{show(value)} is too small: {least} is the least")
    return quantity
