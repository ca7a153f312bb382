"""`viscript node …`: the mesh as its nodes and their manager see it. One file per concept.

As with `viscript bus`, the key is the operator's of the home that is meant, or that of a context; what
changes routes is asked with the admin's. The arguments are in `viscript.surface.nodes`.
"""
