"""What may end up in a log, a traceback or an assertion shows no key, token, secret or password."""

import pytest

from swarm_agent.model.objects import Cluster, JoinTokens, Node, Secret, Service, Task
from swarm_agent.model.requests import InitRequest, JoinRequest, RestoreRequest, UnlockRequest
from swarm_agent.model.session import Assignments, Welcome
from swarm_agent.model.specs import CAConfig, SecretSpec, SwarmSpec
from swarm_agent.node.management import CertificateRequest

HIDDEN = "very-hidden-word"


@pytest.mark.parametrize(
    "found",
    [
        Cluster(id="c1", ca_key=HIDDEN, next_ca_key=HIDDEN, unlock_key=HIDDEN, gossip_keys=[HIDDEN]),
        Cluster(id="c1", join_tokens=JoinTokens(worker=HIDDEN, manager=HIDDEN)),
        SwarmSpec(ca_config=CAConfig(signing_ca_key=HIDDEN, force_rotate=3)),
        InitRequest(spec=SwarmSpec(ca_config=CAConfig(signing_ca_key=HIDDEN))),
        Secret(id="s1", spec=SecretSpec(name="word", data=HIDDEN)),
        Assignments(complete=True, secrets=[Secret(id="s1", spec=SecretSpec(data=HIDDEN))]),
        Service(id="s1", registry_auth=HIDDEN),
        Task(id="t1", registry_auth=HIDDEN),
        JoinRequest(join_token=HIDDEN),
        UnlockRequest(unlock_key=HIDDEN),
        RestoreRequest(path="/x", secret=HIDDEN),
        CertificateRequest(token=HIDDEN, csr="x"),
        Welcome(
            node=Node(id="n1"),
            cluster_id="c1",
            heartbeat=5,
            managers=[],
            gossip_keys=[HIDDEN],
            gossip_seeds=[],
            networks=[],
            root_ca="",
            data_path_port=4789,
        ),
    ],
    ids=lambda found: type(found).__name__,
)
def test_it_is_not_shown(found):
    shown = f"{found!r} {found} {[found]} {ValueError(found)!r}"
    assert HIDDEN not in shown and type(found).__name__ in shown and "…" in shown


def test_everything_else_is():
    assert (
        repr(SecretSpec(name="word", data=HIDDEN))
        == "SecretSpec(name='word', labels={}, data=…, driver=None, templating=None)"
    )
    assert "data=''" in repr(SecretSpec(name="word"))
    assert "force_rotate=3" in repr(CAConfig(force_rotate=3))
