"""Tasks of one service hold their common parts once, whichever way they came into the store."""

from swarm_agent.model.objects import Network, NetworkAttachment, Task
from swarm_agent.model.specs import ContainerSpec, NetworkSpec, TaskSpec
from swarm_agent.store import sharing
from swarm_agent.store.memory import memory_store
from swarm_agent.store.sharing import Parts


def task(id_, image="web:1", network_version=1):
    network = Network(id="net", spec=NetworkSpec(name="net", labels={"v": str(network_version)}))
    return Task(
        id=id_, spec=TaskSpec(container_spec=ContainerSpec(image=image)), service_id="service", service_name="web",
        service_labels={"team": "a"}, networks_attachments=[NetworkAttachment(network=network, addresses=[id_])],
    )  # fmt: skip


async def stored(*tasks):
    store = memory_store()
    for each in tasks:
        await store.update(lambda tx, each=each: tx.create(each))
    return store


def parts_of(one):
    return (one.spec, one.service_labels, one.networks_attachments[0].network)


async def test_equal_parts_are_the_same_object_after_a_write_and_after_a_snapshot():
    store = await stored(task("t1"), task("t2"))
    other = memory_store()
    other.install(other.load(store.snapshot()))
    for some in (store, other):
        first, second = some.view().all(Task)
        assert all(one is two for one, two in zip(parts_of(first), parts_of(second), strict=True))


async def test_nothing_else_changes():
    store = await stored(task("t1"), task("t2", "web:2", 2), task("t3"))
    found = store.view().all(Task)
    assert [one.spec.container_spec.image for one in found] == ["web:1", "web:2", "web:1"]
    assert [one.networks_attachments[0].network.spec.labels["v"] for one in found] == ["1", "2", "1"]
    assert [one.networks_attachments[0].addresses for one in found] == [["t1"], ["t2"], ["t3"]]
    again = await stored(task("t1"), task("t2", "web:2", 2), task("t3"))
    assert [(one.id, one.spec) for one in again.view().all(Task)] == [(one.id, one.spec) for one in found]


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(sharing, "MAX_PARTS", 3)
    parts = Parts()
    values = [[number] for number in range(10)]
    assert [parts.one(number, value) for number, value in enumerate(values)] == values
    assert len(parts._known) <= 3
