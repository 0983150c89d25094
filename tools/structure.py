"""Measure the structure of the packages and check the project's rules on structure.

    python tools/structure.py [FOLDER]

prints one table. The rules are those in `CONTRIBUTING.md`; the exit code is 1 if a rule is violated.
"""

import ast
import dataclasses
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PACKAGES = ("unspool", "learner", "workers", "service", "protos")
LIBRARY = "unspool"
EXAMPLES_OF_RECIPES = {
    "an estimator (DODGE)": (r"\bDODGE\b|dodge", 4),
    "a learned optimizer (MLPLOpt)": (r"\bMLPLOpt\b|mlp_lopt", 4),
    "an RPC (ResetLane)": (r"[Rr]eset[-_ ]?[Ll]ane", 12),
    "a status figure (updates_per_s)": (r"updates_per_s", 6),
}
"""An example of what each recipe adds, and how many files of the packages may name it at most.

A recipe touches at most as many files as name its example.
"""

TEXT_SUFFIXES = (".py", ".pyi", ".proto", ".html")
MAX_FILE_LINES = 400
MAX_FOLDER_FILES = 15
MAX_DEPTH = 3
MAX_ANY_SHARE = 0.05
TEST_RATIO = 1.0


@dataclasses.dataclass(frozen=True)
class Module:
    """One parsed file."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Number of lines, including blank ones and comments."""
        return len(self.text.splitlines())


def modules_of(root: Path, folders: Sequence[str]) -> list[Module]:
    """Parse all files of `folders` except generated ones."""
    paths = sorted(path for folder in folders for path in (root / folder).rglob("*.py"))
    texts = [(path, path.read_text(encoding="utf-8")) for path in paths if "_pb2" not in path.name]
    return [Module(path.relative_to(root), text, ast.parse(text)) for path, text in texts]


def functions_of(modules: Sequence[Module]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, including nested ones."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield node


def classes_of(modules: Sequence[Module]) -> Iterator[tuple[Module, ast.ClassDef]]:
    """Every class, including nested ones, with its file."""
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                yield module, node


def annotations_of(modules: Sequence[Module]) -> Iterator[ast.expr | None]:
    """The annotations of parameters, results and fields; None where a parameter or a result has none."""
    for function in functions_of(modules):
        arguments = function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
        yield from (argument.annotation for argument in named if argument.arg not in ("self", "cls"))
        yield function.returns
    for _, node in classes_of(modules):
        yield from (field.annotation for field in node.body if isinstance(field, ast.AnnAssign))


def aliases_of_any(modules: Sequence[Module]) -> set[str]:
    """The names that stand for `typing.Any`, directly or through other names."""
    assigned: dict[str, str] = {}
    for module in modules:
        for node in module.tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name | ast.Attribute):
                assigned.update({ast.unparse(target): ast.unparse(node.value) for target in node.targets})
            elif isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Name | ast.Attribute):
                assigned[ast.unparse(node.target)] = ast.unparse(node.value)
    aliases = {"Any", "typing.Any"}
    while new := {name for name, value in assigned.items() if value in aliases} - aliases:
        aliases |= new
    return aliases


def depths_of_classes(modules: Sequence[Module]) -> dict[str, int]:
    """The depth of inheritance of each class among classes of the packages, itself included."""
    bases = {node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
             for _, node in classes_of(modules)}  # fmt: skip

    def depth(name: str) -> int:
        return 1 + max((depth(base) for base in bases[name] if base in bases and base != name), default=0)

    return {name: depth(name) for name in bases}


def class_names_defined_twice(modules: Sequence[Module]) -> list[str]:
    """Each class name that is defined twice, with its files."""
    files = defaultdict(list)
    for module, node in classes_of(modules):
        files[node.name].append(str(module.path))
    return [f"{name} ({', '.join(paths)})" for name, paths in sorted(files.items()) if len(paths) > 1]


def crowded_folders(modules: Sequence[Module]) -> list[str]:
    """Folders with too many files."""
    counts = Counter(str(module.path.parent) for module in modules if module.path.name != "__init__.py")
    return [f"{folder} ({count} files)" for folder, count in counts.items() if count > MAX_FOLDER_FILES]


def has_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether a definition has a docstring."""
    return ast.get_docstring(node) is not None


def spread(values: Sequence[int]) -> str:
    """Median, 90th percentile and maximum."""
    return f"{statistics.median(values):.0f} / {statistics.quantiles(values, n=10)[-1]:.0f} / {max(values)}"


def lines_of_function(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of lines from `def` to the end."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def files_naming(root: Path, pattern: str) -> list[str]:
    """The files of the packages that match, except generated ones."""
    paths = [path for folder in PACKAGES for path in sorted((root / folder).rglob("*"))]
    found = re.compile(pattern)
    return [
        str(path.relative_to(root))
        for path in paths
        if path.suffix in TEXT_SUFFIXES
        and "_pb2" not in path.name
        and found.search(path.read_text(encoding="utf-8"))
    ]


def measured(
    modules: Sequence[Module], tests: Sequence[Module], named: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """The rows of the table: names and figures; `named` has the files that name each recipe's example."""
    library = [module for module in modules if module.path.parts[0] == LIBRARY]
    lines = sum(module.lines for module in modules)
    tests_lines = sum(module.lines for module in tests)
    public = [node for node in functions_of(modules) if not node.name.startswith("_")]
    public_classes = [node for _, node in classes_of(modules) if not node.name.startswith("_")]
    documented = sum(map(has_docstring, [*public, *public_classes])) / len([*public, *public_classes])
    annotations = list(annotations_of(modules))
    figures = {
        "files": f"{len(modules)}",
        "lines": f"{lines:,}",
        **{
            f"lines of {name}": f"{sum(m.lines for m in modules if m.path.parts[0] == name):,}"
            for name in PACKAGES
        },
        "lines of a file (median / p90 / max)": spread([module.lines for module in modules]),
        "lines of a function (median / p90 / max)": spread(
            [lines_of_function(one) for one in functions_of(modules)]
        ),
        "annotated": f"{1 - annotations.count(None) / len(annotations):.1%}",
        "annotated with Any, in the library": f"{share_of_any(library):.1%}",
        "public names with a docstring": f"{documented:.1%}",
        "depth of inheritance": f"{max(depths_of_classes(modules).values())}",
        f"lines of tests for each line (target {TEST_RATIO:.2f})": f"{tests_lines / lines:.2f}",
    }
    for what, files in named.items():
        figures[f"files that name {what}, at most {EXAMPLES_OF_RECIPES[what][1]}"] = f"{len(files)}"
    return figures


def share_of_any(modules: Sequence[Module]) -> float:
    """The fraction of annotations that are `Any`."""
    aliases = aliases_of_any(modules)
    given = [ast.unparse(annotation) for annotation in annotations_of(modules) if annotation is not None]
    return sum(annotation in aliases for annotation in given) / len(given)


def broken_rules(modules: Sequence[Module], named: Mapping[str, Sequence[str]]) -> list[str]:
    """Descriptions of violated rules, with place, figure and limit."""
    long = [module for module in modules if module.lines > MAX_FILE_LINES]
    deep = {name: depth for name, depth in depths_of_classes(modules).items() if depth > MAX_DEPTH}
    share = share_of_any([module for module in modules if module.path.parts[0] == LIBRARY])
    broken = [
        f"{one.path} has {one.lines} lines, at most {MAX_FILE_LINES}: divide it by idea" for one in long
    ]
    broken += [
        f"class {name} is at depth {depth} of inheritance, at most {MAX_DEPTH}: compose instead"
        for name, depth in deep.items()
    ]
    broken += [f"class {twice} is defined twice: rename one" for twice in class_names_defined_twice(modules)]
    broken += [f"folder {one}: at most {MAX_FOLDER_FILES}; divide it" for one in crowded_folders(modules)]
    for what, files in named.items():
        if len(files) > (limit := EXAMPLES_OF_RECIPES[what][1]):
            broken.append(f"{what} is named in {len(files)} files, at most {limit}: {', '.join(files)}")
    if share > MAX_ANY_SHARE:
        broken.append(f"{share:.1%} of the library's annotations are Any, at most {MAX_ANY_SHARE:.0%}")
    return broken


def main(root: Path) -> int:
    """Print the table and the violated rules."""
    modules, tests = modules_of(root, PACKAGES), modules_of(root, ["tests"])
    named = {what: files_naming(root, pattern) for what, (pattern, _) in EXAMPLES_OF_RECIPES.items()}
    table = measured(modules, tests, named)
    width = max(map(len, table))
    sys.stdout.writelines(f"{what:<{width}}  {figure:>14}\n" for what, figure in table.items())
    broken = broken_rules(modules, named)
    sys.stdout.writelines(f"structure: {rule}\n" for rule in broken)
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]))
