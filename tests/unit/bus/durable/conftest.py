"""What every dialogue about durable topics begins with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dialogue import Peer
from tests.support.durable import DurableTable, topic


@pytest.fixture
def table(tmp_path: Path) -> Iterator[DurableTable]:
    made = DurableTable(
        tmp_path / "topics.db", ada="admin", ben="app", cyd="app", eve="observer", may="manager"
    )
    yield made
    made.crash()


@pytest.fixture
def ada(table: DurableTable) -> Peer:
    """An admin who has made the topic `orders`."""
    peer = table.join("ada")
    topic(peer)
    return peer
