"""The commands, one file each: what is asked, what the daemon does, what the user sees.

A new one is a file here, a line in `served.py` if the daemon answers it, and its arguments in
`viscript/cli.py`.
"""
