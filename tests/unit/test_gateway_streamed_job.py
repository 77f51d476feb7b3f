"""What is said of the job that a broken stream leaves."""

from cortex.batch.v1.batch_service_pb2 import SubmitJobStreamResponse
from cortex.batch.v1.resources_pb2 import Job
from services.common.errors import Category, CortexError
from services.gateway.scheduler import StreamedJob


def test_a_stream_that_is_cut_off_names_its_job_once_that_is_known() -> None:
    job, error = StreamedJob(), CortexError("system.unavailable", "cut off", Category.UNAVAILABLE)
    assert job.after(error).message == "cut off"
    job.heard(SubmitJobStreamResponse(job=Job(job_id="69a1b2c3d4e5f607")))
    job.heard(SubmitJobStreamResponse(items=3))
    assert job.after(error).message == "cut off; job 69a1b2c3d4e5f607 ends as enqueue_failed"
