"""The room that replies take in a dequeuer."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from services.dequeuer.replies import KeptReply, ReplyRoom

BUDGET, CHUNK, LARGEST = 100, 10, 70


@dataclass(eq=False)
class Lane:
    """A reply under way, chunk by chunk."""

    size: int
    paused: bool = False
    reply: KeptReply | None = None
    sent: int = 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


@dataclass
class World:
    """Some lanes, and a scheduler that records when the test says so."""

    lanes: list[Lane]
    whole: list[KeptReply] = field(default_factory=list)
    used: int = 0
    most: int = 0
    told_of_room: int = 0

    def __post_init__(self) -> None:
        self.room = ReplyRoom(self._on_room, BUDGET)
        for lane in self.lanes:
            lane.reply = self.room.begin(lane)

    def _on_room(self) -> None:
        assert not self.room.full
        self.told_of_room += 1

    def read(self, lane: Lane) -> None:
        assert lane.reply is not None
        assert not lane.paused
        more = min(CHUNK, lane.size - lane.sent)
        lane.reply.add(b"x" * more)
        lane.sent += more
        self.used += more
        self.most = max(self.most, self.used)
        if lane.sent == lane.size:
            lane.reply.end()
            self.whole.append(lane.reply)
            self.lanes.remove(lane)

    def record(self, reply: KeptReply) -> None:
        self.whole.remove(reply)
        self.used -= reply.size
        reply.forget()


@given(st.data(), st.lists(st.integers(0, LARGEST), min_size=1, max_size=12))
def test_every_reply_arrives_and_never_more_is_held_than_the_budget_and_one_reply(
    data: st.DataObject, sizes: list[int]
) -> None:
    world = World([Lane(size) for size in sizes])
    while world.lanes or world.whole:
        moving = [lane for lane in world.lanes if not lane.paused]
        assert moving or world.whole, "nothing can go on"
        if moving and (not world.whole or data.draw(st.booleans())):
            world.read(data.draw(st.sampled_from(moving)))
        else:
            world.record(data.draw(st.sampled_from(world.whole)))
        assert world.room.full == (world.used > BUDGET)
    # One chunk for each is on its way when it is told to wait.
    assert world.most <= BUDGET + LARGEST + CHUNK * len(sizes)
    assert (world.told_of_room > 0) == (world.most > BUDGET)


def test_a_reply_that_is_not_wanted_any_more_lets_the_others_go_on() -> None:
    lanes = [Lane(LARGEST), Lane(LARGEST), Lane(LARGEST)]
    world = World(list(lanes))
    for _ in range(5):
        for lane in lanes:
            if not lane.paused:
                world.read(lane)
    (ahead,) = [lane for lane in lanes if not lane.paused]
    assert ahead.reply is not None
    ahead.reply.forget()  # its lane was cancelled
    assert not any(lane.paused for lane in lanes)
