"""Shared by all folders, and imports none of them: errors, files, locks, caches, devices, precision, durations."""
