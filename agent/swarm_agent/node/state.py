"""What a node remembers over restarts: which cluster it is in, as whom, and where the managers were last seen."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from swarm_agent.model.session import ManagerPeer
from swarm_agent.pki.files import write_private

from .addresses import join_host_port


class StateError(Exception):
    """The state on disk cannot be read; the text says which file and what to do."""


class SavedState(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json` in the state folder. Its presence is what makes this host a member."""

    node_id: str
    cluster_id: str
    role: str  # manager or worker: the part that this node last played
    listen: str
    listen_port: int
    advertise: str
    advertise_port: int
    data_path: str
    managers: list[ManagerPeer]
    raft_id: int = 0
    # The advertised address was one of this host's when it was chosen, so it changes when the host's does. One that
    # was not (of a NAT in front, for one) stays what the user said.
    advertise_own: bool = False

    @property
    def advertise_addr(self) -> str:
        """host:port of this node's management plane, as others dial it."""
        return join_host_port(self.advertise, self.advertise_port)


class StateFolder:
    """The agent's state folder and what is where in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.certificates = root / "certificates"
        self.raft = root / "raft"
        self.raft_key = root / "raft-keys.json"
        self.worker = root / "worker"
        self._state = root / "state.json"

    def load(self) -> SavedState | None:
        """The saved state, or None for a host outside any cluster. Raises StateError when it is damaged."""
        try:
            return msgspec.json.decode(self._state.read_bytes(), type=SavedState)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError as error:
            raise StateError(
                f"{self._state} cannot be read ({error}); restore it from a backup, or remove the folder "
                f"{self.root} to make this host forget its cluster"
            ) from None

    def save(self, state: SavedState) -> None:
        write_private(self._state, msgspec.json.format(msgspec.json.encode(state)))

    @property
    def has_log(self) -> bool:
        """Something of a raft log is here."""
        return self.raft.is_dir() and any(self.raft.iterdir())

    def forget_raft(self) -> None:
        """Remove the log and its keys: this node is no manager any more."""
        shutil.rmtree(self.raft, ignore_errors=True)
        self.raft_key.unlink(missing_ok=True)

    def forget(self) -> None:
        """Remove everything: this host is in no cluster any more. The state goes first, so half a removal is none."""
        self._state.unlink(missing_ok=True)
        self.forget_raft()
        for folder in (self.certificates, self.worker):
            shutil.rmtree(folder, ignore_errors=True)
