"""BatchAPI and BatchJob resources, by real processes: kubectl, an API server, the controller, a scheduler."""

from pathlib import Path

import pytest

from services.common.kubernetes import BATCH_APIS, BATCH_JOBS
from tests.integration.controller_kit import needs_kubectl, ready, refused_as, status, system

pytestmark = needs_kubectl

MANIFEST = """
apiVersion: batch.cortex.dev/v1alpha1
kind: BatchAPI
metadata:
  name: hello
spec:
  pod:
    max_concurrency: 2
    containers:
      - name: api
        image: none
        command: [serve]
        compute: {{cpu: 0.5}}
---
apiVersion: batch.cortex.dev/v1alpha1
kind: BatchJob
metadata:
  name: digits
spec:
  api_name: hello
  workers: 1
  config: {{model: small}}
  delimited_files:
    s3_paths: [{items}]
    batch_size: 1
"""


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.ndjson"
    path.write_text("1\n2\n3\n")
    return path


async def test_kubectl_deploys_an_api_submits_a_job_and_shows_how_it_goes(tmp_path: Path, items: Path) -> None:
    async with system(tmp_path) as (resources, kit):
        said = await resources.kubectl("apply", "-f", "-", text=MANIFEST.format(items=items.as_uri()))
        assert "batchapi.batch.cortex.dev/hello created" in said
        worker = await kit.worker()
        await worker.open()
        await resources.until(BATCH_JOBS, "digits", lambda job: status(job).get("status") == "running")
        await worker.work_off()
        await worker.answer_completion()
        await resources.kubectl("wait", "--for=condition=Complete", "batchjob/digits", "--timeout=20s")
        lines = (await resources.kubectl("get", "batchjobs")).splitlines()
        assert lines[0].split() == ["NAME", "API", "STATUS", "SUCCEEDED", "FAILED", "TOTAL", "WORKERS", "AGE"]
        assert lines[1].split()[:7] == ["digits", "hello", "succeeded", "3", "0", "3", "1"]
        lines = (await resources.kubectl("get", "bapi")).splitlines()
        assert lines[1].split()[:3] == ["hello", "True", "/hello"]
        job_id = status(await resources.until(BATCH_JOBS, "digits", bool))["job_id"]
        assert (await kit.job(job_id)).config_json == '{"model":"small"}'
