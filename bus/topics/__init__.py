"""Durable topics: what is stored, who gets it next, and what becomes of it.

`rules`, `work` and `consumer` decide and do no I/O; `schema` and `store` are the database, `journal` the
thread that owns it, `wal` and `repair` look after a damaged one. The broker's side is `bus.routing.durable`.
"""
