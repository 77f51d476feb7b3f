"""`cortex failures` and `cortex retry` as processes."""

import re
from typing import Any

from tests.integration.cli_kit import Cli
from tests.integration.client_kit import JOB_ID, Reply, Server

BATCHES = f"/batch/digits/{JOB_ID}/batches?state=failed"


def failed_batch(index: int, items: Any) -> dict[str, Any]:
    return {
        "index": index,
        "state": "failed",
        "attempts": 1,
        "http_status": 500 if index else 0,
        "error": f"broke \x1b[2J at {index}",
        "time": "2026-11-23T13:00:00Z",
        "items": items,
    }


def test_failures_are_a_table_of_reasons_and_shortened_items(server: Server, cli: Cli) -> None:
    batches = [failed_batch(0, [{"text": "é\x1b"}]), failed_batch(1234, ["x" * 100]), failed_batch(1235, [1])]
    page = Reply({"batches": batches, "next_page_token": ""})
    server.on(f"GET {BATCHES}&page_size=3", page)
    done = cli("failures", "digits", JOB_ID, "--limit", "2")
    header, first, second = done.stdout.splitlines()
    assert header.split() == ["BATCH", "ATTEMPTS", "STATUS", "ERROR", "ITEMS"]
    assert re.split("  +", first.strip()) == ["0", "1", "-", "broke \\x1b[2J at 0", '[{"text": "é\\\\x1b"}]']
    assert second.endswith(f'["{"x" * 57}…')
    assert done.stderr == (
        f"there are more: cortex failures digits {JOB_ID} --limit 20\nrun them again: cortex retry digits {JOB_ID}\n"
    )
    server.on(f"GET {BATCHES}&page_size=21", Reply({"batches": [], "next_page_token": ""}))
    assert cli("failures", "digits", JOB_ID).stdout == "no batches failed\n"


def test_all_failures_come_as_the_server_wrote_them(server: Server, cli: Cli) -> None:
    first, last = b'{"batches":[{"items":[1.0,1e400]}],"next_page_token":"7"}', b'{"batches":[],"next_page_token":""}'
    server.on(f"GET {BATCHES}&page_size=1000", Reply(first))
    server.on(f"GET {BATCHES}&page_size=1000&page_token=7", Reply(last))
    done = cli("failures", "digits", JOB_ID, "-o", "json")
    assert done.stdout.encode() == first + b"\n" + last + b"\n"
