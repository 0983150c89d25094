import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.config.toml_document import changed_keys, parse_tables, read_tables, with_overrides, write_tables
from unspool.config.config_error import ConfigError

TABLES = {"seed": 0, "estimators": [{"std": 0.01}, {"std": 0.02}], "workers": {"count": 2}}

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
plain = st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | names
values = st.recursive(
    plain, lambda item: st.lists(item, max_size=3) | st.dictionaries(names, item, max_size=3), max_leaves=8
)


@given(st.dictionaries(names, values, max_size=4))
def test_what_is_written_is_read_back(tables: dict[str, Any]) -> None:
    assert tomllib.loads(write_tables(tables)) == tables


@given(st.dictionaries(names, values, max_size=4))
def test_equal_tables_are_written_alike_whatever_their_order(tables: dict[str, Any]) -> None:
    assert write_tables(dict(reversed(tables.items()))) == write_tables(tables)


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("seed=7", ("seed",), 7),
        ("workers.count=3", ("workers", "count"), 3),
        ("estimators.1.std=0.5", ("estimators", 1, "std"), 0.5),
        ("estimators[0].std=0.5", ("estimators", 0, "std"), 0.5),
        ("aggregation.mode=async", ("aggregation", "mode"), "async"),
        ('aggregation.mode="async"', ("aggregation", "mode"), "async"),
        ("workers.resources={TPU = 4}", ("workers", "resources", "TPU"), 4),
        ("a.b.c=[1, 2]", ("a", "b", "c"), [1, 2]),
    ],
)
def test_an_override_changes_one_key(override: str, path: tuple[Any, ...], value: Any) -> None:
    place: Any = with_overrides(TABLES, [override])
    for part in path:
        place = place[part]
    assert place == value


def test_overriding_leaves_the_original_alone() -> None:
    with_overrides(TABLES, ["estimators.0.std=0.5"])
    assert TABLES["estimators"] == [{"std": 0.01}, {"std": 0.02}]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "must have the form key=value"),
        ("=3", "must have the form key=value"),
        ("seed=[1,", "is not a TOML value"),
        ("estimators.5.std=1", "estimators has 2 entries"),
        ("estimators.first.std=1", "estimators has 2 entries"),
        ("seed.x=1", "seed is 0, not a table"),
    ],
)
def test_a_bad_override_is_named(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        with_overrides(TABLES, [override])
    assert override in str(caught.value)


def test_all_bad_overrides_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(TABLES, ["seed", "estimators.5.std=1"])
    assert len(caught.value.problems) == 2


def test_changed_keys_are_named_with_their_paths() -> None:
    after = {"seed": 1, "estimators": [{"std": 0.01}, {"std": 0.5}], "workers": {}}
    assert changed_keys(TABLES, after) == ["seed", "estimators[1].std", "workers.count"]


def test_equal_configurations_have_no_changed_keys() -> None:
    assert changed_keys(TABLES, dict(reversed(TABLES.items()))) == []


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: cannot be read: No such file"):
        read_tables(tmp_path / "none.toml")


@pytest.mark.parametrize("text", [b"seed = ", b"\xff\xfe", b"[a]\n[a]"])
def test_a_malformed_file_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"bad\.toml"):
        read_tables(path)


@pytest.mark.parametrize(
    "written", [b"\xef\xbb\xbfseed = 1\n", b"\xef\xbb\xbfseed = 1\r\n", b"\xef\xbb\xbf# \xc3\xa4\r\nseed = 1"]
)
def test_what_editors_of_windows_write_is_read(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "windows.toml").write_bytes(written)
    assert read_tables(tmp_path / "windows.toml") == {"seed": 1}
    assert parse_tables(written, "standard input") == {"seed": 1}


@pytest.mark.parametrize(
    ("written", "rule"),
    [
        ("seed = 1".encode("utf-16"), "is UTF-16"),
        (b"\xfe\xff" + "seed = 1".encode("utf-16-be"), "is UTF-16"),
        (b"seed = 1\n# \xe4\n", "is not UTF-8: byte 0xe4 in line 2"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path: Path, written: bytes, rule: str) -> None:
    (tmp_path / "other.toml").write_bytes(written)
    with pytest.raises(ConfigError, match=rf"other\.toml: {rule}.*save it as UTF-8"):
        read_tables(tmp_path / "other.toml")
