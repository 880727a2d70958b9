"""The thread that writes: calls in order, results and errors in the loop, an end that waits for what is under way."""

import asyncio
import threading

import pytest

from swarm_agent.raft.worker import Worker


async def test_calls_are_carried_out_in_order_by_one_other_thread():
    worker, seen = Worker("w"), []
    done = asyncio.Event()
    for number in range(100):
        worker.submit(lambda number=number: seen.append((number, threading.current_thread().name)), lambda *_: None)
    worker.submit(lambda: None, lambda *_: done.set())
    async with asyncio.timeout(5):
        await done.wait()
    assert seen == [(number, "w") for number in range(100)]
    await worker.stop()


async def test_errors_come_out_where_the_call_is_awaited_and_do_not_end_the_thread():
    worker = Worker("w")
    with pytest.raises(ZeroDivisionError):
        await worker.run(lambda: 1 // 0)
    assert await worker.run(lambda: 7) == 7
    await worker.stop()


async def test_a_caller_that_gives_up_does_not_stop_the_call_and_stop_waits_for_it():
    worker, go, ran = Worker("w"), threading.Event(), []

    def slow():
        go.wait(5)
        ran.append(1)

    waiting = asyncio.ensure_future(worker.run(slow))
    await asyncio.sleep(0)
    waiting.cancel()
    stopping = asyncio.ensure_future(worker.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    go.set()
    await stopping
    assert ran == [1]


async def test_after_stop_nothing_is_carried_out():
    worker, ran = Worker("w"), []
    await worker.stop()
    worker.submit(lambda: ran.append(1), lambda *_: ran.append(2))
    with pytest.raises(asyncio.CancelledError):
        await worker.run(lambda: ran.append(3))
    assert ran == []
