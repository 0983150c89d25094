"""What tests of the learner share."""

import pytest

from tests.learner.builders import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()
