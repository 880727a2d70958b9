"""A linearizability checker: did a set of concurrent operations happen as if each took effect at one moment?

Wing and Gong's search (1993) with Lowe's memoisation (2017): walk the calls and returns in the order of time; take any
call whose operation the model allows next, as if it took effect now, and go on with the rest; when an operation returns
that has not been taken yet, the last choice was wrong. A pair (operations taken, state) that was met before cannot lead
anywhere new, so it is not tried again. Keys are independent of each other and are checked apart: a history is
linearizable exactly when that of each key is (Herlihy and Wing 1990, locality), and short histories are cheap.

An operation whose outcome nobody learnt (no answer in time) may have taken effect at any moment after its call, or
never. It has no return, and the search ends when all others are placed. Such an operation is taken only where it
changes the state: elsewhere it might as well not have happened, and trying would double the work for each of them.

    check(history, Register())       None, or a Violation that tells how far the best attempt came
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of one client. `called` and `returned` are of one clock; `returned` None: the outcome is unknown.

    `action` is the model's word for what was asked and, when it is known, answered.
    """

    client: str
    key: str
    action: Hashable
    called: float
    returned: float | None


class Model(Protocol):
    """What the system should be, as if it ran one operation at a time."""

    def initial(self, key: str) -> Hashable:
        """State of a key before all operations."""

    def step(self, state: Any, action: Any) -> Hashable | None:
        """The state after the action, or None when the action cannot have been answered so in this state."""


@dataclass(frozen=True, slots=True)
class Violation:
    """No order explains what the clients of this key saw: `placed` is the longest that does, `stuck` fits nowhere."""

    key: str
    placed: tuple[Operation, ...]
    state: Hashable
    stuck: Operation

    def __str__(self) -> str:
        last = "\n".join(f"    {_line(operation)}" for operation in self.placed[-8:])
        return (
            f"{self.key} is not linearizable: {len(self.placed)} operations fit, the last of them\n{last}\n"
            f"  then the state is {self.state!r}, and this fits nowhere:\n    {_line(self.stuck)}"
        )


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Read:
    """Someone read, and saw `value`."""

    value: str


@dataclass(frozen=True, slots=True)
class Write:
    """Someone wrote, whatever was there."""

    value: str


@dataclass(frozen=True, slots=True)
class Swap:
    """Someone wrote `value` on condition that `expected` was there (an update with the version of what was read)."""

    expected: str
    value: str


@dataclass(frozen=True, slots=True)
class Register:
    """A value under each key. Leave out a `Swap` that was refused: it changed nothing, and says little of the value."""

    start: str = ""

    def initial(self, key: str) -> str:
        return self.start

    def step(self, state: str, action: Read | Write | Swap) -> str | None:
        match action:
            case Read(value):
                return state if state == value else None
            case Write(value):
                return value
            case Swap(expected, value):
                return value if state == expected else None


# --- the search -------------------------------------------------------------------------------------------------------


class _Entry:
    """A call or a return in a doubly linked list ordered by time. A call knows its return (None: never)."""

    __slots__ = ("match", "next", "number", "previous")

    def __init__(self, number: int) -> None:
        self.number = number
        self.match: _Entry | None = None
        self.previous: _Entry | None = None
        self.next: _Entry | None = None


def check(history: Iterable[Operation], model: Model) -> Violation | None:
    """The first violation found, or None when every key's history is linearizable."""
    by_key: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        by_key[operation.key].append(operation)
    for key in sorted(by_key):
        violation = _check_key(key, by_key[key], model)
        if violation is not None:
            return violation
    return None


def _check_key(key: str, operations: Sequence[Operation], model: Model) -> Violation | None:
    head, calls = _linked(operations)
    state: Hashable = model.initial(key)
    taken = 0
    missing = sum(operation.returned is not None for operation in operations)
    seen: set[tuple[int, Hashable]] = {(0, state)}
    stack: list[tuple[_Entry, Hashable]] = []
    best: tuple[int, tuple[int, ...], Hashable, int] | None = None
    entry = head.next
    while missing:
        assert entry is not None, "an operation that returned stays in the list until it is taken"
        call = calls.get(entry)
        if call is not None:
            after = model.step(state, call.action)
            bits = taken | 1 << entry.number
            useless = call.returned is None and after == state
            if after is not None and not useless and (bits, after) not in seen:
                seen.add((bits, after))
                stack.append((entry, state))
                state, taken = after, bits
                missing -= call.returned is not None
                _lift(entry)
                entry = head.next
            else:
                entry = entry.next
            continue
        # A return of an operation that has not been placed: it ought to have been by now.
        if best is None or len(stack) > best[0]:
            best = (len(stack), tuple(call.number for call, _ in stack), state, entry.number)
        if not stack:
            _, placed, reached, stuck = best
            return Violation(key, tuple(operations[number] for number in placed), reached, operations[stuck])
        wrong, state = stack.pop()
        taken &= ~(1 << wrong.number)
        missing += operations[wrong.number].returned is not None
        _put_back(wrong)
        entry = wrong.next
    return None


def _linked(operations: Sequence[Operation]) -> tuple[_Entry, dict[_Entry, Operation]]:
    """Head of the list, and the operation of each entry that is a call.

    At equal times calls come first: two operations that touch are concurrent, which accuses nobody wrongly.
    """
    events: list[tuple[float, int, _Entry]] = []
    calls: dict[_Entry, Operation] = {}
    for number, operation in enumerate(operations):
        call = _Entry(number)
        calls[call] = operation
        events.append((operation.called, 0, call))
        if operation.returned is not None:
            call.match = _Entry(number)
            events.append((operation.returned, 1, call.match))
    head = last = _Entry(-1)
    for _, _, entry in sorted(events, key=lambda event: event[:2]):
        last.next, entry.previous = entry, last
        last = entry
    return head, calls


def _lift(call: _Entry) -> None:
    """Take a call and its return out of the list. They keep their neighbours, so that they can be put back."""
    for entry in (call, call.match):
        if entry is not None:
            assert entry.previous is not None
            entry.previous.next = entry.next
            if entry.next is not None:
                entry.next.previous = entry.previous


def _put_back(call: _Entry) -> None:
    """Undo the last `_lift`: in the reverse order, so that the neighbours are right again."""
    for entry in (call.match, call):
        if entry is not None:
            assert entry.previous is not None
            entry.previous.next = entry
            if entry.next is not None:
                entry.next.previous = entry


def _line(operation: Operation) -> str:
    end = "?" if operation.returned is None else f"{operation.returned:.3f}"
    return f"{operation.called:.3f} to {end}  {operation.client}: {operation.action!r}"
