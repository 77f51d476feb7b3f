"""Generate the Python stubs of protos/ into cortex/batch/v1, or check that the committed ones are up to date."""

import argparse
import filecmp
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
PACKAGE = Path("cortex/batch/v1")


def generate(out: Path) -> list[Path]:
    """Write the stubs of every proto below out; return their paths relative to it."""
    protos = sorted(PROTOS.glob("cortex/**/*.proto"))
    plugins = Path(sys.executable).parent
    protoc = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTOS}",
        f"--plugin=protoc-gen-mypy={plugins / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={plugins / 'protoc-gen-mypy_grpc'}",
        f"--python_out={out}",
        f"--mypy_out=quiet:{out}",
    ]
    subprocess.run([*protoc, *map(str, protos)], check=True)
    # Only services have gRPC stubs: generating them for every file would leave empty modules.
    services = [str(proto) for proto in protos if proto.stem.endswith("_service")]
    subprocess.run([*protoc, f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}", *services], check=True)
    return sorted(path.relative_to(out) for path in out.rglob("*_pb2*"))


def main() -> int:
    """Generate into the source tree, or with --check compare with it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the committed stubs differ")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        fresh = generate(Path(scratch))
        committed = sorted(path.relative_to(ROOT) for path in (ROOT / PACKAGE).glob("*_pb2*"))
        stale = [
            path
            for path in sorted({*fresh, *committed})
            if path not in fresh
            or not (ROOT / path).exists()
            or not filecmp.cmp(Path(scratch) / path, ROOT / path, shallow=False)
        ]
        if check:
            for path in stale:
                print(f"{path} is not what protos/ says: run `make gen` and commit it", file=sys.stderr)
            return 1 if stale else 0
        for path in stale:
            if path in fresh:
                shutil.copyfile(Path(scratch) / path, ROOT / path)
            else:
                (ROOT / path).unlink()
            print(f"updated {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
