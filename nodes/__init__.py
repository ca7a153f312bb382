"""The peer-to-peer mesh: nodes forward the traffic of service apps over labelled routes."""
