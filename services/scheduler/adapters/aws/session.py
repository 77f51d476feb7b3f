"""The clients of AWS's services: made at their first use, one of each, and closed together.

They are configured as every AWS tool is: environment variables, `~/.aws`, an instance's role. `AWS_ENDPOINT_URL` names
a store that is compatible with S3; such a store is asked for `ENDPOINT/BUCKET/KEY` (bucket names are not host names
there) and is not sent checksums that are newer than it may be. A region has to be given only where it matters.

The libraries take 50 MiB and half a second to import. So that happens at the first use, in a thread.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib import import_module
from typing import Any

from services.scheduler.adapters.aws.errors import explained

DEFAULT_REGION = "us-east-1"

CONNECT_SECONDS = 5
READ_SECONDS = 60
ATTEMPTS = 4
"""Of one request, with growing pauses in between."""

CONNECTIONS = 32


class AwsSession:
    """Clients by the name of their service, such as `s3`, and their region."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._clients: dict[tuple[str, str], Any] = {}
        self._open = AsyncExitStack()
        self._making = asyncio.Lock()

    async def client(self, service: str, region: str = "") -> Any:  # the libraries have no types
        """The client, ready to be used by many at once; without a region for the configured one.

        Raises `CortexError`.
        """
        key = (service, region)
        if (client := self._clients.get(key)) is not None:
            return client
        async with self._making:
            if key not in self._clients:
                with explained(f"using {service.upper()}"):
                    self._clients[key] = await self._made(service, region)
        return self._clients[key]

    async def close(self) -> None:
        """Close the clients' connections."""
        self._clients.clear()
        await self._open.aclose()

    async def _made(self, service: str, region: str) -> Any:
        session = await asyncio.to_thread(_session, service)
        scoped = session.get_scoped_config()
        has_endpoint = any(
            (
                self._environ.get(f"AWS_ENDPOINT_URL_{service.upper()}"),
                self._environ.get("AWS_ENDPOINT_URL"),
                scoped.get("endpoint_url"),
            )
        )
        options: dict[str, Any] = {}
        if has_endpoint:
            options |= {
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            }
            if "addressing_style" not in scoped.get("s3", {}):
                options |= {"s3": {"addressing_style": "path"}}
        config = import_module("aiobotocore.config").AioConfig(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            max_pool_connections=CONNECTIONS,
            **options,
        )
        boto = import_module("aioboto3").Session(botocore_session=session)
        region = region or boto.region_name or DEFAULT_REGION
        return await self._open.enter_async_context(boto.client(service, region_name=region, config=config))


def _session(service: str) -> Any:
    """A session that has read from disk, and keeps, most of what a client of the service takes."""
    import_module("aioboto3")
    session = import_module("aiobotocore.session").get_session()
    loader = session.get_component("data_loader")
    for part in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model(service, part, api_version=None)
    return session
