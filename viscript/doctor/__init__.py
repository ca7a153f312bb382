"""What is wrong with this installation, where, and what to do: `viscript doctor`.

`model` says what a finding is. Each other file has checks of one kind; they look and touch nothing.
"""
