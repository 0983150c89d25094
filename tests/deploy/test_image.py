import re
import tomllib

from tests.deploy.deploy_files import DEPLOY, ROOT, pins

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def copied() -> list[str]:
    """Return the paths that the image copies from the checkout."""
    copies = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for copy in copies for source in copy.split()[:-1]]


def test_the_image_contains_every_package_of_the_distribution() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(wheel["packages"]) <= set(copied())


def test_the_files_of_the_image_exist_and_are_in_the_build_context() -> None:
    lines = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    allowed = [line.removeprefix("!") for line in lines if line.startswith("!")]
    assert sorted(allowed) == sorted(copied())
    assert [source for source in copied() if not (ROOT / source).exists()] == []


def test_the_pins_of_the_image_agree_with_the_lock_file() -> None:
    locked, added = pins(ROOT / "requirements.lock"), pins(DEPLOY / "requirements-ray.lock")
    assert added
    assert added.keys() & locked.keys() == set()


def test_the_image_runs_as_a_user_without_an_entrypoint() -> None:
    final_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", final_stage, re.MULTILINE)
    assert not re.search(r"^ENTRYPOINT", DOCKERFILE, re.MULTILINE)


def test_the_environment_is_first_on_path_in_login_shells_too() -> None:
    assert "export PATH=/opt/unspool/bin:$PATH' > /etc/profile.d/unspool.sh" in DOCKERFILE
    assert re.search(r"^ENV PATH=/opt/unspool/bin:\$PATH", DOCKERFILE, re.MULTILINE)
