"""Every use of a private part of Ray, DeepSpeed, torch or transformers, one small function each.

A private part may change in any release. Each function names the version it was checked on, and a
test in ``tests/unit/compat`` fails when the library no longer has it.
"""
