"""What a kubelet answers to the API server: its containers' logs."""

import asyncio
import ssl
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cluster.kubelet.container import Container

_POLL_SECONDS = 0.05
Find = Callable[[str, str, str], Container | None]


class Endpoint:
    """HTTPS on loopback; whoever finds it may read."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen at a free port."""
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=await asyncio.to_thread(_context))
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Break all connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        place = request.match_info
        container = self._find(place["namespace"], place["pod"], place["container"])
        if container is None:
            return web.Response(status=404, text=f"pod {place['pod']} is not here")
        if container.restarts < 0:
            reason = (container.state.get("waiting") or {}).get("reason", "")
            text = f'container "{container.name}" in pod "{place["pod"]}" is waiting to start: {reason}'
            return web.Response(status=400, text=text)
        path = container.log(previous=request.query.get("previous") == "true")
        if not path.exists():
            text = f'previous terminated container "{container.name}" in pod "{place["pod"]}" not found'
            return web.Response(status=400, text=text)
        answer = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await answer.prepare(request)
        position = await self._send(answer, path, _tail(path, request.query.get("tailLines")))
        while request.query.get("follow") == "true" and container.running and container.log() == path:
            await asyncio.sleep(_POLL_SECONDS)
            position = await self._send(answer, path, position)
        await self._send(answer, path, position)
        await answer.write_eof()
        return answer

    async def _send(self, answer: web.StreamResponse, path: Path, position: int) -> int:
        with path.open("rb") as file:
            file.seek(position)
            data = file.read()
        if data:
            await answer.write(data)
        return position + len(data)


def _tail(path: Path, lines: str | None) -> int:
    """Where the last so many lines begin."""
    if lines is None:
        return 0
    content = path.read_bytes()
    kept = content.splitlines(keepends=True)
    return len(content) - sum(len(line) for line in kept[max(0, len(kept) - int(lines)) :])


def _context() -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    start = datetime.now(UTC) - timedelta(hours=1)
    builder = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), start, start + timedelta(days=2)
    )
    certificate = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with tempfile.NamedTemporaryFile() as file:
        file.write(private + certificate.public_bytes(encoding))
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.name)
    return context
