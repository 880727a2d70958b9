"""Our chains in the host's iptables: read with iptables-save, changed with iptables-restore, one transaction a table.

iptables prints rules in its own spelling, which differs between versions. So what we wrote is never compared with what
is printed; instead the print right after our own write is kept, and any later print that differs shows that someone
changed something. Prints are kept too, and made anew only when nftables' generation tells of a change. `Xtables` keeps
that memory; a fresh one knows nothing and rewrites all.

Blocking; runs in a worker thread.
"""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from .names import CHAIN_PREFIX
from .netlink import Failure
from .state import IPV6, Chain, ChainKey, Jump, Restore
from .watch import firewall_generation

FEW_CHAINS = 8  # up to so many changed chains are read back one by one
FEW_RULES = 1000  # a table with no more rules is read back at once: one process instead of one a chain
DAMAGED: Chain = ("(changed by someone else)",)  # stands for content that is not ours; equal to no planned chain


@dataclass(slots=True)
class Printed:
    """iptables-save as data: chains of all tables with their rules, in order."""

    chains: dict[ChainKey, list[str]] = field(default_factory=dict)

    def ours(self) -> dict[ChainKey, list[str]]:
        return {key: rules for key, rules in self.chains.items() if key[1].startswith(CHAIN_PREFIX)}


def parse_save(text: str, family: str = "") -> Printed:
    """Read the output of iptables-save, all tables or one; `family` is put behind their names."""
    printed = Printed()
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip() + family
        elif line.startswith(":"):
            printed.chains[table, line[1:].split(" ", 1)[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            printed.chains.setdefault((table, chain), []).append(rule)
    return printed


def parent_of(jump: Jump, printed: Printed) -> str:
    """The chain that holds the jump on this host: its parent where that exists and is used, else its fallback."""
    if not jump.fallback or (jump.table, jump.parent) in printed.chains:
        return jump.parent
    return jump.fallback


def jump_positions(printed: Printed, jump: Jump) -> dict[str, list[int]]:
    """Chains not ours → positions (from 0) of rules there that lead to the jump's target."""
    found: dict[str, list[int]] = defaultdict(list)
    for (table, chain), rules in printed.chains.items():
        if table == jump.table and not chain.startswith(CHAIN_PREFIX):
            for position, rule in enumerate(rules):
                if rule.endswith(f"-j {jump.target}"):
                    found[chain].append(position)
    return found


def is_first(printed: Printed, jump: Jump) -> bool:
    """Whether the jump is where it belongs: once, before all other rules."""
    return jump_positions(printed, jump).get(parent_of(jump, printed)) == [0]


def restore_text(operation: Restore, printed: Printed, known: Iterable[str]) -> str:
    """The input of `iptables-restore --noflush` for one table. `known`: our chains that are there now.

    Every chain that is named is declared first, so that rules may lead to any of them; ":CHAIN" also empties it.
    """
    lines = [f"*{operation.table.removesuffix(IPV6)}"]
    lines += [f":{chain} - [0:0]" for chain, _ in operation.chains]
    missing = {jump.target for jump in operation.jumps} - {chain for chain, _ in operation.chains} - set(known)
    lines += [f":{chain} - [0:0]" for chain in sorted(missing)]
    for chain, rules in operation.chains:
        lines += [f"-A {chain} {rule}" for rule in rules]
    doomed = {
        (chain, position)
        for jump in (*operation.jumps, *operation.removed_jumps)
        for chain, positions in jump_positions(printed, jump).items()
        if jump in operation.removed_jumps or chain == parent_of(jump, printed)
        for position in positions
    }
    # From the last to the first: a removal moves those behind it.
    lines += [f"-D {chain} {position + 1}" for chain, position in sorted(doomed, reverse=True)]
    lines += [f"-I {parent_of(jump, printed)} 1 {jump.rule}" for jump in operation.jumps]
    present = set(known)
    gone = [chain for chain in operation.removed if chain in present]
    lines += [f"-F {chain}" for chain in gone]
    lines += [f"-X {chain}" for chain in gone]
    lines.append("COMMIT")
    return "\n".join(lines) + "\n"


class Xtables:
    """Reads and writes our part of iptables, or of ip6tables (`family` IPV6), and remembers what it wrote."""

    def __init__(self, family: str = "") -> None:
        self._family = family
        self._program = "ip6tables" if family else "iptables"
        self._written: dict[ChainKey, Chain] = {}  # as planned
        self._printed: dict[ChainKey, list[str]] = {}  # as iptables printed them afterwards
        self._current: Printed | None = None  # all that was printed last
        self._generation: int | None = None  # nftables' count of changes at that time
        self._counted: bool | None = None  # whether iptables writes to nftables, so that the count tells of it

    def undisturbed(self) -> bool:
        """Whether nobody has changed anything since we last looked or wrote; False when that cannot be told."""
        return self._current is not None and self._generation is not None and self._generation == self._count()

    def follow(self, before: int, after: int) -> None:
        """The other family alone was changed, which brought nftables' count from one number to the other."""
        if self._generation == before:
            self._generation = after

    def _count(self) -> int | None:
        """Nftables' count of changes, or None where iptables is the legacy one, which has no such thing."""
        if self._counted is None:
            self._counted = "nf_tables" in (_output([self._program, "--version"]) or "")
        return firewall_generation() if self._counted else None

    def observe(self, wanted_jumps: Collection[Jump]) -> tuple[dict[ChainKey, Chain], frozenset[Jump]]:
        """Our chains (as planned where untouched, else `DAMAGED`) and those of the wanted jumps that are in place."""
        printed = self._look()
        chains = {}
        for key, rules in printed.ours().items():
            untouched = self._printed.get(key) == rules
            chains[key] = self._written.get(key, DAMAGED) if untouched else DAMAGED
        targets = {jump.target for jump in wanted_jumps}
        leftovers = {
            Jump(table, chain, target)
            for (table, chain), rules in printed.chains.items()
            if not chain.startswith(CHAIN_PREFIX)
            for rule in rules
            if (target := rule.rpartition("-j ")[2]).startswith(CHAIN_PREFIX) and target not in targets
        }
        return chains, frozenset(jump for jump in wanted_jumps if is_first(printed, jump)) | frozenset(leftovers)

    def execute(self, operations: Iterable[Restore]) -> list[Failure]:
        """Carry out transactions; returns those that failed, each of which changed nothing."""
        failures = []
        for operation in operations:
            printed = self._look()
            known = [chain for table, chain in printed.ours() if table == operation.table]
            before = self._generation
            reason = _run([f"{self._program}-restore", "-w", "5", "--noflush"], restore_text(operation, printed, known))
            if reason:
                failures.append(Failure(operation, reason))
                self._current = None
                continue
            small = len(operation.chains) <= FEW_CHAINS and not operation.jumps and not operation.removed_jumps
            self._generation = self._count()
            if before is None or self._generation != before + 1 or not small or not self._reprint(operation, printed):
                self._current = None  # something else changed too, or so much that all is printed anew
            self._remember(operation, self._look())
        return failures

    def _reprint(self, operation: Restore, printed: Printed) -> bool:
        """Bring what was printed up to date by asking for the changed chains alone. False when that failed."""
        if sum(len(rules) for (table, _), rules in printed.chains.items() if table == operation.table) <= FEW_RULES:
            result = _output([f"{self._program}-save", "-t", operation.table.removesuffix(IPV6)])
            if result is None:
                return False
            for key in [key for key in printed.chains if key[0] == operation.table]:
                del printed.chains[key]
            printed.chains.update(parse_save(result, self._family).chains)
            return True
        for chain, _ in operation.chains:
            result = _output([self._program, "-w", "5", "-t", operation.table.removesuffix(IPV6), "-S", chain])
            if result is None:
                return False
            start = f"-A {chain} "
            lines = [line.removeprefix(start) for line in result.splitlines() if line.startswith(start)]
            printed.chains[operation.table, chain] = lines
        for chain in operation.removed:
            printed.chains.pop((operation.table, chain), None)
        return True

    def _remember(self, operation: Restore, after: Printed) -> None:
        for chain, rules in operation.chains:
            self._written[operation.table, chain] = rules
            self._printed[operation.table, chain] = list(after.chains.get((operation.table, chain), []))
        for chain in operation.removed:
            self._printed.pop((operation.table, chain), None)
            self._written.pop((operation.table, chain), None)

    def _look(self) -> Printed:
        """All chains and rules as they are. Raises OSError."""
        if self._current is None or not self.undisturbed():
            self._generation = self._count()
            output = _output([f"{self._program}-save"])
            if output is None:
                raise OSError(f"{self._program}-save failed; is iptables installed?")
            self._current = parse_save(output, self._family)
        return self._current


def _output(command: list[str]) -> str | None:
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout if result.returncode == 0 else None


def _run(command: list[str], text: str) -> str:
    """Run with `text` as input; returns what went wrong, or ""."""
    try:
        result = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}"
    if result.returncode == 0:
        return ""
    return f"{' '.join(command)}: exit status {result.returncode}: {result.stderr.strip()}"
