"""One row for each rule of the configuration file: what is broken, and how that is told."""

import pytest

from services.common.errors import Category, CortexError
from tests.unit.api_files import CONTAINER as C
from tests.unit.api_files import READINESS as PROBE
from tests.unit.api_files import REMOVED, SMALLEST, changed, parse

HELLO = "hello.yaml: hello-world: "
WHERE = HELLO + "pod.containers[0]."

MISTAKES: list[tuple[str, object, str, str]] = [
    # the API
    ("0.name", REMOVED, "configreader.must_be_defined", "hello.yaml: [0]: name: this key is missing"),
    ("0.name", None, "configreader.cannot_be_null", "hello.yaml: [0]: name: null is not allowed"),
    ("0.name", "", "configreader.cannot_be_empty", 'hello.yaml: [0]: name: "" is not allowed'),
    (
        "0.name",
        7,
        "configreader.invalid_primitive_type",
        "name: expected a string, found the number 7; put what is written there in quotes",
    ),
    ("0.name", "Hello", "urls.dns1035", 'name: "Hello" is not a valid name: lower-case letters'),
    ("0.name", "1st", "urls.dns1035", '"1st"'),
    ("0.name", "end-", "urls.dns1035", '"end-"'),
    ("0.name", "a" * 43, "configreader.too_long", "has 43 characters; 42 is the most"),
    ("0.name", "b-side", "configreader.cant_have_prefix", '"b-side" may not start with "b-"'),
    ("0.kind", REMOVED, "configreader.must_be_defined", HELLO + "kind: this key is missing; give `kind: BatchAPI`"),
    ("0.kind", "batchapi", "configreader.invalid_str", '"batchapi" is not a kind of API; give BatchAPI'),
    ("0.kind", "RealtimeAPI", "resources.operation_is_only_supported_for_kind", "kind: RealtimeAPI cannot be deployed"),
    ("0.kind", "AsyncAPI", "resources.operation_is_only_supported_for_kind", "AsyncAPI"),
    ("0.kind", "TaskAPI", "resources.operation_is_only_supported_for_kind", "TaskAPI"),
    ("0.kind", "TrafficSplitter", "resources.operation_is_only_supported_for_kind", "TrafficSplitter"),
    (
        "0.autoscaling",
        {},
        "configreader.unsupported_key",
        HELLO + "autoscaling: this key is not supported; the keys here are",
    ),
    (
        "0.node_group",
        ["a"],
        "configreader.unsupported_key",
        "node_group: this key is not supported; did you mean node_groups?",
    ),
    (
        "0.node_groups",
        "gpu",
        "configreader.invalid_primitive_type",
        'node_groups: expected a list of strings, found the string "gpu"',
    ),
    ("0.node_groups", [], "configreader.cannot_be_empty", "node_groups: the list is empty"),
    ("0.node_groups", ["a b"], "configreader.alpha_numeric_dash_underscore", 'node_groups[0]: "a b" may hold'),
    # the endpoint
    ("0.networking.path", "/a", "configreader.unsupported_key", HELLO + "networking.path: this key"),
    ("0.networking.endpoint", "/", "urls.endpoint_empty_path", 'networking.endpoint: "/" is not allowed'),
    ("0.networking.endpoint", "/a//b", "urls.endpoint_double_slash", '"/a//b" may not hold two slashes'),
    ("0.networking.endpoint", "/a?b", "urls.endpoint", '"/a?b" may hold letters'),
    ("0.networking.endpoint", "", "urls.endpoint", '"" may hold letters'),
    ("0.networking.endpoint", "/a/../get", "urls.endpoint", "may not hold the segments"),
    ("0.networking.endpoint", "/" + "a" * 1000, "configreader.too_long", "has 1001 characters; 1000 is the most"),
    (
        "0.networking.endpoint",
        "/batch/other",
        "spec.endpoint_is_reserved",
        '"/batch/other" is taken by a route of this server (/batch)',
    ),
    ("0.networking.endpoint", 5, "configreader.invalid_primitive_type", "networking.endpoint: expected a string"),
    # the pod
    ("0.pod", REMOVED, "configreader.must_be_defined", HELLO + "pod: this key is missing"),
    (
        "0.pod",
        [1],
        "configreader.invalid_primitive_type",
        HELLO + "pod: expected a mapping of keys to values, found the list [1]",
    ),
    ("0.pod.ports", 8080, "configreader.unsupported_key", "pod.ports: this key is not supported; did you mean port?"),
    ("0.pod.port", 0, "configreader.must_be_greater_than_or_equal_to", "pod.port: 0 is too small: 1 is the least"),
    (
        "0.pod.port",
        65536,
        "configreader.must_be_less_than_or_equal_to",
        "pod.port: 65536 is too large: 65535 is the most",
    ),
    ("0.pod.port", 8888, "configreader.disallowed_value", "pod.port: 8888 is not allowed: 15000 and 8888 are reserved"),
    ("0.pod.port", 15000, "configreader.disallowed_value", "pod.port: 15000 is not allowed"),
    (
        "0.pod.port",
        "8080",
        "configreader.invalid_primitive_type",
        'pod.port: expected a whole number, found the string "8080"',
    ),
    (
        "0.pod.port",
        True,
        "configreader.invalid_primitive_type",
        "pod.port: expected a whole number, found the boolean true",
    ),
    (
        "0.pod.port",
        80.5,
        "configreader.invalid_primitive_type",
        "pod.port: expected a whole number, found the number 80.5",
    ),
    (
        "0.pod.max_concurrency",
        0,
        "configreader.must_be_greater_than_or_equal_to",
        "pod.max_concurrency: 0 is too small: 1",
    ),
    (
        "0.pod.max_concurrency",
        10_001,
        "configreader.must_be_less_than_or_equal_to",
        "pod.max_concurrency: 10001 is too large",
    ),
    ("0.pod.containers", REMOVED, "configreader.must_be_defined", "pod.containers: this key is missing"),
    ("0.pod.containers", [], "configreader.too_few_elements", "pod.containers: the list is empty"),
    (
        "0.pod.containers",
        {"a": 1},
        "configreader.invalid_primitive_type",
        "pod.containers: expected a list, found the mapping",
    ),
    (
        "0.pod.containers.1",
        SMALLEST[0]["pod"]["containers"][0],
        "spec.duplicate_container_name",
        'pod.containers[1].name: "api" is the name of containers[0]',
    ),
    # a container
    (C, "api", "configreader.invalid_primitive_type", HELLO + "pod.containers[0]: expected a mapping"),
    (f"{C}.name", REMOVED, "configreader.must_be_defined", WHERE + "name: this key is missing"),
    (f"{C}.name", "a" * 64, "configreader.too_long", "has 64 characters; 63 is the most"),
    (f"{C}.name", "A", "urls.dns1035", WHERE + 'name: "A" is not a valid name'),
    (
        f"{C}.name",
        "dequeuer",
        "configreader.disallowed_value",
        'name: "dequeuer" is not allowed: "dequeuer" and "proxy" are reserved',
    ),
    (f"{C}.name", "proxy", "configreader.disallowed_value", '"proxy" is not allowed'),
    (f"{C}.image", REMOVED, "configreader.must_be_defined", WHERE + "image: this key is missing"),
    (f"{C}.image", "", "configreader.cannot_be_empty", WHERE + 'image: "" is not allowed'),
    (f"{C}.image", "Not An Image", "configreader.invalid_docker_image", '"Not An Image" is not an image such as'),
    (
        f"{C}.command",
        REMOVED,
        "spec.field_must_be_specified_for_kind",
        WHERE + "command: a BatchAPI must have a command",
    ),
    (f"{C}.command", None, "spec.field_must_be_specified_for_kind", WHERE + "command: a BatchAPI must have"),
    (f"{C}.command", [], "spec.field_must_be_specified_for_kind", WHERE + "command: a BatchAPI must have"),
    (
        f"{C}.command",
        "python app.py",
        "configreader.invalid_primitive_type",
        'command: expected a list of strings, found the string "python app.py"; write it as ["python", "app.py"]',
    ),
    (f"{C}.command", "it's", "configreader.invalid_primitive_type", 'found the string "it\'s"'),
    (
        f"{C}.command",
        0,
        "configreader.invalid_primitive_type",
        "command: expected a list of strings, found the number 0",
    ),
    (
        f"{C}.command",
        ["run", 8080],
        "configreader.invalid_primitive_type",
        "command[1]: expected a string, found the number 8080; put what is written there in quotes",
    ),
    (f"{C}.command", [""], "configreader.cannot_be_empty", 'command[0]: "" is not allowed'),
    (f"{C}.args", [None], "configreader.invalid_primitive_type", "args[0]: expected a string, found null"),
    (f"{C}.cmd", ["x"], "configreader.unsupported_key", "cmd: this key is not supported"),
    (f"{C}.env", ["A=1"], "configreader.invalid_primitive_type", WHERE + "env: expected a mapping"),
    (
        f"{C}.env",
        {"A": 1},
        "configreader.invalid_primitive_type",
        "env.A: expected a string, found the number 1; put what is written there in quotes",
    ),
    (
        f"{C}.env",
        {"A": True},
        "configreader.invalid_primitive_type",
        "env.A: expected a string, found the boolean true; put what is written there in quotes",
    ),
    (f"{C}.env", {"A": None}, "configreader.cannot_be_null", "env.A: null is not allowed"),
    (
        f"{C}.env",
        {"CORTEX_X": "1"},
        "spec.cortex_prefixed_env_var_not_allowed",
        "env.CORTEX_X: names that start with CORTEX_ and KUBEXIT_",
    ),
    (f"{C}.env", {"KUBEXIT_X": "1"}, "spec.cortex_prefixed_env_var_not_allowed", "env.KUBEXIT_X"),
    (f"{C}.env", {"A=B": "1"}, "spec.invalid_env_var_name", "env.A=B: a variable's name may not"),
    (f"{C}.env", {"": "1"}, "spec.invalid_env_var_name", "env.: a variable's name may not be empty"),
    # probes
    (
        PROBE,
        {},
        "spec.specify_exactly_one_field",
        "readiness_probe: give exactly one of http_get, tcp_socket (found none of them)",
    ),
    (
        PROBE,
        {"tcp_socket": {"port": 1}, "http_get": {"port": 1}},
        "spec.specify_exactly_one_field",
        "(found http_get, tcp_socket)",
    ),
    (
        PROBE,
        {"exec": {"command": ["x"]}},
        "configreader.unsupported_key",
        "readiness_probe.exec: exec is for liveness_probe only",
    ),
    (
        PROBE,
        {"httpget": {"port": 1}},
        "configreader.unsupported_key",
        "readiness_probe.httpget: this key is not supported; did you mean http_get?",
    ),
    (
        f"{PROBE}.http_get",
        {},
        "configreader.must_be_defined",
        WHERE + "readiness_probe.http_get.port: this key is missing",
    ),
    (
        f"{PROBE}.http_get",
        {"port": "http"},
        "configreader.invalid_primitive_type",
        "http_get.port: expected a whole number",
    ),
    (
        f"{PROBE}.http_get",
        {"port": 8888},
        "configreader.disallowed_value",
        "readiness_probe.http_get.port: 8888 is not allowed",
    ),
    (
        f"{PROBE}.http_get",
        {"port": 0},
        "configreader.must_be_greater_than_or_equal_to",
        "http_get.port: 0 is too small",
    ),
    (
        f"{PROBE}.http_get",
        {"port": 1, "path": "/a b"},
        "urls.endpoint",
        'http_get.path: "/a b" may hold neither white space',
    ),
    (f"{PROBE}.http_get", {"port": 1, "scheme": "https"}, "configreader.unsupported_key", "http_get.scheme"),
    (f"{PROBE}.tcp_socket", {"port": 15000}, "configreader.disallowed_value", "tcp_socket.port: 15000 is not allowed"),
    (f"{PROBE}.tcp_socket", {}, "configreader.must_be_defined", "tcp_socket.port: this key is missing"),
    (f"{PROBE}.tcp_socket", {"port": 1, "path": "/"}, "configreader.unsupported_key", "tcp_socket.path"),
    (
        PROBE,
        {"tcp_socket": {"port": 1}, "period_seconds": -1},
        "configreader.must_be_greater_than_or_equal_to",
        "readiness_probe.period_seconds: -1",
    ),
    (
        PROBE,
        {"tcp_socket": {"port": 1}, "timeout_seconds": 2**31},
        "configreader.must_be_less_than_or_equal_to",
        "timeout_seconds: 2147483648",
    ),
    (
        PROBE,
        {"tcp_socket": {"port": 1}, "timeout_seconds": 0.5},
        "configreader.invalid_primitive_type",
        "timeout_seconds: expected a whole number",
    ),
    (
        f"{C}.liveness_probe",
        {},
        "spec.specify_exactly_one_field",
        "liveness_probe: give exactly one of http_get, tcp_socket, exec",
    ),
    (
        f"{C}.liveness_probe.exec",
        {"command": []},
        "configreader.cannot_be_empty",
        "liveness_probe.exec.command: name a program",
    ),
    (
        f"{C}.liveness_probe.exec",
        {},
        "configreader.must_be_defined",
        "liveness_probe.exec.command: this key is missing",
    ),
    (f"{C}.liveness_probe.exec", {"cmd": 1}, "configreader.unsupported_key", "liveness_probe.exec.cmd"),
    (
        f"{C}.liveness_probe",
        {"tcp_socket": {"port": 1}, "success_threshold": 2},
        "configreader.invalid_int32",
        "liveness_probe.success_threshold: 2",
    ),
    # compute
    (f"{C}.compute", {"ram": "1Gi"}, "configreader.unsupported_key", WHERE + "compute.ram: this key is not supported"),
    (
        f"{C}.compute",
        {"cpu": "19m"},
        "configreader.must_be_greater_than_or_equal_to",
        'compute.cpu: "19m" is too small: 20m is the least',
    ),
    (
        f"{C}.compute",
        {"cpu": 0.001},
        "configreader.must_be_greater_than_or_equal_to",
        "compute.cpu: 0.001 is too small",
    ),
    (f"{C}.compute", {"cpu": "much"}, "k8s.parse_quantity", 'compute.cpu: "much" is not an amount such as 200m'),
    (f"{C}.compute", {"cpu": True}, "configreader.invalid_primitive_type", "compute.cpu: expected a string"),
    (f"{C}.compute", {"cpu": float("inf")}, "k8s.parse_quantity", "compute.cpu: Infinity is not an amount"),
    (
        f"{C}.compute",
        {"mem": "19Mi"},
        "configreader.must_be_greater_than_or_equal_to",
        'compute.mem: "19Mi" is too small: 20Mi',
    ),
    (f"{C}.compute", {"mem": "1GB"}, "k8s.parse_quantity", 'compute.mem: "1GB" is not an amount such as 512Mi'),
    (f"{C}.compute", {"shm": "-1Gi"}, "configreader.must_be_greater_than_or_equal_to", "compute.shm"),
    (
        f"{C}.compute",
        {"mem": "1G", "shm": "1Gi"},
        "spec.shm_cannot_exceed_mem",
        "compute.shm: 1Gi is more than the container's memory (mem: 1G)",
    ),
    (f"{C}.compute", {"gpu": -1}, "configreader.must_be_greater_than_or_equal_to", "compute.gpu: -1"),
    (f"{C}.compute", {"gpu": "1"}, "configreader.invalid_primitive_type", "compute.gpu: expected a whole number"),
    (f"{C}.compute", {"inf": 2**63}, "configreader.must_be_less_than_or_equal_to", "compute.inf"),
    (
        f"{C}.compute",
        {"gpu": 1, "inf": 1},
        "spec.compute_resource_conflict",
        HELLO + "pod.containers: gpu and inf cannot",
    ),
    # the file
    (
        "1",
        SMALLEST[0],
        "spec.duplicate_name",
        'hello.yaml: hello-world: name: the APIs at [0] and [1] are both named "hello-world"',
    ),
    (
        "1",
        {**SMALLEST[0], "name": "two", "networking": {"endpoint": "hello-world/"}},
        "spec.duplicate_endpoint_in_one_deploy",
        'hello.yaml: two: networking.endpoint: "/hello-world" is the endpoint of hello-world',
    ),
    ("1", 5, "spec.malformed_config", "hello.yaml: [1]: a configuration file holds a list of APIs"),
]


@pytest.mark.parametrize(("path", "value", "kind", "message"), MISTAKES)
def test_each_mistake_is_told_with_its_place(path: str, value: object, kind: str, message: str) -> None:
    with pytest.raises(CortexError) as caught:
        parse(changed(path, value))
    assert (caught.value.kind, caught.value.category) == (kind, Category.INVALID)
    assert message in caught.value.message
    assert caught.value.message.startswith("hello.yaml: ")
