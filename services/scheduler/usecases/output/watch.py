"""Watching a job: as it is now, and again whenever it changed.

A job that changes now and then is told of at each change, without delay: what has happened is what people wait for. A
running job changes thousands of times a second, and is told of at an even pace. So a watch may say a few things at
once, and saves up for the next few while it says nothing.
"""

import asyncio
from collections.abc import AsyncGenerator

from services.scheduler.usecases.running.changes import pause
from services.scheduler.usecases.running.job_view import JobView
from services.scheduler.usecases.running.jobs import Jobs

MIN_INTERVAL_SECONDS = 0.005
"""Between two messages, on the average."""
SHARE_SECONDS = 0.001
"""The same, for each watch of the job: many of them together must not keep the scheduler from its work."""
BURST = 8
"""Messages that may follow each other at once, where the client asks for every change."""


class Pace:
    """When the next message may be sent. Times are seconds on one clock."""

    def __init__(self, burst: int) -> None:
        self._burst = burst
        self._even = 0.0  # when the next message would be due if all had come at an even pace

    def sent(self, now: float, interval: float) -> None:
        """A message was sent; they are to be so many seconds apart."""
        self._even = max(self._even, now) + interval

    def wait(self, now: float, interval: float) -> float:
        """Seconds until the next may be sent."""
        return max(0.0, self._even - (self._burst - 1) * interval - now)


async def watch(jobs: Jobs, api_name: str, job_id: str, interval: float) -> AsyncGenerator[JobView, None]:
    """The job, to its final status. `interval`: at least so many seconds between two; 0 for every change."""
    run = jobs.run(job_id)
    if run is None:
        yield await jobs.view(api_name, job_id)
        return
    pace, now = Pace(1 if interval else BURST), asyncio.get_running_loop().time
    with run.changes.watch() as changed:
        while True:
            changed.clear()
            view = await jobs.view(api_name, job_id)
            yield view
            if view.job.state.status.final:
                return
            spacing = max(interval, MIN_INTERVAL_SECONDS, run.changes.watchers * SHARE_SECONDS)
            pace.sent(now(), spacing)
            await changed.wait()
            await pause(run.over, pace.wait(now(), spacing))
