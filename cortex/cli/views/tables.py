"""Tables of APIs, jobs, batches and environments, and the description of an API."""

import json
from datetime import UTC, datetime
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from cortex.cli.views import words

Json = dict[str, Any]

ITEMS_WIDTH = 60
"""Characters of a batch's items that are shown."""

JOB_COLUMNS = ("JOB", "LATEST JOB")
JOB_ID_WIDTH = 16
"""Ids are copied from the screen: these are never cut or folded."""

NARROW = 80
"""Columns of a terminal below which a table leaves out what can be spared."""


def table(*headers: str, right: tuple[str, ...] = ()) -> Table:
    """A table without lines, its header in capitals so that it stands out without colour too."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        made.add_column(
            header,
            justify="right" if header in right else "left",
            overflow="fold",
            min_width=JOB_ID_WIDTH if header in JOB_COLUMNS else None,
        )
    return made


def facts(rows: list[tuple[str, RenderableType]]) -> Table:
    """Names and values, one a line."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in rows:
        made.add_row(name, value)
    return made


def print_apis(console: Console, apis: list[Json]) -> None:
    """`cortex get`."""
    if not apis:
        console.print("no APIs are deployed; deploy one with `cortex deploy FILE`")
        return
    spared = () if console.width < NARROW else ("DEPLOYED", "RUNNING")
    made = table("API", *spared, "LATEST JOB", "STATUS", "BATCHES", right=("RUNNING",))
    for api in apis:
        jobs = api["batch_job_statuses"]
        running = sum(1 for job in jobs if not job.get("end_time"))
        latest = jobs[0] if jobs else None
        deployed = words.ago(datetime.fromtimestamp(api["metadata"]["last_updated"], UTC))
        made.add_row(
            api["metadata"]["name"],
            *((deployed, str(running) if running else "-") if spared else ()),
            latest["job_id"] if latest else "-",
            status(latest) if latest else "-",
            progress(latest) if latest else "-",
        )
    console.print(made)


def print_api(console: Console, api: Json, environment: str) -> None:
    """`cortex get API`."""
    name, versions = api["metadata"]["name"], api["api_versions"]
    pod = api["spec"]["pod"]
    console.print(
        facts(
            [
                ("api", f"{name} ({api['metadata']['kind']})"),
                ("id", api["metadata"]["id"]),
                ("endpoint", api["endpoint"]),
                ("deployed", _deployed(api["metadata"]["last_updated"], len(versions))),
                ("containers", containers(pod)),
            ]
        )
    )
    console.print()
    if api["batch_job_statuses"]:
        console.print(jobs_table(api["batch_job_statuses"]))
    else:
        console.print(f"no jobs yet; submit one with `cortex submit {name} --items FILE --batch-size N{environment}`")


def _deployed(seconds: int, versions: int) -> str:
    when = words.ago(datetime.fromtimestamp(seconds, UTC))
    return when if versions <= 1 else f"{when}, {versions} versions"


def containers(pod: Json) -> Text:
    """A pod's containers, one a line: name and command."""
    lines = [
        f"{each['name']}: {' '.join([*(each.get('command') or []), *(each.get('args') or [])])}"
        for each in pod["containers"]
    ]
    return Text("\n".join(lines))


def jobs_table(jobs: list[Json]) -> Table:
    """Jobs, one a line."""
    made = table("JOB", "STATUS", "BATCHES", "FAILED", "STARTED", "TOOK", right=("BATCHES", "FAILED", "TOOK"))
    for job in jobs:
        failed = job["batch_counts"]["failed"]
        made.add_row(
            job["job_id"],
            status(job),
            progress(job),
            Text(f"{failed:,}", style="red" if failed else ""),
            words.ago(words.moment(job["created_time"])),
            words.duration(words.took(job)),
        )
    return made


def print_batches(console: Console, batches: list[Json]) -> None:
    """`cortex failures`."""
    made = table("BATCH", "ATTEMPTS", "STATUS", "ERROR", "ITEMS", right=("BATCH", "ATTEMPTS", "STATUS"))
    for batch in batches:
        items = json.dumps(batch["items"], ensure_ascii=False) if batch["items"] is not None else "(gone)"
        made.add_row(
            f"{batch['index']}",
            f"{batch['attempts']:,}",
            str(batch["http_status"] or "-"),
            Text(batch["error"]),
            Text(items if len(items) <= ITEMS_WIDTH else f"{items[: ITEMS_WIDTH - 1]}…"),
        )
    console.print(made)


def print_environments(console: Console, listed: Json) -> None:
    """`cortex env list`."""
    made = table("ENVIRONMENT", "ENDPOINT", "DEFAULT")
    for each in listed["environments"]:
        made.add_row(
            each["name"], each["operator_endpoint"], "yes" if each["name"] == listed["default_environment"] else ""
        )
    console.print(made)


def status(job: Json) -> Text:
    """A job's status in its colour."""
    return Text(words.status(job), style=words.style_of(job["status"]))


def progress(job: Json) -> str:
    """Batches done, of how many: `120/1,000`, or `120/?` while that is not known."""
    counts = job["batch_counts"]
    total = job.get("total_batch_count")
    return f"{counts['succeeded'] + counts['failed']:,}/{'?' if total is None else f'{total:,}'}"
