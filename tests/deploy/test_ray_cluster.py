import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.deploy.deploy_files import DEPLOY, project_version, yaml_objects

CLUSTERS = ("cluster", "aws")


def prepared(name: str) -> dict:
    """Return a cluster file as `ray up` reads it, with Ray's defaults for its provider."""
    return prepare_config(yaml_objects(DEPLOY / f"ray/{name}.yaml")[0])


@pytest.mark.parametrize("name", CLUSTERS)
def test_ray_accepts_the_cluster_file(name: str) -> None:
    validate_config(prepared(name))


def test_ray_rejects_a_misspelt_key() -> None:
    config = prepared("cluster")
    config["dockr"] = config.pop("docker")
    with pytest.raises(Exception, match="dockr"):
        validate_config(config)


@pytest.mark.parametrize("name", CLUSTERS)
def test_nothing_is_installed_over_the_image(name: str) -> None:
    config = prepared(name)
    commands = ("setup_commands", "head_setup_commands", "worker_setup_commands")
    assert [config[kind] for kind in commands] == [[], [], []]


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_head_schedules_nothing_and_its_dashboard_listens_on_loopback_only(name: str) -> None:
    start = prepared(name)["head_start_ray_commands"][-1]
    assert "--num-cpus=0" in start
    assert "--dashboard-host=127.0.0.1" in start


@pytest.mark.parametrize("name", CLUSTERS)
def test_every_node_has_and_requires_rays_token(name: str) -> None:
    config = prepared(name)
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_image_is_of_this_version(name: str) -> None:
    assert prepared(name)["docker"]["image"].endswith(f"unspool:{project_version()}")


@pytest.mark.parametrize("name", CLUSTERS)
def test_the_configuration_that_is_copied_exists(name: str) -> None:
    assert (DEPLOY.parent / prepared(name)["file_mounts"]["~/run.toml"]).is_file()
