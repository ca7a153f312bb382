"""One app's tunnel at its node: the device that it handed over, and its peers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bus.identity import is_key
from nodes import local
from nodes.tunnel.prefixes import BadPrefix, Prefixes, parse
from nodes.wire import Code

if TYPE_CHECKING:
    from collections.abc import Callable

    from nodes import posting
    from nodes.channel import Channel


class Tunneling:
    """See the module. `refused(id, code, text)` tells the app."""

    def __init__(
        self, host: posting.Host, channel: Channel, refused: Callable[[int, Code, str], None]
    ) -> None:
        self._host = host
        self._channel = channel
        self._refused = refused
        self._descriptor = -1
        self._prefixes: Prefixes[str] = Prefixes()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def receive(self, message: local.AboutTunnels) -> None:
        """Do what the app asks; raises LocalProtocolError for a tunnel without its descriptor."""
        if isinstance(message, local.Tunnel):
            descriptor = self._channel.take_descriptor()
            if self._descriptor >= 0:
                os.close(descriptor)
                self._refused(
                    message.id, Code.NO_TUNNEL, "this app has handed a device over already"
                )
                return
            self._descriptor = descriptor
        elif self._descriptor < 0:
            self._refused(message.id, Code.NO_TUNNEL, "this app has handed no device over")
            return
        elif isinstance(message, local.Peer):
            self._peer(message)
            return
        elif isinstance(message, local.AskTunnel):
            self._channel.send(local.encode(local.TunnelStats(message.id, [], [], {})))
            return
        else:
            self.close()
        self._channel.send(local.encode(local.Done(message.id)))

    def _peer(self, message: local.Peer) -> None:
        try:
            if not is_key(message.target):
                raise BadPrefix("names of nodes are not looked up yet: give the key")
            self._prefixes.set(message.target, [parse(text) for text in message.prefixes])
        except BadPrefix as error:
            self._refused(message.id, Code.NO_TUNNEL, str(error))
        else:
            self._channel.send(local.encode(local.Done(message.id)))
