import pytest

from workers.client import RefusedError
from workers.unroller import _check_cpu_threads

TOML = "[workers]\ncpu_threads = {threads}\nplatform = '{platform}'\n"


@pytest.mark.parametrize("own", ["", "1"])
def test_a_worker_that_would_give_other_bits_is_refused_with_the_remedy(own):
    with pytest.raises(RefusedError, match="--cpu-threads 2"):
        _check_cpu_threads(TOML.format(threads=2, platform="cpu"), own)


@pytest.mark.parametrize(
    "toml", [TOML.format(threads=2, platform="cpu"), TOML.format(threads=1, platform="cuda"), ""]
)
def test_a_worker_that_fits_or_whose_bits_do_not_depend_on_it_is_taken(toml):
    _check_cpu_threads(toml, "2")
