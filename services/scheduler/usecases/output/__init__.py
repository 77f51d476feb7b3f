"""What becomes of a job, as it is told: its state, batches, replies and failures; watched, listed, followed, published."""
