import socket
import struct

from apps.socks.gateway import _was_handed_over


def test_a_client_is_answered_once_also_when_the_node_dies_before_it_says_so():
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
    with client, client.dup() as at_the_node:
        assert not _was_handed_over(client)
        at_the_node.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert _was_handed_over(client)
    assert _was_handed_over(client)  # closed
