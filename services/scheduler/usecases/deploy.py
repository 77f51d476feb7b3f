"""Deploying a configuration file: all of its APIs come into force together, or none does."""

import asyncio
from collections.abc import Callable

from services.common.errors import CortexError
from services.scheduler.domain.api_config.model import KIND, ApiConfig
from services.scheduler.domain.api_config.parse import parse_api_file
from services.scheduler.domain.api_config.reader import Place, show
from services.scheduler.domain.api_config.spec import ids_of, new_deployment_id, spec_id, to_version
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.usecases.ports.clock import Clock
from services.scheduler.usecases.ports.ledger import ApiLedger


class Deploy:
    """Compares a file with what is deployed and brings the difference into force."""

    def __init__(
        self,
        ledger: ApiLedger,
        clock: Clock,
        node_groups: frozenset[str] | None = None,
        check: Callable[[ApiConfig], None] = lambda config: None,
    ) -> None:
        """`node_groups` are those that there are; None where they are not known: then any name will do.

        `check` raises `CortexError` for an API whose workers could never run here.
        """
        self._ledger = ledger
        self._clock = clock
        self._node_groups = node_groups
        self._check = check
        self._one_at_a_time = asyncio.Lock()  # between the comparison and the write nobody else may deploy

    async def deploy(self, file_name: str, data: bytes, force: bool) -> list[tuple[ApiVersion, str]]:
        """The APIs of the file as they are now, in its order, each with what was done, for people.

        An API that did not change is left alone unless `force`. Raises `CortexError` when the file has a mistake,
        `resources.invalid_node_group_selector` when it names a node group that there is not, what `check` raises, or
        `spec.duplicate_endpoint` when an endpoint belongs to an API that is not in the file. Then nothing changed.
        """
        configs = await asyncio.to_thread(parse_api_file, file_name or "configuration", data)
        if self._node_groups is not None:
            _refuse_unknown_node_groups(configs, self._node_groups)
        for config in configs:
            self._refuse_impossible(config)
        async with self._one_at_a_time:
            deployed = {version.name: version for version in await self._ledger.apis()}
            _refuse_taken_endpoints(configs, deployed)
            results = [await self._next_version(config, deployed.get(config.name), force) for config in configs]
            changed = [version for version, _ in results if version is not deployed.get(version.name)]
            if changed:
                await self._ledger.put_apis(changed)
        return results

    def _refuse_impossible(self, config: ApiConfig) -> None:
        try:
            self._check(config)
        except CortexError as error:
            message = f"{config.file_name}: {config.name}: {error.message}"
            raise CortexError(error.kind, message, error.category) from error

    async def _next_version(self, config: ApiConfig, current: ApiVersion | None, force: bool) -> tuple[ApiVersion, str]:
        label = f"{config.name} ({KIND})"
        latest = current or next(iter(await self._ledger.api_versions(config.name)), None)  # before it was deleted
        now_ns = self._clock.now_ns()
        if latest is not None:
            now_ns = max(now_ns, latest.deployed_ns + 1)  # ids go on in order even where the clock was set back
        if current is None:
            return to_version(config, new_deployment_id(config.name, now_ns), now_ns, now_ns), f"created {label}"
        ids = ids_of(current)
        if ids.spec_id == spec_id(config) and not force:
            return current, f"{label} is up to date"
        deployment_id = new_deployment_id(config.name, now_ns) if force else ids.deployment_id
        return to_version(config, deployment_id, ids.initial_deployment_ns, now_ns), f"updated {label}"


def _refuse_unknown_node_groups(configs: list[ApiConfig], known: frozenset[str]) -> None:
    for config in configs:
        for index, group in enumerate(config.node_groups or ()):
            if group not in known:
                place = Place(f"{config.file_name}: {config.name}").key("node_groups").index(index)
                text = f"there is no node group {show(group)}; leave node_groups out, or name some of {_list(known)}"
                raise place.error("resources.invalid_node_group_selector", text)


def _list(names: frozenset[str]) -> str:
    return ", ".join(show(name) for name in sorted(names))


def _refuse_taken_endpoints(configs: list[ApiConfig], deployed: dict[str, ApiVersion]) -> None:
    """An endpoint may move between APIs of one file, so only those outside it are in the way."""
    names = {config.name for config in configs}
    owners = {version.endpoint: version.name for version in deployed.values() if version.name not in names}
    for config in configs:
        if owner := owners.get(config.endpoint):
            place = Place(f"{config.file_name}: {config.name}").key("networking.endpoint")
            text = f"{show(config.endpoint)} is the endpoint of {owner}, which is deployed; choose another"
            raise place.error("spec.duplicate_endpoint", text)
