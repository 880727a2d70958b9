"""Errors that reach a user, each with the HTTP status of Swarm's API.

Swarm's manager answers in gRPC terms, and clients match on the texts, so most messages here carry the prefix
"rpc error: code = X desc = " that moby's daemon passes on. `status` is what the front door answers with
(reference: moby's errdefs mapping of gRPC codes to HTTP).
"""

from __future__ import annotations

import msgspec


class ClusterError(Exception):
    """Base of all errors with an HTTP status. `str(error)` is the text for the user."""

    status = 500


class _RpcError(ClusterError):
    """An error of the manager's control interface; the text gets the gRPC prefix that Docker's clients know."""

    code = "Unknown"

    def __init__(self, description: str) -> None:
        self.description = description
        super().__init__(f"rpc error: code = {self.code} desc = {description}")


class InvalidArgument(_RpcError):
    """The request's content cannot be accepted as it is."""

    code, status = "InvalidArgument", 400


class FailedPrecondition(_RpcError):
    """The request is well formed, but the cluster's state forbids it now."""

    code, status = "FailedPrecondition", 400


class NotFound(ClusterError):
    """No object has this id, name or prefix: "service X not found"."""

    status = 404


class AlreadyExists(_RpcError):
    """The name is taken."""

    code, status = "AlreadyExists", 409


class Unimplemented(_RpcError):
    """Swarm refuses this kind of change (501)."""

    code, status = "Unimplemented", 501


class PermissionDenied(_RpcError):
    """Refused whatever the state: reserved labels."""

    code, status = "PermissionDenied", 403


class UnknownError(_RpcError):
    """What Swarm raises without a gRPC code of its own, such as a constraint that cannot be parsed (500)."""


class OutOfSequence(_RpcError):
    """The object changed since the caller read it. 500, with the text that docker-py and Ansible modules retry on."""

    def __init__(self) -> None:
        super().__init__("update out of sequence")


class NoLeader(_RpcError):
    """No manager leads now, so state can be neither read nor written."""

    def __init__(self) -> None:
        super().__init__(
            "The swarm does not have a leader. It's possible that too few managers are online. "
            "Make sure more than half of the managers are online."
        )


class BadRequest(ClusterError):
    """A request that the front door itself refuses (no gRPC prefix): malformed JSON, versions, filters."""

    status = 400


class Unauthorized(ClusterError):
    """The unlock key is not the cluster's."""

    status = 401


class Forbidden(ClusterError):
    """The request is understood and refused whatever the state."""

    status = 403


class Conflict(ClusterError):
    """An object with this name exists already (409 without gRPC prefix)."""

    status = 409


class Unavailable(ClusterError):
    """This node cannot answer now: outside a cluster, a worker, locked, or without a link to the managers."""

    status = 503


NOT_IN_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
NOT_A_MANAGER = (
    "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this "
    "command on a manager node or promote the current node to a manager."
)
NO_SWARM = "This node is not part of a swarm"
SWARM_EXISTS = (
    'This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.'
)
MANAGER_NOT_READY = (
    "This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster."
)
SWARM_LOCKED = (
    'Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.'
)
CERTIFICATES_EXPIRED = "Swarm certificates have expired. To replace them, leave the swarm and join again."
LEAVE_LOCKED = "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
WRONG_UNLOCK_KEY = "swarm could not be unlocked: invalid key provided"
NOT_LOCKED = "swarm is not locked"


def message_of(body: bytes) -> str:
    """The text of a refusal, `{"message": …}`; of anything else the beginning as it is."""
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        return body.decode("utf-8", "replace")[:500]
