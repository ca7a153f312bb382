"""The node manager: learns links, computes routes, installs them."""
