"""The SOCKS5 pair: `client` listens beside the user, `server` dials at the exit."""
