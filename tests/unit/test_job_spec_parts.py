"""A large job's specification, put together in its pod."""

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from services.dequeuer import job_spec_parts
from services.dequeuer.job_spec_parts import keep, read_parts, write_once


def mount(directory: Path, *parts: str, digest_of: str | None = None) -> None:
    """As Kubernetes mounts it: files are links into a directory that is changed as a whole."""
    data = directory / f"..{hashlib.sha256(repr((parts, digest_of)).encode()).hexdigest()[:8]}"
    data.mkdir(parents=True)
    for number, part in enumerate(parts):
        (data / f"{number:03d}.part").write_text(part)
    whole = "".join(parts) if digest_of is None else digest_of
    (data / "digest").write_text(hashlib.sha256(whole.encode()).hexdigest())
    link = directory / "..data"
    new = directory / "..new"
    new.symlink_to(data.name)
    new.replace(link)
    for name in data.iterdir():
        if not (directory / name.name).is_symlink():
            (directory / name.name).symlink_to(f"..data/{name.name}")


def test_parts_are_put_together_in_order_when_they_are_of_one_document(tmp_path: Path) -> None:
    mount(tmp_path / "parts", *(f"<{number}>" for number in range(11)))
    assert read_parts(tmp_path / "parts") == "".join(f"<{number}>" for number in range(11)).encode()


def test_parts_of_two_documents_are_none(tmp_path: Path) -> None:
    mount(tmp_path / "parts", "new", "old", digest_of="newnew")
    assert read_parts(tmp_path / "parts") is None
    assert read_parts(tmp_path / "nowhere") is None


def test_the_init_container_writes_it_and_ends(tmp_path: Path) -> None:
    mount(tmp_path / "parts", '{"a":', "1}")
    (tmp_path / "spec").mkdir()
    environ = {"CORTEX_JOB_SPEC_PARTS": str(tmp_path / "parts"), "CORTEX_JOB_SPEC_DIRECTORY": str(tmp_path / "spec")}
    subprocess.run([sys.executable, "-m", "services.dequeuer", "write-job-spec"], env=environ, check=True, timeout=30)
    assert (tmp_path / "spec" / "job.json").read_text() == '{"a":1}'
    assert (tmp_path / "spec" / "job.json").stat().st_mode & 0o777 == 0o644


def test_parts_that_never_fit_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_spec_parts, "PATIENCE_SECONDS", 0.0)
    mount(tmp_path / "parts", "a", digest_of="b")
    assert write_once(tmp_path / "parts", tmp_path) == 1


async def test_the_dequeuer_writes_it_anew_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_spec_parts, "LOOK_SECONDS", 0.01)
    mount(tmp_path / "parts", "old")
    (tmp_path / "spec").mkdir()
    keeping = asyncio.create_task(keep(tmp_path / "parts", tmp_path / "spec"))
    await asyncio.sleep(0)
    mount(tmp_path / "parts", "n", digest_of="new")  # not all of it yet
    mount(tmp_path / "parts", "new")
    async with asyncio.timeout(10):
        while not (tmp_path / "spec" / "job.json").exists():
            await asyncio.sleep(0.01)
    assert (tmp_path / "spec" / "job.json").read_text() == "new"
    keeping.cancel()
