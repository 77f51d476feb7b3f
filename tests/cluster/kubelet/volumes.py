"""A pod's volumes, as directories.

What comes from the API is written as the real kubelet writes it: the files are links through `..data`, which is
replaced at once, so that nobody sees half of a new state.
"""

import asyncio
import shutil
import tempfile
from pathlib import Path

from services.common.errors import CortexError
from services.common.kubernetes import Cluster, Object
from tests.cluster.kubelet.environment import ConfigurationError, data_of, field_of, resource_of

_MEMORY = Path("/dev/shm")  # where volumes in memory are
_DATA = "..data"


class Volumes:
    """All of one pod's."""

    def __init__(self, cluster: Cluster, pod: Object, directory: Path) -> None:
        self._cluster = cluster
        self._pod = pod
        self._directory = directory
        self._in_memory: list[Path] = []
        self._paths: dict[str, Path] = {}

    def path(self, name: str) -> Path:
        """Where a volume is."""
        return self._paths[name]

    async def make(self) -> None:
        """Raises `ConfigurationError` when something is not there that must be."""
        for volume in self._pod["spec"].get("volumes") or []:
            self._paths[volume["name"]] = await self._made(volume)

    async def refresh(self) -> None:
        """What the API says now."""
        for volume in self._pod["spec"].get("volumes") or []:
            if not {"configMap", "secret", "projected"}.isdisjoint(volume):
                try:
                    await self._written(volume)
                except (ConfigurationError, CortexError):
                    continue

    def remove(self) -> None:
        """All of them."""
        for path in [*self._in_memory, self._directory]:
            shutil.rmtree(path, ignore_errors=True)

    async def _made(self, volume: Object) -> Path:
        path: Path = self._directory / volume["name"]
        if path.exists() and volume["name"] in self._paths:
            return self._paths[volume["name"]]
        if "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
        if (volume.get("emptyDir") or {}).get("medium") == "Memory" and _MEMORY.is_dir():
            path = Path(tempfile.mkdtemp(prefix="cb-volume-", dir=_MEMORY))
            self._in_memory.append(path)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        if "emptyDir" in volume:
            return path
        return await self._written(volume)

    async def _written(self, volume: Object) -> Path:
        files = await self._files(volume)
        path: Path = self._directory / volume["name"]
        await asyncio.to_thread(_replace, path, files)
        return path

    async def _files(self, volume: Object) -> dict[str, tuple[bytes, int]]:
        for kind in ("configMap", "secret", "downwardAPI"):
            if kind in volume:
                return await self._from(kind, volume[kind], volume[kind].get("defaultMode", 0o644))
        if "projected" in volume:
            mode = volume["projected"].get("defaultMode", 0o644)
            found: dict[str, tuple[bytes, int]] = {}
            for source in volume["projected"].get("sources") or []:
                for kind, given in source.items():
                    found |= await self._from(kind, given, mode)
            return found
        raise ConfigurationError(f"volumes of this kind are not supported here: {sorted(volume)}")

    async def _from(self, kind: str, given: Object, mode: int) -> dict[str, tuple[bytes, int]]:
        if kind == "downwardAPI":
            items = given.get("items") or []
            return {item["path"]: (self._downward(item).encode(), item.get("mode", mode)) for item in items}
        if kind == "serviceAccountToken":
            return {given["path"]: (b"", mode)}
        data = await data_of(self._cluster, self._pod["metadata"]["namespace"], kind, given)
        if "items" not in given:
            return {key: (value, mode) for key, value in data.items()}
        missing = [item["key"] for item in given["items"] if item["key"] not in data]
        if missing and not given.get("optional"):
            raise ConfigurationError(f"references non-existent config key: {missing[0]}")
        return {
            item["path"]: (data[item["key"]], item.get("mode", mode)) for item in given["items"] if item["key"] in data
        }

    def _downward(self, item: Object) -> str:
        if "fieldRef" in item:
            return field_of(self._pod, item["fieldRef"]["fieldPath"])
        return resource_of(self._pod, self._pod["spec"]["containers"][0], item["resourceFieldRef"])


def _replace(path: Path, files: dict[str, tuple[bytes, int]]) -> None:
    """Nothing when it is the same; else all at once."""
    path.mkdir(parents=True, exist_ok=True)
    data = path / _DATA
    if data.is_dir() and _read(data) == {name: content for name, (content, _) in files.items()}:
        return
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=path))
    fresh.chmod(0o755)
    for name, (content, mode) in files.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(content)
        (fresh / name).chmod(mode)
    before = data.resolve() if data.exists() else None
    link = path / "..data_tmp"
    link.symlink_to(fresh.name)
    link.rename(data)
    tops = {name.partition("/")[0] for name in files}
    for name in tops:
        if not (path / name).is_symlink():
            (path / name).symlink_to(Path(_DATA) / name)
    for old in path.iterdir():
        if not old.name.startswith("..") and old.name not in tops:
            old.unlink()
    if before is not None:
        shutil.rmtree(before, ignore_errors=True)


def _read(data: Path) -> dict[str, bytes]:
    return {str(file.relative_to(data)): file.read_bytes() for file in data.rglob("*") if file.is_file()}
