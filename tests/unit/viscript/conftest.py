"""What several files of this folder begin with."""

import pytest

from tests.support.supervising import Talk


@pytest.fixture
def talk() -> Talk:
    """A dialogue with a supervisor of its own."""
    return Talk()
