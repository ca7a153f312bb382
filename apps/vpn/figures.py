"""What the rules of an exit have counted: by the number of a client, and in all.

Pure: reads what `nft -j list table` prints.
"""

from dataclasses import dataclass, field
from typing import Any, Final

from apps.vpn.rulesets import Blocked, counters

_BLOCKED: Final = "blocked_"


@dataclass
class Moved:
    """Of one client, since its number was given out."""

    up: int = 0  # bytes that were let out
    down: int = 0
    packets_up: int = 0
    packets_down: int = 0
    blocked: dict[str, int] = field(default_factory=dict)  # packets, by reason
    counted: list[str] = field(default_factory=list)  # the sets that have this number

    @property
    def bytes(self) -> int:
        return self.up + self.down


@dataclass
class Figures:
    """Of all clients."""

    clients: dict[int, Moved] = field(default_factory=dict)
    foreign: int = 0  # packets whose source is nobody's

    def of(self, number: int) -> Moved:
        return self.clients.setdefault(number, Moved())


def parse(listed: dict[str, Any]) -> Figures:
    """Read the table; raises KeyError for what no nft prints."""
    found = Figures()
    names = set(counters())
    for entry in listed["nftables"]:
        counter, counting = entry.get("counter"), entry.get("set")
        if counter is not None and counter["name"] == "foreign":
            found.foreign = counter["packets"]
        elif counting is not None and counting["name"] in names:
            for element in counting.get("elem", ()):
                _add(found.of(element["elem"]["val"]), counting["name"], element["elem"]["counter"])
    return found


def _add(moved: Moved, name: str, counter: dict[str, int]) -> None:
    moved.counted.append(name)
    match name:
        case "moved_up":
            moved.up, moved.packets_up = counter["bytes"], counter["packets"]
        case "moved_down":
            moved.down, moved.packets_down = counter["bytes"], counter["packets"]
        case _:
            moved.blocked[Blocked(name.removeprefix(_BLOCKED))] = counter["packets"]
