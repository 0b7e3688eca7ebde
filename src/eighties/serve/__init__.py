"""Processes: a parent that owns the sockets, and workers that answer.

Empty on purpose: the parent imports `supervisor` without paying for what only a worker needs.
"""
