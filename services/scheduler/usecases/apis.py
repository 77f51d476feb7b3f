"""Deployed APIs, as clients see and delete them."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.common.errors import Category, CortexError
from services.scheduler.domain.errors import api_not_deployed
from services.scheduler.domain.model.api import ApiVersion
from services.scheduler.domain.model.job import JobSpec
from services.scheduler.usecases.ports.ledger import ApiLedger
from services.scheduler.usecases.running.jobs import Jobs


@dataclass(frozen=True, slots=True)
class Apis:
    """All APIs."""

    ledger: ApiLedger
    jobs: Jobs

    async def deployed(self) -> Sequence[ApiVersion]:
        """Those in force, by name."""
        return await self.ledger.apis()

    async def at_endpoint(self, endpoint: str) -> str:
        """The name of the API that has this endpoint. Raises `CortexError` (`resources.api_not_deployed`)."""
        for api in await self.ledger.apis():
            if api.endpoint == endpoint:
                return api.name
        text = f"no API has the endpoint {endpoint}"
        raise CortexError("resources.api_not_deployed", text, Category.NOT_FOUND)

    async def get(self, name: str, api_id: str | None) -> tuple[ApiVersion, Sequence[ApiVersion]]:
        """The version in force, or the one asked for; and the versions that there have been, newest first.

        Raises `CortexError`: `resources.api_not_deployed`, `resources.api_id_not_found`.
        """
        api = await self.ledger.api(name, api_id)
        if api is None and api_id is not None and await self.ledger.api(name) is not None:
            text = f"{name} has never been deployed with the id {api_id}; `cortex get {name}` lists its versions"
            raise CortexError("resources.api_id_not_found", text, Category.NOT_FOUND)
        if api is None:
            raise api_not_deployed(name)
        return api, await self.ledger.api_versions(name)

    async def run_by(self, job: JobSpec) -> ApiVersion | None:
        """The version that a job runs."""
        return await self.ledger.api(job.api_name, job.api_id)

    async def delete(self, name: str) -> None:
        """Take an API out of force and stop its jobs: both, also when the client goes away.

        Raises `CortexError` (`resources.api_not_deployed`).
        """
        if await self.ledger.api(name) is None:
            raise api_not_deployed(name)
        await self.jobs.to_the_end(self._delete(name))

    async def _delete(self, name: str) -> None:
        await self.ledger.delete_api(name)
        await self.jobs.stop_all(name)
