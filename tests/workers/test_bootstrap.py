import subprocess
import sys

import pytest

from workers.bootstrap import Devices, environment, private_directory


def test_a_worker_without_gpus_computes_on_cpus():
    variables = environment(Devices(cpu_threads=2))
    assert variables["JAX_PLATFORMS"] == "cpu"
    assert variables["PJRT_NPROC"] == "2"


def test_a_worker_with_a_whole_gpu_is_left_to_jax():
    variables = environment(Devices(gpus=1))
    assert "JAX_PLATFORMS" not in variables
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" not in variables


def test_workers_that_share_a_gpu_share_its_memory():
    assert environment(Devices(gpus=0.25))["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.225"


def test_the_compilation_cache_is_bounded_so_that_jax_locks_it(tmp_path):
    variables = environment(Devices(), tmp_path)
    assert variables["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path)
    assert int(variables["JAX_COMPILATION_CACHE_MAX_SIZE"]) > 0


def test_a_worker_that_divides_tasks_among_cpus_has_as_many_devices():
    assert environment(Devices(cpu_devices=4))["JAX_NUM_CPU_DEVICES"] == "4"
    assert environment(Devices())["JAX_NUM_CPU_DEVICES"] == "1"


@pytest.mark.parametrize("devices", [{"cpu_threads": -1}, {"gpus": -0.5}, {"cpu_devices": 0}])
def test_impossible_devices_are_refused_by_name(devices):
    with pytest.raises(ValueError, match=next(iter(devices))):
        Devices(**devices)


def test_a_private_directory_is_closed_to_others(tmp_path):
    (tmp_path / "cache").mkdir(mode=0o755)
    assert private_directory(tmp_path / "cache").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    "module", ["workers.pools.pool", "workers.pools.local_pool", "workers.main", "workers.pools.actor"]
)
def test_a_supervisor_can_import_the_pools_without_jax(module):
    code = f"import sys, {module}; sys.exit('jax' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
