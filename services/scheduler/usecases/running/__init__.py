"""Jobs at work: batches go out to workers, outcomes come back, and the job's life goes on."""
