"""Nothing that travels, or lies on disk, is ever run: no pickle, no eval, in any file of the project."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("learner", "workers", "service", "protos", "unspool")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
CALLS = {"eval", "exec", "compile", "__import__"}
METHODS = {"allow_pickle", "read_pickle", "to_pickle", "unsafe_load", "full_load", "literal_eval"}
SHELLS = {("os", "system"), ("os", "popen"), ("yaml", "load")}


def dangers(tree: ast.AST) -> Iterator[str]:
    """What in a program could run what it reads, with the line that it is in."""
    for node in ast.walk(tree):
        for name in _dangers_of(node):
            yield f"line {getattr(node, 'lineno', 0)}: {name}"


def _dangers_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Import(names=names):
            yield from (one.name for one in names if one.name.partition(".")[0] in MODULES)
        case ast.ImportFrom(module=str(module)) if module.partition(".")[0] in MODULES:
            yield module
        case ast.Call(func=ast.Name(id=name)) if name in CALLS:
            yield name
        case ast.Attribute(value=ast.Name(id=owner), attr=name) if (owner, name) in SHELLS:
            yield f"{owner}.{name}"
        case ast.Attribute(attr=name) if name in METHODS:
            yield name
        case ast.keyword(arg=("allow_pickle" | "shell") as name, value=value):
            if not (isinstance(value, ast.Constant) and value.value is False):
                yield f"{name}=..."


def test_every_package_is_looked_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_file_can_run_what_it_reads(path: Path) -> None:
    assert list(dangers(ast.parse(path.read_text()))) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import cloudpickle.cloudpickle as c",
        "from dill import loads",
        "eval(text)",
        "exec(text)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "yaml.load(text)",
    ],
)
def test_what_could_run_what_it_reads_is_found(source: str) -> None:
    assert len(list(dangers(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source", ["re.compile(text)", "np.load(path, allow_pickle=False)", "jitted.compile()"]
)
def test_what_only_sounds_like_it_is_not(source: str) -> None:
    assert list(dangers(ast.parse(source))) == []
