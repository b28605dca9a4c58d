"""`make soak`: load, faults and calm, for minutes or hours, on each broker at once.

On each broker (`servers`) a `program` of ours publishes, calls and pursues goals without a pause
(`load`), through proxies that break (`tests/faults/proxy.py`), while a seeded `schedule` of faults
is played (`run`). What it is given is compared with what was sent (`streams`, `tally`), whatever
must never happen is noted (`complaints`), its size is watched (`samples`), and what came of it is
told in the end (`report`).
"""
