"""Port forwarding: `client` listens on this machine, `server` connects where the traffic is to go."""
