"""Custom resources: what `kubectl apply` says becomes APIs and jobs, and what becomes of them is told there.

`mirror` follows the resources of one kind and gives each a task; `batch_apis` and `batch_jobs` say what such a task
does; `submission` and `job_status` translate, purely; `scheduler` is the gRPC client. The scheduler's ledger is the
truth. A resource holds nothing but what somebody wished and what the scheduler last said, so that this process may be
killed at any moment: it looks at both again and goes on.
"""
