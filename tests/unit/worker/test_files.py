"""Secrets and configs: what is planned, and what lies on the host."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from swarm_agent.model.objects import Config, Secret
from swarm_agent.model.specs import (
    ConfigReference,
    ConfigSpec,
    ContainerSpec,
    Driver,
    FileTarget,
    RuntimeTarget,
    SecretReference,
    SecretSpec,
)
from swarm_agent.worker.files import FilesError, FileStore, MissingDependency, PlannedFile, filesystem_of, plan_files
from swarm_agent.worker.gotemplate import TemplateError


def secret(data: bytes, templating: Driver | None = None) -> dict[str, Secret]:
    return {"s": Secret(id="s", spec=SecretSpec(data=base64.b64encode(data).decode(), templating=templating))}


def config(data: bytes, templating: Driver | None = None) -> dict[str, Config]:
    return {"c": Config(id="c", spec=ConfigSpec(data=base64.b64encode(data).decode(), templating=templating))}


def spec(target: str = "pass", *, uid: str = "0", conf: str = "", env: tuple[str, ...] = ()) -> ContainerSpec:
    secrets = [SecretReference(file=FileTarget(name=target, uid=uid, gid="7", mode=0o400), secret_id="s")]
    configs = [ConfigReference(file=FileTarget(name=conf, mode=0o444), config_id="c")] if conf else []
    return ContainerSpec(secrets=secrets, configs=configs, env=list(env))


@pytest.mark.parametrize(
    ("name", "target"),
    [("pass", "/run/secrets/pass"), ("sub/pass", "/run/secrets/sub/pass"), ("/etc/key", "/etc/key")],
)
def test_a_secret_appears_below_run_secrets_or_where_it_says(name: str, target: str) -> None:
    assert plan_files(spec(name), secret(b"x"), {}, {}) == [PlannedFile(target, b"x", 0, 7, 0o400)]


def test_a_config_appears_below_the_root() -> None:
    planned = plan_files(spec(conf="app.conf"), secret(b"x"), config(b"y"), {})
    assert planned[1] == PlannedFile("/app.conf", b"y", 0, 0, 0o444)


def test_a_config_for_the_runtime_is_no_file() -> None:
    only = ContainerSpec(configs=[ConfigReference(runtime=RuntimeTarget(), config_id="c")])
    assert plan_files(only, {}, config(b"y"), {}) == []


def test_templated_payloads_see_context_env_secrets_and_configs() -> None:
    golang = Driver(name="golang")
    text = b'{{.Service.Name}} {{env "A"}} {{secret "pass"}} {{config "app.conf" | len}}'
    planned = plan_files(
        spec(conf="app.conf", env=("A=1=2",)), secret(b"pw"), config(text, golang), {"Service": {"Name": "web"}}
    )
    assert planned[1].data == f"web 1=2 pw {len(text)}".encode()


def test_a_payload_sees_the_first_variable_of_a_name_and_nothing_of_one_that_is_not_set() -> None:
    golang = Driver(name="golang")
    text = b'<{{env "A"}}{{env "NO"}}{{env "BARE"}}>'
    planned = plan_files(spec(conf="app.conf", env=("A=1", "A=2", "BARE")), secret(b""), config(text, golang), {})
    assert planned[1].data == b"<1>"


@pytest.mark.parametrize("text", [b'{{secret "no"}}', b"{{.No}}", b"{{"])
def test_a_payload_that_cannot_be_expanded_is_an_error(text: bytes) -> None:
    with pytest.raises(TemplateError, match=r"expanding config app\.conf failed"):
        plan_files(spec(conf="app.conf"), secret(b"x"), config(text, Driver(name="golang")), {})


def test_what_is_not_here_is_named() -> None:
    with pytest.raises(MissingDependency, match=r"\(s\) is not on this node"):
        plan_files(spec(), {}, {}, {})


@pytest.mark.parametrize("uid", ["root", "-1", "1.5"])
def test_owners_are_numbers(uid: str) -> None:
    with pytest.raises(FilesError, match="is not a number"):
        plan_files(spec(uid=uid), secret(b"x"), {}, {})


@pytest.mark.parametrize("coded", ["_-8", "_-8=", "/+8=", "/+8"])
def test_both_alphabets_of_base64_are_read(coded: str) -> None:
    secrets = {"s": Secret(id="s", spec=SecretSpec(data=coded))}
    assert plan_files(spec(), secrets, {}, {})[0].data == b"\xff\xef"


@pytest.mark.parametrize(
    ("path", "kind"), [("/run/a/b", "tmpfs"), ("/run/disk/x", "ext4"), ("/srv", "ext4"), ("/runner", "ext4")]
)
def test_the_file_system_of_a_path(path: str, kind: str) -> None:
    mounts = [("/", "ext4"), ("/run", "tmpfs"), ("/run/disk", "ext4")]
    assert filesystem_of(Path(path), mounts) == kind


def test_a_later_mount_hides_an_earlier_one() -> None:
    assert filesystem_of(Path("/x/y"), [("/x", "ext4"), ("/x", "tmpfs")]) == "tmpfs"


@pytest.mark.skipif(os.geteuid() != 0, reason="owners can be set by root only")
def test_files_are_written_with_owner_and_mode_and_removed(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "tasks")
    files = [PlannedFile("/run/secrets/a", b"one", 1000, 50, 0o440), PlannedFile("/b", b"", 0, 0, 0o777)]
    try:
        store.write("t", files)
        mounts = store.write("t", files)  # again, as after a crash between writing and creating
        assert [mount.target for mount in mounts] == ["/run/secrets/a", "/b"]
        facts = Path(mounts[0].source).stat()
        assert (facts.st_uid, facts.st_gid, facts.st_mode & 0o7777) == (1000, 50, 0o440)
        assert Path(mounts[0].source).read_bytes() == b"one"
        assert store.root.stat().st_mode & 0o777 == 0o700
        assert filesystem_of(store.root, [(str(store.root), "tmpfs")]) == "tmpfs"
        store.remove("t")
        assert store.tasks() == []
    finally:
        store.remove_all()
    assert not store.root.exists()
