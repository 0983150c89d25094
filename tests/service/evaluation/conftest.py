from pathlib import Path

import numpy as np
import pytest

from tests.unspool.test_experiment import TEXT
from unspool.exported import exported_bytes


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An exported theta: the learning rate of SGD."""
    path = tmp_path / "theta.safetensors"
    theta = {"log_lr": np.float32(np.log(0.2))}
    path.write_bytes(exported_bytes(theta, TEXT, {"run": "walkabout", "outer_step": "12"}))
    return path
