"""What the scheduler does: applications of the domain to the world, which they reach through `ports`.

A job's way through them: `submitting`, `input`, `running`, `output`.
"""
