"""The tracker: apps announce what they offer, others find it."""
