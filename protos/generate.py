"""Write the generated code beside the .proto files, or check that the committed code matches them.

`python -m protos.generate` writes; `python -m protos.generate --check` compares and exits 1 with the names of
the files that differ. The generator is `grpcio-tools`, pinned with the development dependencies.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_PACKAGE = Path("protos/unspool/v1")
_WITHOUT_SERVICES = ("common",)  # protoc writes an empty service file for these


def generate(output: Path) -> list[Path]:
    """Run protoc and return the paths of the generated files, relative to `output`.

    protoc runs in the repository root, so that the generated imports are absolute imports of this repository.

    Raises:
        RuntimeError: protoc failed; the error contains its output.
    """
    sources = sorted(str(path.relative_to(_ROOT)) for path in (_ROOT / _PACKAGE).glob("*.proto"))
    outputs = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", *outputs, *sources]
    finished = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"protoc failed ({finished.returncode}): {finished.stderr.strip()}")
    for name in _WITHOUT_SERVICES:
        (output / _PACKAGE / f"{name}_pb2_grpc.py").unlink()
    return sorted(path.relative_to(output) for path in (output / _PACKAGE).glob("*_pb2*"))


def differences() -> list[str]:
    """Return the generated files that are missing, outdated, or have no .proto file."""
    committed = {path.relative_to(_ROOT) for path in (_ROOT / _PACKAGE).glob("*_pb2*.py*")}
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        stale = [path for path in fresh if _content(_ROOT / path) != _content(Path(scratch) / path)]
    return sorted(str(path) for path in {*stale, *(committed - set(fresh))})


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m protos.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when something differs")
    if not parser.parse_args(arguments).check:
        generate(_ROOT)
        return 0
    different = differences()
    if different:
        sys.stderr.write(
            f"not generated from the current .proto files: {', '.join(different)}; run `make protos`\n"
        )
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
