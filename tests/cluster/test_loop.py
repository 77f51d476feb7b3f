"""How the tests' controllers run and end."""

import asyncio

from services.common.kubernetes import Object
from tests.cluster.api.api import Api
from tests.cluster.controllers.loop import Loop


async def test_a_loop_that_is_cancelled_in_the_moment_of_a_change_ends() -> None:
    api = Api()
    looked = asyncio.Event()

    def look(_: object) -> float:
        looked.set()
        return 60.0

    def change(name: str) -> None:
        thing: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "default", "name": name}}
        api.store.put(api.kinds.named("configmaps"), thing)

    loop = Loop(api, "test", lambda *_: {("", "all")}, look)
    running = asyncio.create_task(loop.run())
    change("first")
    await looked.wait()
    await asyncio.sleep(0)  # now it waits for more, for a while
    change("second")
    running.cancel()
    ended, _ = await asyncio.wait([running], timeout=10)
    assert ended
