"""POSTs to users' webhooks, which may be anything: slow, wrong, or hostile."""

import asyncio
import threading
from collections.abc import Mapping

from cortex.version import version

ANSWER_SECONDS = 15.0


class HttpWebhookSender:
    """See the port. An answer's body is not read, redirects are not followed."""

    async def send(self, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """See the port."""
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[tuple[int, str]] = loop.create_future()

        def tell(answer: tuple[int, str]) -> None:
            if not answered.done():
                answered.set_result(answer)

        def work() -> None:
            answer = _post(url, headers, body)
            if not loop.is_closed():
                loop.call_soon_threadsafe(tell, answer)

        # A daemon: the end of this process does not wait for a receiver. The attempt is then made again.
        threading.Thread(target=work, name="webhook", daemon=True).start()
        try:
            async with asyncio.timeout(ANSWER_SECONDS + 1):  # also for one who answers a byte at a time
                return await answered
        except TimeoutError:
            return 0, f"{url} did not answer within {ANSWER_SECONDS:g} s"


def _post(url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
    import urllib3  # late: few jobs have a webhook

    about = {"Content-Type": "application/json", "User-Agent": f"cortex-batch/{version()}"}
    try:
        with urllib3.PoolManager(retries=False, timeout=ANSWER_SECONDS) as pool:
            answer = pool.request(
                "POST", url, body=body, headers={**about, **headers}, redirect=False, preload_content=False
            )
            answer.close()
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return 0, f"{url} cannot be reached: {error.__cause__ or error}"  # the library's own words are for programmers
    return answer.status, "" if 200 <= answer.status < 300 else f"{url} answered {answer.status}"
