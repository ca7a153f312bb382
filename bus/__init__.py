"""A message bus on which a public key is the identity."""
