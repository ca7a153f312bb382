"""What is typed: the command registry, and the arguments of each command by theme. Imports late.

A new command is a line in `registry.py`, a function in a file here that names its arguments, and a file in
`viscript/commands/` that does the work.
"""
