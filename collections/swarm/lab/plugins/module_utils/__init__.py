"""Hosts on one machine, for tests: what the lab role's modules and the `tests/lab/lab` command share.

Standard library only, since both run wherever a bare Python 3.11 is. The parts:

- `identity`  names and addresses of a lab, derived from its checkout (pure)
- `command`   running programs, and the one error type
- `state`     the `.lab` directory
- `engine`    the machine's own container engine: find, start, stop, ask
- `image`     the Debian image that hosts are started from
- `hosts`     driver `container`: hosts as systemd containers; create, power, freeze, sockets
- `vm_image`  the disk and kernel that VMs are started from
- `vms`       driver `qemu`: hosts as virtual machines; create, power
- `links`     cutting and healing the links between hosts
"""
