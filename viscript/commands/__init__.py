"""The commands people type: one file each, both halves in it."""
