"""`$(NAME)` as Kubernetes fills it in: its examples, and any text at all against its algorithm written out."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.dequeuer.pod.expansion import expand, expand_in_order

VARIABLES = {"A": "1", "B": "two", "": "empty", "A$(B": "odd", "C": "$(A)"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("--port=$(A)$(B)", "--port=1two"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$(A)", "$$(A)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$(C)", "$(A)"),  # values are not looked at again
        ("$(A$(B))", "odd)"),
        ("$()", "empty"),
        ("kill $$", "kill $"),
        ("a\n$(\nA)", "a\n$(\nA)"),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert expand(text, VARIABLES) == expected


def by_the_letter(text: str) -> str:
    """Kubernetes' algorithm, one character after the other."""
    out, cursor = "", 0
    while cursor < len(text):
        rest = text[cursor + 1 :]
        if text[cursor] != "$" or not rest:
            out, cursor = out + text[cursor], cursor + 1
        elif rest[0] == "$":
            out, cursor = out + "$", cursor + 2
        elif rest[0] == "(" and ")" in rest:
            name = rest[1 : rest.index(")")]
            out, cursor = out + VARIABLES.get(name, f"$({name})"), cursor + len(name) + 3
        else:
            out, cursor = out + "$" + rest[0], cursor + 2
    return out


@given(st.text(alphabet="$()AB \n"))
@example("$($$(A)")
def test_any_text_is_filled_in_as_kubernetes_does(text: str) -> None:
    assert expand(text, VARIABLES) == by_the_letter(text)


@given(st.text(alphabet=st.characters(blacklist_characters="$")))
def test_a_text_without_dollars_stays(text: str) -> None:
    assert expand(text, VARIABLES) == text


@given(st.text())
def test_doubled_dollars_give_any_text_back(text: str) -> None:
    assert expand(text.replace("$", "$$"), VARIABLES) == text


def test_a_variable_may_refer_to_earlier_ones_only() -> None:
    pairs = [("X", "$(P)-$(Y)"), ("Y", "$(X)"), ("X", "$(X)!")]
    assert expand_in_order(pairs, {"P": "80"}) == {"P": "80", "X": "80-$(Y)!", "Y": "80-$(Y)"}
