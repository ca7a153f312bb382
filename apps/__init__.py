"""Programs that serve people over the mesh; each folder is one app and knows no other."""
