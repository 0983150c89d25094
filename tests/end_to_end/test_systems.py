"""Systems that are no learned optimizers, meta-trained by the service."""

from pathlib import Path

import pytest

from benchmarks.reproduce.through_service import (
    SETTINGS,
    config_text,
    trained_by_service,
    trained_in_process,
)

pytestmark = [pytest.mark.end_to_end, pytest.mark.slow]


@pytest.mark.parametrize("name", SETTINGS)
def test_two_workers_give_the_curve_of_one_process(name: str, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(config_text(name, outer_steps=30))
    by_service = trained_by_service(config, tmp_path / "run", num_workers=2)
    assert len(by_service.losses) == 30
    assert by_service == trained_in_process(config)
