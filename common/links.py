"""Addresses of the documentation, which the installed package does not contain."""

REPOSITORY = "https://github.com/creps/ComfyUI-CREPS"
DOCS = f"{REPOSITORY}/blob/main/docs"
