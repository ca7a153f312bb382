"""The commands, one file each: what is asked, what the daemon does, what the user sees.

A new one is a file here, a line in `served.py` with the role it needs if the daemon answers it, its
arguments in `viscript/surface/`, and a line in `viscript/surface/registry.py`.
"""
