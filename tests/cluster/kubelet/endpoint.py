"""What a kubelet answers to the API server: its containers' logs."""

import asyncio
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from tests.cluster.certificates import self_signed
from tests.cluster.kubelet.container import Container

_POLL_SECONDS = 0.05
Find = Callable[[str, str, str], Container | None]


class Endpoint:
    """HTTPS on loopback; whoever finds it may read."""

    def __init__(self, find: Find) -> None:
        self._find = find
        self._runner: web.AppRunner | None = None
        self._times: dict[Path, list[str]] = {}
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
        sent = _first(self._lines(path), request.query)
        while request.query.get("follow") == "true" and container.running and container.log() == path:
            sent = await self._send(answer, path, sent, request.query)
            await asyncio.sleep(_POLL_SECONDS)
        await self._send(answer, path, sent, request.query)
        await answer.write_eof()
        return answer

    async def _send(self, answer: web.StreamResponse, path: Path, sent: int, query: Mapping[str, str]) -> int:
        lines = self._lines(path)
        stamped = query.get("timestamps") == "true"
        data = b"".join(f"{moment} ".encode() + line if stamped else line for moment, line in lines[sent:])
        if data:
            await answer.write(data)
        return len(lines)

    def _lines(self, path: Path) -> list[tuple[str, bytes]]:
        """A container's whole lines, each with when it was seen first. Really: with when it was written."""
        lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        times = self._times.setdefault(path, [])
        while len(times) < len(lines):
            moment = time.time_ns()
            seconds = datetime.fromtimestamp(moment // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            times.append(f"{seconds}.{moment % 10**9:09d}Z")
        return list(zip(times, lines, strict=True))


def _first(lines: list[tuple[str, bytes]], query: Mapping[str, str]) -> int:
    """Where to begin, by `sinceTime` and `tailLines`."""
    since = query.get("sinceTime", "").rstrip("Z")
    start = next((number for number, (moment, _) in enumerate(lines) if moment >= since), len(lines))
    tail = query.get("tailLines")
    return start if tail is None else max(start, len(lines) - int(tail))


def _context() -> ssl.SSLContext:
    certificate, key = self_signed()
    with tempfile.NamedTemporaryFile() as file:
        file.write(key + certificate)
        file.flush()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file.name)
    return context
