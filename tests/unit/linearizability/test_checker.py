"""The checker of histories itself: what it must accept, what it must refuse, and that it agrees with brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest

from tests.lab.linearizability import Operation, Read, Register, Swap, Write, check

REGISTER = Register(start="0")


def op(client: str, action: Read | Write | Swap, called: float, returned: float | None, key: str = "k") -> Operation:
    return Operation(client, key, action, called, returned)


def accepted(*history: Operation) -> bool:
    return check(history, REGISTER) is None


def test_nothing_is_linearizable():
    assert accepted()


def test_a_read_of_what_was_written_before():
    assert accepted(op("a", Write("1"), 0, 1), op("b", Read("1"), 2, 3))


def test_a_stale_read_is_refused_and_named():
    stale = op("b", Read("0"), 2, 3)
    violation = check([op("a", Write("1"), 0, 1), stale], REGISTER)
    assert violation is not None and violation.stuck == stale and violation.state == "1"
    assert "b: Read(value='0')" in str(violation)


def test_a_read_beside_a_write_may_see_either():
    assert accepted(op("a", Write("1"), 0, 10), op("b", Read("0"), 1, 2), op("b", Read("1"), 3, 4))


def test_time_does_not_go_back_between_two_readers():
    write = op("a", Write("1"), 0, 10)
    assert not accepted(write, op("b", Read("1"), 1, 2), op("c", Read("0"), 3, 4))


def test_operations_that_touch_are_concurrent():
    assert accepted(op("a", Write("1"), 0, 1), op("b", Read("0"), 1, 2))


def test_a_lost_acknowledged_write_is_refused():
    assert not accepted(
        op("a", Swap("0", "1"), 0, 1), op("a", Swap("1", "2"), 2, 3), op("b", Read("1"), 4, 5), op("b", Read("2"), 6, 7)
    )


def test_two_swaps_cannot_both_win_on_the_same_value():
    assert not accepted(op("a", Swap("0", "1"), 0, 5), op("b", Swap("0", "2"), 0, 5))
    assert accepted(op("a", Swap("0", "1"), 0, 5), op("b", Swap("1", "2"), 0, 5))


@pytest.mark.parametrize("seen", [("0", "0"), ("0", "1"), ("1", "1")])
def test_an_unknown_write_may_happen_at_any_later_time_or_never(seen):
    first, second = seen
    assert accepted(op("a", Write("1"), 0, None), op("b", Read(first), 5, 6), op("b", Read(second), 90, 91))


def test_an_unknown_write_happens_once():
    unknown = op("a", Write("1"), 0, None)
    assert not accepted(unknown, op("b", Read("1"), 5, 6), op("b", Read("0"), 7, 8))
    seen_again = [op("c", Write("2"), 7, 8), op("b", Read("2"), 9, 10), op("b", Read("1"), 11, 12)]
    assert not accepted(unknown, op("b", Read("1"), 5, 6), *seen_again)


def test_an_unknown_write_does_not_happen_before_its_call():
    assert not accepted(op("b", Read("1"), 0, 1), op("a", Write("1"), 2, None))


def test_keys_do_not_explain_each_other():
    assert not accepted(op("a", Write("1"), 0, 1, key="x"), op("b", Read("1"), 2, 3, key="y"))


def test_many_unknown_swaps_cost_little():
    """400 of them, of which none can have happened, beside 400 reads: without the shortcut 2^400 sets of them."""
    unknown = [op(f"u{n}", Swap("never", str(n)), n, None) for n in range(400)]
    assert accepted(*unknown, *(op("r", Read("0"), n, n + 0.5) for n in range(400)))


def random_history(rng: random.Random, size: int) -> list[Operation]:
    """Short operations on one key, few values, some of unknown outcome: about as often linearizable as not."""
    history = []
    for number in range(size):
        called = rng.randrange(8)
        values = [str(rng.randrange(3)) for _ in range(2)]
        action = rng.choice((Read(values[0]), Write(values[0]), Swap(*values)))
        unknown = not isinstance(action, Read) and rng.random() < 0.25
        history.append(op(f"c{number}", action, called, None if unknown else called + rng.randrange(1, 5)))
    return history


def brute_force(history: Sequence[Operation]) -> bool:
    """Every subset of the unknown operations, in every order that time allows."""
    known = [each for each in history if each.returned is not None]
    unknown = [each for each in history if each.returned is None]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            if any(explains(order) for order in itertools.permutations([*known, *some])):
                return True
    return False


def explains(order: Sequence[Operation]) -> bool:
    state: str | None = "0"
    for number, each in enumerate(order):
        if any(later.returned is not None and later.returned < each.called for later in order[number + 1 :]):
            return False
        state = REGISTER.step(state, each.action)
        if state is None:
            return False
    return True


def test_it_agrees_with_brute_force():
    rng = random.Random(7)
    verdicts = []
    for _ in range(300):
        history = random_history(rng, rng.randrange(1, 6))
        expected = brute_force(history)
        assert (check(history, REGISTER) is None) == expected, history
        verdicts.append(expected)
    assert 60 < sum(verdicts) < 240, "histories of both kinds"


def concurrent_history(rng: random.Random, clients: int, operations: int) -> list[Operation]:
    """What clients see of a real register: each operation takes effect at one moment between its call and return."""
    moments = sorted((rng.random() * 100, f"c{rng.randrange(clients)}") for _ in range(operations))
    state, history = "0", []
    for number, (moment, client) in enumerate(moments):
        action: Read | Swap = Read(state)
        if rng.random() < 0.5:
            action, state = Swap(state, f"v{number}"), f"v{number}"
        history.append(op(client, action, moment - rng.random(), moment + rng.random()))
    return history


def test_long_histories_of_a_register_are_accepted_and_one_wrong_read_in_them_is_found():
    rng = random.Random(3)
    history = concurrent_history(rng, clients=8, operations=800)
    assert check(history, REGISTER) is None
    early = next(each.action.value for each in history[100:] if isinstance(each.action, Swap))
    assert check([*history, op("x", Read(early), 99.0, 99.1)], REGISTER) is not None
