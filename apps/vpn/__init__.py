"""A VPN through the mesh: the client routes a machine into a tunnel, the server lets it out."""
