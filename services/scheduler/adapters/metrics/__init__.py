"""What Prometheus reads of the scheduler, where `CORTEX_METRICS_ADDRESS` asks for it.

Nothing is counted on a batch's way: leases, batches and workers are looked up at each scrape (`series.py`), the ledger
tells of each of its commits, and a job's trace of workers that start or are lost. A thread of its own answers
(`server.py`) and asks the event loop, so a scrape that gets no answer says something too: the loop hangs.
"""
