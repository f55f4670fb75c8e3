"""How good is a generator? As a distance between sets of pictures, and by the nearest real ones.

Read `distance.py` first.
"""
