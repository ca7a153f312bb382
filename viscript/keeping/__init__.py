"""The keeper: one small process per running program, which owns it and outlives the daemon.

Only the standard library, for it stays in memory once per app. `server` is the process that keepers are
forked from, `keeper` is one of them; what they stand on has a file each.
"""

PROTO = 2  # of what keepers say and leave behind
