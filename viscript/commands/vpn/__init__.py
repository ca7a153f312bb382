"""`viscript vpn`: this machine behind an exit of the mesh.

What changes the machine is the app `vpn-client` and, where nothing may run any more, its tool
`apps.vpn.mend`.
Both are started as processes.
"""

APP = "vpn-client"
