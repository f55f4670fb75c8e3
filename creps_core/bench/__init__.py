"""`creps bench`: how much faster than the published formulation, at what error, in how much memory."""
