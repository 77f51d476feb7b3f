"""Deployed APIs."""

from collections.abc import Sequence

from services.scheduler.adapters.ledger.engine import Connection
from services.scheduler.adapters.ledger.tables import Tables
from services.scheduler.domain.model.api import ApiVersion

_COLUMNS = "name, api_id, endpoint, spec_json, deployed_ns"
_PUT_VERSION = (
    f"INSERT INTO api_versions ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT (name, api_id) DO UPDATE SET"  # noqa: S608  # constants
    " endpoint = excluded.endpoint, spec_json = excluded.spec_json, deployed_ns = excluded.deployed_ns"
)
_PUT_IN_FORCE = (
    "INSERT INTO apis (name, api_id) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET api_id = excluded.api_id"
)
_VERSIONS_TOLD = 100


class ApiTables(Tables):
    """See `ApiLedger`."""

    async def put_apis(self, versions: Sequence[ApiVersion]) -> None:
        """See the port."""
        values = [(v.name, v.api_id, v.endpoint, v.spec_json, v.deployed_ns) for v in versions]

        def operation(connection: Connection) -> None:
            for value in values:
                connection.execute(_PUT_VERSION, value)
                connection.execute(_PUT_IN_FORCE, value[:2])

        await self._writer.submit(operation)

    async def delete_api(self, name: str) -> None:
        """See the port."""
        await self._execute("DELETE FROM apis WHERE name = ?", (name,))

    async def api(self, name: str, api_id: str | None = None) -> ApiVersion | None:
        """See the port."""
        wanted = "(SELECT api_id FROM apis WHERE name = :name)" if api_id is None else ":api_id"
        found = await self._select(
            f"SELECT {_COLUMNS} FROM api_versions WHERE name = :name AND api_id = {wanted}",  # noqa: S608  # constants
            {"name": name, "api_id": api_id},
        )
        return ApiVersion(*found[0]) if found else None

    async def apis(self) -> list[ApiVersion]:
        """See the port."""
        query = f"SELECT {_COLUMNS} FROM apis JOIN api_versions USING (name, api_id) ORDER BY name"  # noqa: S608  # constants
        return [ApiVersion(*row) for row in await self._select(query)]

    async def api_versions(self, name: str) -> list[ApiVersion]:
        """See the port."""
        query = f"SELECT {_COLUMNS} FROM api_versions WHERE name = ? ORDER BY deployed_ns DESC LIMIT ?"  # noqa: S608  # constants
        return [ApiVersion(*row) for row in await self._select(query, (name, _VERSIONS_TOLD))]
