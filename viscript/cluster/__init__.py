"""Many hosts with one broker: who belongs, which ids are whose, and asking all of them (ADR 12).

`registry` and `numbers` decide and do no I/O; `talk` is what hosts say to each other; `files` is what is on
disk. `registrar` serves in the daemon of the first host, `member` in those of the others, `fleet` is the
command line's way to all.
"""
