"""The configuration file: what it becomes, and how each mistake in it is told."""

import re
from pathlib import Path

import pytest
import yaml

from services.common.errors import Category, CortexError
from services.scheduler.domain.api_config import mentions_port, parse_api_file, probe_ports
from services.scheduler.domain.api_config.endpoints import RESERVED_ENDPOINTS
from services.scheduler.domain.api_config.model import Compute, Exec, HttpGet, Probe, TcpSocket
from services.scheduler.domain.api_config.quantities import Quantity
from tests.unit.api_files import CONTAINER as C
from tests.unit.api_files import READINESS as PROBE
from tests.unit.api_files import SMALLEST, changed, parse


def refused(data: bytes) -> CortexError:
    with pytest.raises(CortexError) as caught:
        parse_api_file("hello.yaml", data)
    return caught.value


def test_the_smallest_api_gets_every_default() -> None:
    (config,) = parse(SMALLEST)
    (container,) = config.pod.containers
    assert (config.name, config.endpoint, config.node_groups) == ("hello-world", "/hello-world", None)
    assert (config.index, config.file_name, config.submitted) == (0, "hello.yaml", SMALLEST[0])
    assert (config.pod.port, config.pod.max_concurrency) == (8080, 1)
    assert (container.args, container.env) == (None, {})
    assert (container.readiness_probe, container.liveness_probe) == (None, None)
    assert container.compute == Compute(cpu=Quantity("200m", 200), mem=None, gpu=0, inf=0, shm=None)


def test_the_documentation_s_example_is_a_configuration() -> None:
    page = Path("docs/api-configuration.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (config,) = parse_api_file("/apis/hello.yaml", example.encode())
    api, cache = config.pod.containers
    assert (config.endpoint, config.node_groups, config.pod.max_concurrency) == ("/hello", ("gpu-spot", "gpu"), 4)
    assert api.env == {"MODEL": "/models/digits", "THREADS": "2"}
    assert api.readiness_probe == Probe(HttpGet(8080, "/healthz"), period_seconds=1)
    assert api.liveness_probe == Probe(Exec(("test", "-e", "/mnt/alive")), initial_delay_seconds=30)
    assert api.compute.mem is not None
    assert api.compute.mem.whole == 1024**3
    assert (api.compute.gpu, cache.command) == (1, ("redis-server",))
    assert mentions_port(config)
    for key in ("name", "kind", "port", "max_concurrency", "args", "success_threshold", "inf", "networking.endpoint"):
        assert f"`{key}`" in page
    assert not [route for route in ("/batch", "/get", "/docs") if route not in RESERVED_ENDPOINTS]


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", "endpoints.form_file_must_be_provided", "hello.yaml: the file is empty"),
        (b"# nothing\n", "spec.malformed_config", r"a list of APIs, .* \(found nothing\)"),
        (b"name: a\n", "spec.malformed_config", r'a list of APIs, .* \(found \{"name": "a"\}\)'),
        (b"hello", "spec.malformed_config", 'found "hello"'),
        (b"[]", "spec.no_apis", "the list is empty"),
        (b"- a\xff", "configreader.invalid_yaml", "hello.yaml: line 1: this is not UTF-8"),
        (
            b"- a: [1\n- b",
            "configreader.invalid_yaml",
            r"hello.yaml: line 3: this is not YAML: .*\(column 1\), .* line 1$",
        ),
        (b"- a\n---\n- b\n", "configreader.invalid_yaml", "line 2: a second document"),
        (b"- \x07", "configreader.invalid_yaml", "this is not YAML"),
        (b"- name: a\n  name: b\n", "configreader.duplicated_key", "line 2: the key 'name' is given twice"),
        (b"- 8080: a\n", "configreader.non_string_key_found", "line 1: '8080' cannot be a key"),
        (b"- [a]: a\n", "configreader.non_string_key_found", "line 1: this cannot be a key"),
        (b"- on: a\n", "configreader.non_string_key_found", "'on' cannot be a key"),
        (b"- *nowhere\n", "configreader.invalid_yaml", r"line 1: the alias \*nowhere refers to nothing"),
        (b"- &a [*a]\n", "configreader.invalid_yaml", r"the alias \*a refers to what it stands in"),
        (b"- !!python/name:os.system x\n", "configreader.invalid_yaml", "the tag .*python.* is not supported"),
        (b"- <<: 5\n", "configreader.invalid_yaml", "`<<` takes a mapping"),
        (b'- "\\0"\n', "configreader.invalid_yaml", "NUL character"),
        (b"[" * 100 + b"]" * 100, "configreader.invalid_yaml", "nested more than 32 levels"),
        (b"[" * 500_000, "configreader.invalid_yaml", "nested more than 32 levels"),
    ],
)
def test_what_is_not_a_list_in_yaml_is_refused(data: bytes, kind: str, message: str) -> None:
    error = refused(data)
    assert error.kind == kind
    assert re.search(message, error.message)


def test_a_file_that_is_too_large_is_refused() -> None:
    error = refused(b"#" * (1024 * 1024 + 1))
    assert (error.kind, error.category) == ("spec.config_too_large", Category.TOO_LARGE)


@pytest.mark.parametrize("reference", ["*a{}", "{{<<: [*a{}]}}"])
def test_aliases_that_expand_without_end_are_refused(reference: str) -> None:
    layers = ["- &a0 {k0: v, l0: v, m0: v, n0: v}"]
    for layer in range(1, 40):
        values = ", ".join(f"k{index}: {reference.format(layer - 1)}" for index in range(9))
        layers.append(f"- &a{layer} {{{values}}}")
    assert "more than 100000 values" in refused("\n".join(layers).encode()).message


def test_long_texts_may_not_be_repeated_without_end() -> None:
    text = "- &long " + "x" * 100_000 + "\n- [" + "*long, " * 50_000 + "]"
    assert "a megabyte of text" in refused(text.encode()).message


def test_one_api_may_not_be_huge() -> None:
    with pytest.raises(CortexError, match=r"hello-world: the configuration of this API takes \d+ bytes") as caught:
        parse(changed(f"{C}.env", {"TEXT": "x" * 256 * 1024}))
    assert (caught.value.kind, caught.value.category) == ("spec.config_too_large", Category.TOO_LARGE)


def test_a_file_of_many_values_is_refused_quickly() -> None:
    assert "more than 100000 values" in refused(b"[" + b"1," * 500_000 + b"]").message


def test_anchors_aliases_and_merge_keys_work() -> None:
    text = """
- name: one
  kind: BatchAPI
  pod:
    containers:
      - &base {name: api, image: hello, command: [run], env: {A: "1"}}
      - {<<: *base, name: other, env: {B: "2"}}
"""
    (config,) = parse_api_file("x.yaml", text.encode())
    first, second = config.pod.containers
    assert (second.name, second.image, second.env) == ("other", "hello", {"B": "2"})
    assert first.env == {"A": "1"}


def test_text_that_yaml_might_take_for_a_date_or_a_time_stays_text() -> None:
    text = """
- name: one
  kind: BatchAPI
  pod:
    containers:
      - name: api
        image: hello
        command: [run, 2026-01-31, 1:30, 1.2.3, !!str 7, "8", 'yes', 1e5, 08, "=", <<]
"""
    (config,) = parse_api_file("x.yaml", text.encode())
    words = ("run", "2026-01-31", "1:30", "1.2.3", "7", "8", "yes", "1e5", "08", "=", "<<")
    assert config.pod.containers[0].command == words


@pytest.mark.parametrize(("written", "meant"), [("0x10", 16), ("010", 8), ("+5_0", 50), ("0b11", 3)])
def test_numbers_are_read_as_yaml_1_1_writes_them(written: str, meant: int) -> None:
    text = yaml.safe_dump(changed("0.pod.port", "PORT"), sort_keys=False).replace("PORT", written)
    (config,) = parse_api_file("x.yaml", text.encode())
    assert config.pod.port == meant


@pytest.mark.parametrize("null_key", ["networking", "node_groups"])
def test_null_means_not_given(null_key: str) -> None:
    (config,) = parse(changed(f"0.{null_key}", None))
    assert (config.endpoint, config.node_groups) == ("/hello-world", None)


def test_null_cpu_asks_for_no_cpu() -> None:
    (config,) = parse(changed(f"{C}.compute", {"cpu": None, "mem": None, "gpu": None}))
    assert config.pod.containers[0].compute == Compute(cpu=None, mem=None)


@pytest.mark.parametrize(
    ("written", "endpoint"), [("/a", "/a"), ("a/b/", "/a/b"), ("/batches", "/batches"), ("/v1.2/x_y-z", "/v1.2/x_y-z")]
)
def test_endpoints_get_one_slash_in_front_and_none_behind(written: str, endpoint: str) -> None:
    (config,) = parse(changed("0.networking.endpoint", written))
    assert config.endpoint == endpoint


@pytest.mark.parametrize("route", sorted(RESERVED_ENDPOINTS))
def test_no_api_shadows_a_route_of_the_server(route: str) -> None:
    with pytest.raises(CortexError, match=re.escape(route)) as caught:
        parse(changed("0.networking.endpoint", route + "/"))
    assert caught.value.kind == "spec.endpoint_is_reserved"


def test_an_api_named_like_a_route_needs_an_endpoint_of_its_own() -> None:
    with pytest.raises(CortexError, match=r"set networking\.endpoint to another path, such as /my/docs"):
        parse(changed("0.name", "docs"))


def test_gpu_and_inf_conflict_over_containers_too() -> None:
    document = changed(f"{C}.compute", {"gpu": 1})
    document[0]["pod"]["containers"].append({"name": "b", "image": "b", "command": ["b"], "compute": {"inf": 1}})
    with pytest.raises(CortexError, match="gpu and inf cannot be asked for in the same pod"):
        parse(document)


def test_zero_in_a_probe_means_the_default_as_in_kubernetes() -> None:
    zeros = dict.fromkeys(("timeout_seconds", "period_seconds", "success_threshold", "failure_threshold"), 0)
    (config,) = parse(changed(PROBE, {"tcp_socket": {"port": 80}, **zeros}))
    assert config.pod.containers[0].readiness_probe == Probe(TcpSocket(80))


@pytest.mark.parametrize(("written", "path"), [(None, "/"), ("/a/", "/a/"), ("ok?x=1", "/ok?x=1"), ("", "/")])
def test_probe_paths_have_their_slash(written: str | None, path: str) -> None:
    (config,) = parse(changed(f"{PROBE}.http_get", {"port": 80, "path": written}))
    assert config.pod.containers[0].readiness_probe == Probe(HttpGet(80, path))


@pytest.mark.parametrize(
    "image",
    ["python", "python:3.11-slim", "ghcr.io/a/b_c:v1", "localhost:5000/x", "a.b/c@sha256:" + "0" * 64, "A.io/b:Tag"],
)
def test_images_as_docker_names_them_are_taken(image: str) -> None:
    (config,) = parse(changed(f"{C}.image", image))
    assert config.pod.containers[0].image == image


@pytest.mark.parametrize(
    ("key", "value", "mentioned"),
    [
        ("command", ["run", "--port=$(CORTEX_PORT)"], True),
        ("args", ["sh", "-c", "run $CORTEX_PORT"], True),
        ("env", {"PORT": "${CORTEX_PORT}"}, True),
        ("command", ["python", "-c", "os.environ['CORTEX_PORT']"], True),
        ("command", ["run", "$(CORTEX_PORTS)", "MY_CORTEX_PORT", "8080"], False),
        ("env", {"MY_CORTEX_PORT": "1"}, False),
    ],
)
def test_a_mention_of_the_port_is_found(key: str, value: object, mentioned: bool) -> None:
    (config,) = parse(changed(f"{C}.{key}", value))
    assert mentions_port(config) is mentioned


def test_probed_ports_are_those_of_all_probes() -> None:
    document = changed(PROBE, {"http_get": {"port": 81}})
    document[0]["pod"]["containers"].append(
        {"name": "b", "image": "b", "command": ["b"], "liveness_probe": {"tcp_socket": {"port": 82}}}
    )
    document[0]["pod"]["containers"][0]["liveness_probe"] = {"exec": {"command": ["x"]}}
    (config,) = parse(document)
    assert probe_ports(config) == {81, 82}
