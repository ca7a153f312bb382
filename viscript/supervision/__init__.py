"""Decides when a launch is started, stopped and started again. No process, no clock, no chance."""
