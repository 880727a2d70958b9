"""Which package is meant by a version of the engine, in the words of apt and dnf."""

from __future__ import annotations

import pytest
from ansible_collections.swarm.cluster.plugins.module_utils.packages import choose, dnf_versions, madison, matches

MADISON = """
 docker.io | 20.10.24+dfsg1-1+deb12u1+b2 | http://deb.debian.org/debian bookworm/main amd64 Packages
 docker.io | 20.10.5+dfsg1-1+deb11u2 | http://deb.debian.org/debian bullseye/main amd64 Packages
 docker.io | 20.10.24+dfsg1-1 | http://deb.debian.org/debian bookworm/main Sources extra
"""
DNF = """
Installed Packages
docker-ce.x86_64               3:27.5.0-1.el9            @docker-ce-stable
Available Packages
docker-ce.x86_64               3:26.1.4-1.el9            docker-ce-stable
docker-ce.x86_64               3:27.5.1-1.el9            docker-ce-stable
docker-ce-cli.x86_64           1:28.0.0-1.el9            docker-ce-stable
"""


@pytest.mark.parametrize(
    ("version", "wanted", "meant"),
    [
        ("20.10.24+dfsg1-1+deb12u1+b2", "20.10.24", True),
        ("20.10.24+dfsg1-1+deb12u1+b2", "20.10", True),
        ("20.10.24+dfsg1-1+deb12u1+b2", "20", True),
        ("20.10.24+dfsg1-1+deb12u1+b2", "20.1", False),
        ("20.10.24+dfsg1-1+deb12u1+b2", "20.10.24+dfsg1-1+deb12u1+b2", True),
        ("5:27.5.1-1~debian.12~bookworm", "27.5.1", True),
        ("5:27.5.1-1~debian.12~bookworm", "5", False),
        ("3:27.5.1-1.el9", "27", True),
        ("", "27", False),
    ],
)
def test_a_version_means_packages_of_it_or_of_what_it_begins(version: str, wanted: str, meant: bool) -> None:
    assert matches(version, wanted) is meant


def test_the_newest_that_apt_knows() -> None:
    available = madison(MADISON)
    assert choose(available, "20.10") == "20.10.24+dfsg1-1+deb12u1+b2"
    assert choose(available, "20.10.5") == "20.10.5+dfsg1-1+deb11u2" and choose(available, "27") == ""


def test_the_newest_that_dnf_knows() -> None:
    available = dnf_versions(DNF, "docker-ce")
    assert available == ["3:27.5.1-1.el9", "3:26.1.4-1.el9", "3:27.5.0-1.el9"]
    assert choose(available, "27.5") == "3:27.5.1-1.el9" and choose(available, "26") == "3:26.1.4-1.el9"
