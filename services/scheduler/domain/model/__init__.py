"""The values that the scheduler is about, by subject.

All are immutable. Times are integers: nanoseconds since 1970 (`_ns`).
"""
