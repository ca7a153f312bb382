"""The node manager: hears of links, finds paths, installs routes."""
