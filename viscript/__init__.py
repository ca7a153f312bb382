"""Launcher of applications and control panel of clusters."""
