"""Counting a probe's answers, and when to ask again."""

from hypothesis import given
from hypothesis import strategies as st

from cortex.batch.v1.worker_spec_pb2 import Container, HttpGet, Probe, TcpSocket, WorkerSpec
from services.dequeuer.probes import Tally, pause_s, port_probe


def turns(tally: Tally, answers: str) -> list[bool]:
    """What the probe says after each answer: + for yes, - for no."""
    seen = []
    for answer in answers:
        tally.count(answer == "+")
        seen.append(tally.holds)
    return seen


def test_one_yes_is_enough_at_a_threshold_of_one() -> None:
    assert turns(Tally(False, 1, 3), "-+") == [False, True]


def test_failures_in_a_row_turn_it_over() -> None:
    assert turns(Tally(True, 1, 3), "--+---") == [True, True, True, True, True, False]


def test_successes_in_a_row_turn_it_back() -> None:
    assert turns(Tally(False, 2, 1), "+-++-") == [False, False, False, True, False]


def test_a_turn_is_told_once() -> None:
    tally = Tally(True, 1, 2)
    assert [tally.count(False) for _ in range(4)] == [False, True, False, False]


@given(st.booleans(), st.integers(1, 5), st.integers(1, 5), st.text("+-", max_size=40))
def test_only_a_full_row_of_opposite_answers_turns_it_over(holds: bool, yes: int, no: int, answers: str) -> None:
    tally = Tally(holds, yes, no)
    for position in range(len(answers)):
        before = tally.holds
        tally.count(answers[position] == "+")
        if tally.holds != before:
            row = answers[: position + 1][-(yes if tally.holds else no) :]
            assert set(row) == {"+" if tally.holds else "-"}
            assert len(row) == (yes if tally.holds else no)


def test_a_port_that_is_not_open_yet_is_asked_eagerly_and_then_less_often() -> None:
    probe = Probe(tcp_socket=TcpSocket(port=1), period_seconds=1)
    assert [pause_s(probe, waited) for waited in (0.0, 1.0, 4.0, 60.0)] == [0.02, 0.05, 0.2, 0.5]


def test_a_path_is_asked_less_eagerly_because_someone_must_answer() -> None:
    assert pause_s(Probe(http_get=HttpGet(port=1), period_seconds=10), 0.0) == 0.1


def test_a_probe_that_holds_is_asked_at_its_period() -> None:
    assert pause_s(Probe(tcp_socket=TcpSocket(port=1), period_seconds=7), None) == 7
    assert pause_s(Probe(tcp_socket=TcpSocket(port=1)), None) == 10


def spec(*readiness: Probe) -> WorkerSpec:
    return WorkerSpec(port=8080, containers=[Container(name="api", readiness_probe=probe) for probe in readiness])


def test_the_port_has_a_probe_of_its_own_unless_a_container_asks_that_very_port() -> None:
    implicit = port_probe(spec(Probe(http_get=HttpGet(port=8080)), Probe(tcp_socket=TcpSocket(port=9000))))
    assert implicit is not None
    assert implicit.tcp_socket.port == 8080
    assert (implicit.period_seconds, implicit.success_threshold, implicit.failure_threshold) == (1, 1, 1)
    assert port_probe(spec(Probe(tcp_socket=TcpSocket(port=8080)))) is None
