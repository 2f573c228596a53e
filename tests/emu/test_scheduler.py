"""Virtual time and turns."""

from __future__ import annotations

from emu.scheduler import COUNTER_READ_NS, NS_PER_TICK, SLICE_INSTRUCTIONS, Clock, Scheduler
from firmware.vendor_hyp import COUNTER_HZ


def test_a_tick_is_a_whole_number_of_nanoseconds() -> None:
    assert COUNTER_HZ * NS_PER_TICK == 1_000_000_000


def test_two_reads_of_the_counter_never_agree() -> None:
    clock = Clock()

    reads = [clock.read_counter() for _ in range(100)]

    assert reads == sorted(set(reads))
    assert clock.now_ns == 100 * COUNTER_READ_NS
    assert clock.now_ticks == reads[-1]


def test_time_never_goes_back() -> None:
    clock = Clock()
    clock.advance_to_tick(100)

    clock.advance_to_tick(50)

    assert (clock.now_ticks, clock.now_ns) == (100, 1600)


def test_seed_0_is_round_robin_with_equal_slices() -> None:
    scheduler = Scheduler(0)

    assert [scheduler.choose([True] * 3) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    assert {scheduler.slice_instructions() for _ in range(10)} == {SLICE_INSTRUCTIONS}


def test_those_who_cannot_run_are_left_out() -> None:
    scheduler = Scheduler(0)

    assert scheduler.choose([False, True, False, True]) == 1
    assert scheduler.choose([True, False, False, True]) == 3
    assert scheduler.choose([True, False, False, False]) == 0
    assert scheduler.choose([False] * 4) is None
    assert scheduler.choose([]) is None


def test_a_started_vcpu_has_the_next_turn_and_the_round_goes_on_where_it_was() -> None:
    scheduler = Scheduler(0)
    assert scheduler.choose([True] * 4) == 0
    scheduler.start(3)
    scheduler.start(2)

    assert [scheduler.choose([True] * 4) for _ in range(4)] == [3, 2, 1, 2]


def test_a_started_vcpu_that_cannot_run_after_all_has_no_turn() -> None:
    scheduler = Scheduler(0)
    scheduler.start(1)

    assert scheduler.choose([True, False]) == 0
    assert scheduler.choose([True, True]) == 1


def test_a_reset_begins_a_new_round() -> None:
    scheduler = Scheduler(0)
    scheduler.choose([True] * 3)
    scheduler.start(2)

    scheduler.reset()

    assert scheduler.choose([True] * 3) == 0


def test_a_seed_draws_the_same_schedule_again_and_every_vcpu_has_turns() -> None:
    def draw(seed: int) -> list[tuple[int | None, int]]:
        scheduler = Scheduler(seed)
        return [(scheduler.choose([True] * 4), scheduler.slice_instructions()) for _ in range(200)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert {vcpu for vcpu, _ in draw(1)} == {0, 1, 2, 3}
    assert all(1 <= count <= 2 * SLICE_INSTRUCTIONS for _, count in draw(1))


def test_under_a_seed_a_start_changes_nothing() -> None:
    plain, started = Scheduler(5), Scheduler(5)
    started.start(3)

    assert [plain.choose([True] * 4) for _ in range(20)] == [started.choose([True] * 4) for _ in range(20)]
