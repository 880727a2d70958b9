"""The worker on a real engine of its own: what happens to containers, and what the managers hear of it."""

from __future__ import annotations

import asyncio
import base64
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from swarm_agent.model.objects import (
    Config,
    Endpoint,
    EndpointVirtualIP,
    Network,
    NetworkAttachment,
    Secret,
    Version,
)
from swarm_agent.model.specs import (
    ConfigReference,
    ConfigSpec,
    Driver,
    EndpointSpec,
    FileTarget,
    HealthConfig,
    Mount,
    NetworkAttachmentConfig,
    NetworkSpec,
    PortConfig,
    SecretReference,
    SecretSpec,
    TmpfsOptions,
)
from swarm_agent.model.states import TaskState
from swarm_agent.worker.files import filesystem_of, mount_table
from tests.lab.private_engine import PrivateEngine, missing
from tests.lab.workerkit import Bench, make_task, wanting

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")

SECOND = 1_000_000_000
OBEDIENT = ["sh", "-c", "trap 'exit 0' TERM; touch /tmp/listens; while :; do sleep 0.1; done"]


@pytest.fixture(scope="module")
def engine() -> Iterator[PrivateEngine]:
    engine = PrivateEngine()
    try:
        engine.start()
        engine.load_image()
        yield engine
    finally:
        engine.close()


@pytest.fixture
async def bench(engine: PrivateEngine, tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(engine, tmp_path)
    await bench.start()
    yield bench
    await bench.worker.remove_all()
    await bench.client.close()
    engine.remove_containers()


async def test_a_task_runs_and_is_told_step_by_step(bench: Bench) -> None:
    task = make_task(env=["A=1"], labels={"mine": "yes"})
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.RUNNING)
    assert status.message == "started" and status.err == ""
    assert status.container_status is not None
    assert status.container_status.container_id == bench.inspect(task, "{{.Id}}")
    assert status.container_status.pid == int(bench.inspect(task, "{{.State.Pid}}"))
    assert bench.seen.history[task.id] == [TaskState.PREPARING, TaskState.STARTING, TaskState.RUNNING]
    assert bench.containers() == [f"web.1.{task.id}"]
    assert bench.inspect(task, '{{index .Config.Labels "com.docker.swarm.task.id"}}') == task.id
    assert bench.seen.rows[task.id].active


async def test_a_ready_task_waits_for_its_lift(bench: Bench) -> None:
    task = make_task(desired=TaskState.READY)
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.READY)
    assert status.message == "prepared"
    assert bench.inspect(task, "{{.State.Status}}") == "created"
    bench.change(wanting(task, TaskState.RUNNING))
    await bench.seen.state(task, TaskState.RUNNING)


@pytest.mark.parametrize(
    ("command", "state", "message", "err", "code"),
    [
        ("exit 0", TaskState.COMPLETE, "finished", "", 0),
        ("exit 3", TaskState.FAILED, "started", "task: non-zero exit (3)", 3),
    ],
)
async def test_the_exit_code_decides(
    bench: Bench, command: str, state: TaskState, message: str, err: str, code: int
) -> None:
    task = make_task(command=["sh", "-c", f"sleep 0.3; {command}"])
    bench.assign(task)
    status = await bench.seen.state(task, state)
    assert (status.message, status.err) == (message, err)
    assert status.container_status is not None and status.container_status.exit_code == code


async def test_a_killed_process_fails_its_task(bench: Bench) -> None:
    task = make_task()
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    bench.engine.docker("kill", task.name)
    status = await bench.seen.state(task, TaskState.FAILED)
    assert status.err == "task: non-zero exit (137)"
    assert ("withdraw", task.id) in bench.seen.calls


async def test_labels_of_the_service_give_devices_privileges_and_shared_memory(bench: Bench) -> None:
    labels = {
        "swarm.task.devices": "/dev/null:/dev/nothing:r",
        "swarm.task.shm_size": "128m",
        "swarm.task.runtime": "runc",
    }
    task = make_task(service_labels=labels)
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    assert bench.inspect(task, "{{.HostConfig.ShmSize}} {{.HostConfig.Runtime}}") == f"{128 << 20} runc"
    process = Path("/proc") / bench.inspect(task, "{{.State.Pid}}")
    shared = next(line for line in (process / "mounts").read_text().splitlines() if " /dev/shm " in line)
    assert "size=131072k" in shared
    assert (process / "root/dev/nothing").is_char_device()
    assert bench.inspect(task, "{{.HostConfig.Privileged}}") == "false"
    # Made, but not started: not every machine that runs tests may give a container all capabilities.
    strong = make_task(slot=2, desired=TaskState.READY, service_labels={"swarm.task.privileged": "true"})
    bench.change(strong)
    await bench.seen.state(strong, TaskState.READY)
    assert bench.inspect(strong, "{{.HostConfig.Privileged}}") == "true"


@pytest.mark.parametrize(
    ("labels", "word"),
    [({"swarm.task.runtime": "nonesuch"}, "nonesuch"), ({"swarm.task.gpus": "all"}, "gpu")],
)
async def test_what_the_engine_cannot_give_rejects_or_fails_the_task_with_its_words(
    bench: Bench, labels: dict[str, str], word: str
) -> None:
    task = make_task(service_labels=labels)
    bench.assign(task)
    ended = (TaskState.REJECTED, TaskState.FAILED)
    statuses = bench.seen.statuses
    await bench.seen.until(lambda: task.id in statuses and statuses[task.id].state in ended, "it ends")
    assert word in statuses[task.id].err


async def test_a_missing_image_is_rejected_in_swarms_words(bench: Bench) -> None:
    task = make_task(image="alpine")
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.REJECTED)
    assert status.err == "No such image: alpine:latest"
    assert status.message == "preparing"
    assert bench.containers() == []


async def test_a_command_that_does_not_exist_fails_at_the_start(bench: Bench) -> None:
    task = make_task(command=["/no/such/program"])
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.FAILED)
    assert status.err.startswith("starting container failed: ")
    assert "/no/such/program" in status.err


async def test_a_bad_mount_is_rejected(bench: Bench) -> None:
    task = make_task(mounts=[Mount(type="bind", source="/no/such/folder", target="/data")])
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.REJECTED)
    assert "bind source path does not exist" in status.err


async def test_a_stop_takes_the_task_out_of_traffic_before_the_signal(bench: Bench) -> None:
    task = make_task(command=OBEDIENT)
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    # Before its trap is set, the first process of a container ignores the signal.
    await _eventually(lambda: "listens" in bench.engine.docker("exec", task.name, "ls", "/tmp"), "the trap is set")
    running_at_deactivation = []

    async def deactivate(task_id: str) -> None:
        running_at_deactivation.append(bench.inspect(task, "{{.State.Running}}"))

    bench.seen.deactivate = deactivate  # type: ignore[method-assign]
    bench.change(wanting(task, TaskState.SHUTDOWN))
    status = await bench.seen.state(task, TaskState.SHUTDOWN)
    assert running_at_deactivation == ["true"]
    assert status.message == "shutdown"
    assert status.container_status is not None and status.container_status.exit_code == 0
    assert bench.containers() == [task.name], "history keeps the container until the task is reaped"
    bench.change(gone=(task.id,))
    await _gone(bench)


async def test_a_task_that_ignores_the_signal_is_killed_after_its_grace(bench: Bench) -> None:
    task = make_task(command=["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    bench.change(wanting(task, TaskState.SHUTDOWN))
    status = await bench.seen.state(task, TaskState.SHUTDOWN)
    assert status.container_status is not None and status.container_status.exit_code == 137


async def test_a_removed_task_leaves_nothing(bench: Bench) -> None:
    task = make_task()
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    bench.change(gone=(task.id,))
    await _gone(bench)
    await _eventually(lambda: bench.worker.statuses() == [], "the worker forgot it")


async def test_running_waits_for_health_and_an_unhealthy_task_fails(bench: Bench) -> None:
    check = HealthConfig(
        test=["CMD", "test", "-e", "/tmp/well"],
        interval=SECOND // 5,
        timeout=SECOND,
        start_period=9 * SECOND,
        retries=2,
    )
    task = make_task(command=["sh", "-c", "sleep 0.5; touch /tmp/well; while :; do sleep 0.1; done"], healthcheck=check)
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    assert bench.inspect(task, "{{.State.Health.Status}}") == "healthy"
    bench.engine.docker("exec", task.name, "rm", "/tmp/well")
    status = await bench.seen.state(task, TaskState.FAILED)
    assert status.err.endswith("unhealthy container")
    assert bench.inspect(task, "{{.State.Running}}") == "false"


async def test_a_task_that_never_gets_healthy_never_runs(bench: Bench) -> None:
    check = HealthConfig(test=["CMD", "test", "-e", "/no"], interval=SECOND // 5, timeout=SECOND, retries=1)
    task = make_task(healthcheck=check)
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.FAILED)
    assert status.err == "task: non-zero exit (137): unhealthy container"
    assert TaskState.RUNNING not in bench.seen.history[task.id]
    assert ("activate", task.id) not in bench.seen.calls


async def test_secrets_and_configs_are_files_in_memory_with_owner_and_mode(bench: Bench) -> None:
    secret = Secret(id="sec", spec=SecretSpec(name="pass", data=base64.b64encode(b"hidden").decode()))
    config = Config(
        id="con",
        spec=ConfigSpec(
            name="conf",
            data=base64.b64encode(b'I am {{.Task.Name}} with {{secret "pass"}}').decode(),
            templating=Driver(name="golang"),
        ),
    )
    task = make_task(
        command=["sh", "-c", "cat /run/secrets/pass /etc/app.conf; stat -c ' %u %g %a' /run/secrets/pass; sleep 60"],
        secrets=[
            SecretReference(
                file=FileTarget(name="pass", uid="1000", gid="50", mode=0o440), secret_id="sec", secret_name="pass"
            )
        ],
        configs=[
            ConfigReference(
                file=FileTarget(name="/etc/app.conf", uid="0", gid="0", mode=0o444), config_id="con", config_name="conf"
            )
        ],
    )
    bench.assign(task, secrets=[secret], configs=[config])
    await bench.seen.state(task, TaskState.RUNNING)
    expected = f"hiddenI am {task.name} with hidden 1000 50 440"
    await _eventually(lambda: bench.engine.docker("logs", task.name) == expected, "the container printed its files")
    folder = bench.folder / "run" / "tasks" / task.id
    assert {entry.name for entry in folder.iterdir()} == {"0", "1"}
    mounts = await asyncio.to_thread(mount_table)
    assert filesystem_of(folder, mounts) == "tmpfs"
    bench.change(gone=(task.id,))
    await _gone(bench)
    assert not folder.exists()
    assert b"hidden" not in (bench.folder / "state" / "worker.json").read_bytes()


async def test_files_that_a_crash_left_are_removed(bench: Bench) -> None:
    left = bench.folder / "run" / "tasks" / "unknown"
    left.mkdir(parents=True)
    bench.assign()
    await _eventually(lambda: not left.exists(), "the files are gone")


async def test_an_absent_secret_rejects_the_task(bench: Bench) -> None:
    reference = SecretReference(file=FileTarget(name="x"), secret_id="nope", secret_name="x")
    task = make_task(secrets=[reference])
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.REJECTED)
    assert status.err == "secret x (nope) is not on this node"


async def test_templates_are_expanded_per_task(bench: Bench) -> None:
    task = make_task(
        slot=3, hostname="{{.Service.Name}}-{{.Task.Slot}}", env=["WHERE={{.Node.Hostname}}", "RAW={{.Task.ID}}"]
    )
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    assert bench.inspect(task, "{{.Config.Hostname}}") == "web-3"
    assert bench.inspect(task, "{{json .Config.Env}}").startswith(f'["WHERE=bench","RAW={task.id}"')


async def test_a_template_that_fails_rejects_the_task(bench: Bench) -> None:
    task = make_task(env=["A={{.Nope}}"])
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.REJECTED)
    assert status.message == "resolving controller failed"
    assert status.err.startswith("expanding env failed: template: expansion: ")


async def test_a_host_mode_port_is_reported_as_the_engine_chose_it(bench: Bench) -> None:
    port = PortConfig(protocol="tcp", target_port=80, publish_mode="host")
    task = make_task(endpoint=Endpoint(spec=EndpointSpec(ports=[port]), ports=[port]))
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.RUNNING)
    (bound,) = status.port_status.ports
    assert (bound.target_port, bound.publish_mode) == (80, "host")
    assert bench.engine.docker("port", task.name, "80/tcp").splitlines()[0].endswith(f":{bound.published_port}")
    assert bench.seen.rows[task.id].ports[0].published == bound.published_port


async def test_a_task_joins_its_networks_with_the_managers_addresses(bench: Bench) -> None:
    attachments = []
    for number, ingress in ((1, True), (2, False)):
        name = f"net{number}"
        bench.engine.docker("network", "create", "--subnet", f"10.222.{number}.0/24", name)
        bench.seen.networks[f"id{number}"] = name
        network = Network(id=f"id{number}", spec=NetworkSpec(name=name, ingress=ingress))
        attachments.append(NetworkAttachment(network=network, addresses=[f"10.222.{number}.77/24"]))
    task = make_task(
        networks_attachments=attachments,
        networks=[NetworkAttachmentConfig(target="id2", aliases=["db"], driver_opts={"a": "b"})],
        endpoint=Endpoint(virtual_ips=[EndpointVirtualIP(network_id="id2", addr="10.222.2.5/24")]),
    )
    try:
        bench.assign(task)
        await bench.seen.state(task, TaskState.RUNNING)
        form = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{.MacAddress}};{{end}}"
        assert bench.inspect(task, form) == "10.222.1.77 02:42:0a:de:01:4d;10.222.2.77 02:42:0a:de:02:4d;"
        assert bench.inspect(task, "{{.HostConfig.NetworkMode}}") == "net2"
        assert bench.inspect(task, "{{.NetworkSettings.Networks.net2.DriverOpts}}") == "map[a:b]"
        calls = [call for call, task_id in bench.seen.calls if task_id == task.id]
        assert calls == ["announce", "activate"]
        row = bench.seen.rows[task.id]
        assert [(one.network_id, one.ip, one.vip, one.aliases) for one in row.addresses] == [
            ("id1", "10.222.1.77", "", ()),
            ("id2", "10.222.2.77", "10.222.2.5", ("db",)),
        ]
        bench.change(gone=(task.id,))
        await _gone(bench)
    finally:
        bench.engine.remove_containers()
        bench.engine.docker("network", "rm", "net1", "net2")


async def test_a_network_that_does_not_come_rejects_the_task(bench: Bench) -> None:
    async def attach(network_id: str) -> str:
        raise RuntimeError("network far is not on this host after 30 s")

    bench.seen.attach = attach  # type: ignore[method-assign]
    attachment = NetworkAttachment(network=Network(id="far"), addresses=["10.1.1.2/24"])
    task = make_task(networks_attachments=[attachment])
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.REJECTED)
    assert status.err == "network far is not on this host after 30 s"


async def test_a_signal_to_reload_is_no_stop(bench: Bench) -> None:
    script = "trap 'rm /tmp/on' HUP; touch /tmp/on; while test -e /tmp/on; do sleep 0.1; done"
    task = make_task(command=["sh", "-c", script])
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    await _eventually(lambda: "on" in bench.engine.docker("exec", task.name, "ls", "/tmp"), "the trap is set")
    bench.engine.docker("kill", "-s", "HUP", task.name)
    await bench.seen.state(task, TaskState.COMPLETE)


async def test_thirty_tasks_at_once(bench: Bench) -> None:
    tasks = [make_task(slot=slot, command=OBEDIENT) for slot in range(1, 31)]
    bench.assign(*tasks)
    for task in tasks:
        await bench.seen.state(task, TaskState.RUNNING)
    bench.assign()
    await _gone(bench)


async def test_a_task_that_is_stopped_while_its_image_is_pulled_ends_at_once(bench: Bench) -> None:
    pulling = asyncio.Event()

    async def pull(reference: str, auth: str, stall: float) -> None:
        pulling.set()
        await asyncio.Event().wait()

    bench.client.pull = pull  # type: ignore[method-assign]
    task = make_task()
    bench.assign(task)
    await pulling.wait()
    bench.change(wanting(task, TaskState.SHUTDOWN))
    await bench.seen.state(task, TaskState.SHUTDOWN)
    assert bench.containers() == []


async def test_the_spec_reaches_the_container(bench: Bench) -> None:
    task = make_task(
        init=True,
        read_only=True,
        user="1000",
        groups=["50"],
        capability_drop=["CAP_NET_RAW"],
        sysctls={"net.ipv4.ip_unprivileged_port_start": "5"},
        hosts=["10.9.8.7 far away"],
        mounts=[Mount(type="tmpfs", target="/data", tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o1777))],
        command=["sh", "-c", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; id -u; id -G; touch /x; sleep 60"],
    )
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    await _eventually(lambda: "50" in bench.engine.docker("logs", task.name), "the container printed")
    assert bench.engine.docker("logs", task.name).splitlines()[:2] == ["5", "1000"]
    assert bench.inspect(task, "{{.HostConfig.ExtraHosts}}") == "[far:10.9.8.7 away:10.9.8.7]"
    assert bench.inspect(task, "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Init}}") == "true true"


# --- restarts --------------------------------------------------------------------------------------------------------


async def test_containers_survive_a_restart_of_the_agent(bench: Bench) -> None:
    task, ready = make_task(), make_task(slot=2, desired=TaskState.READY)
    bench.assign(task, ready)
    await bench.seen.state(task, TaskState.RUNNING)
    await bench.seen.state(ready, TaskState.READY)
    pid = bench.inspect(task, "{{.State.Pid}}")
    await bench.restart()
    await _eventually(lambda: task.id in bench.seen.rows, "the adopted task gets traffic again")
    assert bench.inspect(task, "{{.State.Pid}}") == pid
    bench.assign(task, wanting(ready, TaskState.RUNNING))
    await bench.seen.state(ready, TaskState.RUNNING)
    assert sorted(bench.containers()) == sorted([task.name, ready.name])


async def test_an_agent_restarted_without_a_manager_goes_on(bench: Bench) -> None:
    task, ended = make_task(), make_task(slot=2)
    bench.assign(task, ended)
    await bench.seen.state(task, TaskState.RUNNING)
    await bench.seen.state(ended, TaskState.RUNNING)
    await bench.stop()
    bench.engine.docker("kill", ended.name)
    bench.worker = bench._worker()
    await bench.start()
    status = await bench.seen.state(ended, TaskState.FAILED)
    assert status.err == "task: non-zero exit (137)"
    assert bench.seen.statuses[task.id].state is TaskState.RUNNING


async def test_a_report_that_never_arrived_is_repeated(bench: Bench) -> None:
    task = make_task()
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    bench.seen.statuses.clear()
    bench.assign(task)  # a new session; the manager still believes ASSIGNED
    await bench.seen.state(task, TaskState.RUNNING)


async def test_leftovers_of_unknown_tasks_are_removed(bench: Bench) -> None:
    task = make_task(command=OBEDIENT)
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    await bench.stop()
    (bench.folder / "state" / "worker.json").unlink()
    bench.worker = bench._worker()
    await bench.start()
    assert bench.containers() == [task.name], "without word from a manager nothing is removed"
    bench.assign()
    await _gone(bench)


async def test_a_container_known_only_by_its_label_is_adopted(bench: Bench) -> None:
    task = make_task()
    bench.assign(task)
    status = await bench.seen.state(task, TaskState.RUNNING)
    await bench.stop()
    (bench.folder / "state" / "worker.json").unlink()
    bench.seen.statuses.clear()
    bench.worker = bench._worker()
    await bench.start()
    bench.assign(task)
    again = await bench.seen.state(task, TaskState.RUNNING)
    assert again.container_status == status.container_status
    assert bench.containers() == [task.name]


async def test_the_engines_death_is_no_failure_until_the_containers_are_seen(
    engine: PrivateEngine, bench: Bench
) -> None:
    task = make_task(command=OBEDIENT)
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    engine.kill()
    await _eventually(lambda: not bench.worker._host.up.is_set(), "the worker noticed")
    assert bench.seen.statuses[task.id].state is TaskState.RUNNING
    later = make_task(slot=2)
    bench.change(later)
    engine.start()  # without live-restore it ends what it finds
    status = await bench.seen.state(task, TaskState.FAILED)
    assert "the engine went away while it ran" in status.err
    await bench.seen.state(later, TaskState.RUNNING)


async def test_an_orderly_restart_of_the_engine_is_no_completion(engine: PrivateEngine, bench: Bench) -> None:
    task = make_task(command=OBEDIENT, job_iteration=Version())
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    engine.stop()
    engine.start()
    status = await bench.seen.state(task, TaskState.FAILED)
    assert status.err in ("task: stopped by the engine or by hand", "task: the engine went away while it ran")


async def test_with_live_restore_tasks_outlive_the_engine(engine: PrivateEngine, bench: Bench) -> None:
    engine.stop()
    engine.start("--live-restore")
    task = make_task()
    bench.assign(task)
    await bench.seen.state(task, TaskState.RUNNING)
    pid = bench.inspect(task, "{{.State.Pid}}")
    engine.kill()
    await _eventually(lambda: not bench.worker._host.up.is_set(), "the worker noticed")
    engine.start("--live-restore")
    await _eventually(lambda: bench.worker._host.up.is_set(), "the worker is connected again")
    assert bench.inspect(task, "{{.State.Pid}}") == pid
    assert bench.seen.history[task.id][-1] is TaskState.RUNNING
    bench.change(wanting(task, TaskState.SHUTDOWN))
    await bench.seen.state(task, TaskState.SHUTDOWN)
    engine.stop()
    engine.start()


async def test_a_frozen_engine_delays_but_does_not_fail(engine: PrivateEngine, bench: Bench) -> None:
    task = make_task()
    engine.send(signal.SIGSTOP)
    try:
        bench.assign(task)
        await asyncio.sleep(0)
    finally:
        engine.send(signal.SIGCONT)
    await bench.seen.state(task, TaskState.RUNNING)


async def test_leaving_removes_everything_without_waiting_for_long_graces(engine: PrivateEngine, bench: Bench) -> None:
    # `sleep` as first process ignores SIGTERM, so the grace is waited for in full: the test's time-out would end it.
    tasks = [make_task(slot=slot, stop_grace_period=3600 * SECOND) for slot in (1, 2, 3)]
    bench.assign(*tasks)
    for task in tasks:
        await bench.seen.state(task, TaskState.RUNNING)
    await bench.worker.remove_all()
    assert bench.containers() == []
    assert not (bench.folder / "state" / "worker.json").exists()
    assert not (bench.folder / "run" / "tasks").exists()


async def test_the_node_is_described_by_its_engine(bench: Bench) -> None:
    found = await bench.worker.describe()
    assert found.platform.os == "linux" and found.platform.architecture
    assert found.resources.nano_cpus % SECOND == 0 and found.resources.memory_bytes > 0
    assert found.engine.engine_version
    assert ("Network", "bridge") in [(plugin.type, plugin.name) for plugin in found.engine.plugins]


# --- helpers ---------------------------------------------------------------------------------------------------------


async def _eventually(fact: object, what: str, seconds: float = 20) -> None:
    assert callable(fact)
    try:
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(fact):  # noqa: ASYNC110 - the engine has no event for it
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"waited {seconds} s in vain until {what}") from None


async def _gone(bench: Bench) -> None:
    await _eventually(lambda: bench.containers() == [], "all containers are gone")
