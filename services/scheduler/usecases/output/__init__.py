"""What came of a job: its batches, replies and failures, as they are listed, followed and published."""
