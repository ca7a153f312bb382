"""Links to neighbours: one interface, several drivers."""
