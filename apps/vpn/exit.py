"""One exit: its namespace, what is in it, and what leads out of it, from set-up to the last trace of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING

from apps.vpn import inside, outside, rulesets
from apps.vpn.figures import Figures, Moved
from apps.vpn.namespace import CannotSetUp, Namespace

if TYPE_CHECKING:
    from apps.vpn.addresses import Plan
    from apps.vpn.inside import Doors
    from apps.vpn.options import Options

log = logging.getLogger("vpn")


class Exit:
    """A way out for clients that are admitted. Made by `open_exit`."""

    def __init__(self, plan: Plan, space: Namespace, outer: outside.Machine, tun: int) -> None:
        self.plan = plan
        self.tun = tun  # descriptor of the device
        self.warnings: list[str] = []  # what may keep clients from getting out
        self._space = space
        self._outer = outer

    async def admit(self, number: int) -> None:
        """From now on there is a client of this number; raises CannotSetUp."""
        await self._space.run(inside.admit, self.plan, number)

    async def dismiss(self, number: int) -> Moved:
        """There is none any more; gives what it moved in all."""
        return await self._space.run(inside.dismiss, self.plan, number)

    async def doors(self) -> Doors:
        """Where the resolver listens; raises CannotSetUp."""
        return await self._space.run(inside.doors, self.plan)

    async def figures(self) -> Figures:
        return await self._space.run(inside.read)

    async def connections(self) -> int:
        """That are tracked, of all clients."""
        return await self._space.run(inside.connections)

    async def keep(self) -> None:
        """See that the machine's rules are in force; told when they were not."""
        if await asyncio.to_thread(self._outer.keep):
            log.warning("the rules of %s were gone and are there again", self._outer.device)

    async def look_around(self) -> None:
        """See whether the firewall of the machine lets clients through."""
        found = [
            f"the firewall's chain {chain} drops what it does not know: let it accept what comes from "
            f"and goes to {self._outer.device}"
            for chain in await asyncio.to_thread(outside.blockers)
        ]
        for warning in set(found).difference(self.warnings):
            log.warning("%s", warning)
        self.warnings = found

    async def close(self) -> None:
        """Take all of it away."""
        os.close(self.tun)
        self._space.close()
        try:
            await asyncio.to_thread(self._outer.take_down)
        except CannotSetUp as error:
            log.warning("%s", error)


async def open_exit(options: Options, plan: Plan, tag: str) -> Exit:
    """Set an exit up; raises CannotSetUp, outside.Taken. Nothing is left if it fails."""
    space = Namespace()
    outer = outside.Machine(tag, plan, options.allow, options.mtu)
    rules = rulesets.Inside(
        plan=plan, allow=options.allow, deny=options.deny, up=options.rate, down=options.rate,
        connections=options.connections, between=options.between,
    )  # fmt: skip
    try:
        await asyncio.to_thread(outer.set_up, space.descriptor)
        tun = await space.run(inside.set_up, rules, options.mtu, outer.inner4, outer.outer4)
    except outside.Taken:
        space.close()
        raise
    except BaseException:
        space.close()
        with contextlib.suppress(CannotSetUp):
            await asyncio.to_thread(outer.take_down)
        raise
    return Exit(plan, space, outer, tun)
