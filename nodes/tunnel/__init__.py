"""IP packets between a TUN device and the sessions with other nodes."""
