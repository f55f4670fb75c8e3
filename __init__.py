"""ComfyUI-CREPS: any-scale image generation for ComfyUI (column-row entangled pixel synthesis).

ComfyUI imports this file and awaits `comfy_entrypoint`. Nothing is imported before that, so that `creps_core`
can be used (and tested) without ComfyUI.
"""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """Entry point of the pack: returns its `ComfyExtension`."""
    import logging

    try:
        from .nodes import CrepsExtension
    except Exception:  # ComfyUI logs one line without a traceback for errors raised in here
        logging.getLogger("CREPS").exception("ComfyUI-CREPS could not be imported")
        raise
    return CrepsExtension()
