"""What can be typed next: one answer for bash, zsh, fish and the prompt of `viscript` itself.

`offers` decides, from the tree of commands (`viscript.surface.tree`, written once a version) and the names of
what there is (`viscript.snapshot`, written by the daemon). `stored` finds both on disk.
"""
