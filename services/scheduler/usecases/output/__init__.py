"""What comes of a job, as clients see it: its state, batches, replies and failures; listed, followed, published."""
