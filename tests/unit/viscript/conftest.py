"""What several files of this folder begin with."""

import pytest

from tests.support.keeping import Folder
from tests.support.supervising import Talk


@pytest.fixture
def talk() -> Talk:
    """A dialogue with a supervisor of its own."""
    return Talk()


@pytest.fixture
def folder(tmp_path):
    """A launch folder; what runs in it is ended."""
    made = Folder(tmp_path)
    yield made
    made.end()
