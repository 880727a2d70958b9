"""A node tells its managers when its engine's resources, labels or plugins have changed."""

import asyncio
from types import SimpleNamespace

from swarm_agent.model.objects import NodeDescription
from swarm_agent.node.membership import Membership
from swarm_agent.worker.engine import EngineGone
from tests.sim.virtual_time import clock, run


def test_it_looks_every_20_seconds_and_tells_what_is_new():
    answers = iter(["a", EngineGone("away"), "a", "b"])
    told: list[tuple[float, str]] = []

    async def describe() -> NodeDescription:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return NodeDescription(hostname=answer)

    async def main() -> None:
        start = clock()
        node = SimpleNamespace(_description=NodeDescription(hostname="a"), _describe=describe)
        node.session = SimpleNamespace(
            description_changed=lambda: told.append(((clock() - start) / 1e9, node._description.hostname))
        )
        watching = asyncio.create_task(Membership._watch_description(node))  # type: ignore[arg-type]
        await asyncio.sleep(90)
        watching.cancel()

    run(main())
    assert told == [(80, "b")]
