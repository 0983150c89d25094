"""What several files of end-to-end tests compare with."""

from pathlib import Path

import pytest

from tests.end_to_end.launched import in_process_digests
from tests.support.experiments import DIGITS, toml_of


@pytest.fixture(scope="session")
def digits_digests(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Theta's digest after each of 30 outer steps on digits, from a loop in one process."""
    config: Path = tmp_path_factory.mktemp("undisturbed") / "digits.toml"
    config.write_text(toml_of(DIGITS))
    return in_process_digests(config)
