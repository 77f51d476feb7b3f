"""The dequeuer: runs beside one worker's containers, probes them, delivers batches and reports outcomes."""
