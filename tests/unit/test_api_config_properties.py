"""What holds for every configuration file, good or bad."""

import json
from fractions import Fraction
from typing import Any

import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from services.common.errors import CortexError
from services.scheduler.domain.api_config import load_api, parse_api_file
from services.scheduler.domain.api_config.document import Value, load
from services.scheduler.domain.api_config.model import ApiConfig
from services.scheduler.domain.api_config.quantities import parse_quantity
from services.scheduler.domain.api_config.spec import spec_id, to_version

KEYS = [
    *("name", "kind", "pod", "node_groups", "networking", "endpoint", "port", "max_concurrency", "containers", "image"),
    *("command", "args", "env", "compute", "readiness_probe", "liveness_probe", "http_get", "tcp_socket", "exec"),
    *("path", "period_seconds", "success_threshold", "cpu", "mem", "gpu", "inf", "shm"),
]
WORDS = ["BatchAPI", "hello", "/hello", "8080", "1Gi", "200m", "-1", "1e3", "", "null", "b-x", "dequeuer", "CORTEX_A"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(0, 70000)
    | st.floats()
    | st.sampled_from(WORDS)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=25,
)


def outcome(data: bytes) -> list[ApiConfig] | CortexError:
    try:
        return parse_api_file("any.yaml", data)
    except CortexError as error:
        return error


def check(data: bytes) -> None:
    """Every file is either told what is wrong or gives configurations that survive storing."""
    result = outcome(data)
    if isinstance(result, CortexError):
        assert result.message.startswith("any.yaml: ")
        assert result.kind.count(".") == 1
        assert result.message.encode()
        return
    for config in result:
        version = to_version(config, "0" * 10, 1, 2)
        again = load_api(version)
        assert again == config
        assert spec_id(again) == spec_id(config)


@settings(deadline=None)  # other work shares the machine
@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@example(b"- {<<: {a: 1}, <<: {b: 2}}")
@example(b"- ? {a: b}\n  : c\n")
@example(b"!<tag:yaml.org,2002:str> [a]")
@example(b"- !!int x\n- !!map y\n- !!str {a: 1}\n")
@example(b"- 0x_\n- 0b_\n- 0o_\n- 1_\n- .\n- 1__e5\n- _1")
@example(b"- " + b"9" * 5000)
@example(b"- 1e" + b"9" * 300)
@example(b"%YAML 9.9\n---\n- a")
def test_no_bytes_break_the_parser(data: bytes) -> None:
    check(data)


@settings(deadline=None)  # other work shares the machine
@given(values)
def test_no_document_breaks_the_parser(document: object) -> None:
    check(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@st.composite
def apis(draw: st.DrawFn) -> dict[str, Any]:
    """An API that is well formed but for at most a few values."""
    container: dict[str, Any] = {"name": "api", "image": "hello", "command": ["run"]}
    container |= draw(
        st.fixed_dictionaries(
            {},
            optional={
                "args": st.lists(st.text(max_size=5), max_size=3),
                "env": st.dictionaries(st.sampled_from(["A", "B_C", "d"]), st.text(max_size=5)),
                "readiness_probe": st.sampled_from([{"http_get": {"port": 1}}, {"tcp_socket": {"port": 8080}}, None]),
                "liveness_probe": st.fixed_dictionaries(
                    {"exec": st.just({"command": ["x"]})}, optional={"period_seconds": st.integers(0, 99)}
                ),
                "compute": st.fixed_dictionaries(
                    {},
                    optional={
                        "cpu": st.none() | st.integers(1, 99) | st.floats(0.02, 99) | st.sampled_from(["1", "20m"]),
                        "mem": st.none() | st.integers(2**25, 2**60) | st.sampled_from(["1Gi", "1e9", "2.5G"]),
                        "gpu": st.integers(0, 8),
                        "shm": st.none() | st.just("1Mi"),
                    },
                ),
            },
        )
    )
    api: dict[str, Any] = {"name": "hello", "kind": "BatchAPI", "pod": {"containers": [container]}}
    if draw(st.booleans()):
        api["pod"] |= {"port": draw(st.integers(1, 65535)), "max_concurrency": draw(st.integers(1, 99))}
    if draw(st.booleans()):
        api |= {"networking": {"endpoint": draw(st.from_regex(r"/[a-z]{8}(/[a-z.]{2,5})?/?", fullmatch=True))}}
    if draw(st.booleans()):
        where: dict[str, Any] = draw(st.sampled_from([api, api["pod"], container]))
        where[draw(st.sampled_from(KEYS))] = draw(values)
    return api


@settings(max_examples=200, deadline=None)
@given(apis())
def test_what_is_nearly_right_is_told_or_survives_storing(api: dict[str, Any]) -> None:
    check(yaml.safe_dump([api], allow_unicode=True).encode("utf-8", "surrogatepass"))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=9)  # NUL is refused
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@settings(deadline=None)  # other work shares the machine
@given(json_values)
def test_values_come_out_as_yaml_wrote_them(value: Value) -> None:
    assert load("any.yaml", yaml.safe_dump(value, allow_unicode=False).encode()) == value


@settings(deadline=None)  # other work shares the machine
@given(st.integers(0, 2**40), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e3", "E-2", "n"]))
def test_quantities_mean_what_kubernetes_means(number: int, suffix: str) -> None:
    factors = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "e3": 10**3}
    small = {"m": Fraction(1, 1000), "n": Fraction(1, 10**9), "E-2": Fraction(1, 100)}
    exact = number * Fraction(factors.get(suffix, 0) or small[suffix])
    quantity = parse_quantity(f"{number}{suffix}")
    if quantity is None:
        assert exact * 1000 > 2**63 - 1
    else:
        assert 0 <= quantity.milli - exact * 1000 < 1
        assert 0 <= quantity.whole - exact < 1


@settings(deadline=None)  # other work shares the machine
@given(st.text("0123456789.eEkKMGTPEimun+- ", max_size=12))
@example("1e999")
@example("0." + "0" * 60 + "1")
@example("")
def test_any_text_is_an_amount_or_none(text: str) -> None:
    quantity = parse_quantity(text)
    assert quantity is None or json.loads(json.dumps(quantity.text)) == text
