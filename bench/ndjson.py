"""Reading and splitting the files under an address, as the scheduler does. `python -m bench.ndjson ADDRESS`

Prints seconds, bytes, items and the process's memory at most (MiB) as JSON. S3 is found by the environment; a file must
be below the working directory.
"""

import json
import os
import sys
import time
from pathlib import Path

import uvloop

from bench.memory import memory
from services.scheduler.adapters.aws.session import AwsSession
from services.scheduler.adapters.object_stores import ObjectStores
from services.scheduler.domain.model.item_stream import Source, SourceKind
from services.scheduler.usecases.input.file_source import file_source


async def main(address: str) -> None:
    session = AwsSession(os.environ)
    objects = ObjectStores(session, [Path.cwd()])
    size = sum([stored.size async for page in objects.list(address) for stored in page])
    items = 0
    started = time.perf_counter()
    async for part in file_source(objects, Source(SourceKind.FILE_CONTENTS, (address,))).parts(b""):
        items += len(part.lengths)
    seconds = time.perf_counter() - started
    await session.close()
    _, peak = memory(os.getpid())
    print(json.dumps({"seconds": seconds, "bytes": size, "items": items, "mib": peak / 2**20}))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1]))
