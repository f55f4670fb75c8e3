"""`creps explore`: fly through a generator in the browser."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import webbrowser
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ...common.command import Command
from ...common.devices import device_of
from ...common.errors import quoted

if TYPE_CHECKING:
    from .host import Generators

log: logging.Logger = logging.getLogger("CREPS")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="official .pkl or our .safetensors")
    parser.add_argument("--builtin", metavar="NAME", help="built-in generator to begin with; default: the first")
    parser.add_argument("--weights", default="G_ema", choices=("G_ema", "G"), help="of an official snapshot")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of the server; default: a free one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on: 0.0.0.0 or :: for other machines too; default: 127.0.0.1, this machine alone",
    )
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="NAME",
        help="name (studio.example) or origin (https://studio.example) under which a proxy serves the page; repeatable",
    )
    parser.add_argument("--device", default=None, help="cpu, cuda, mps...; default: a GPU if there is one")
    parser.add_argument("--out", type=Path, default=Path(), metavar="FOLDER", help="where pictures are saved")
    parser.add_argument("--no-browser", action="store_true", help="only write the address")


def _run(args: argparse.Namespace) -> None:
    """Serve until interrupted.

    Raises:
        ImportError: aiohttp is missing; says how to get it.
        ValueError, OSError: the generator cannot be loaded, or the port is taken.
    """
    try:
        import aiohttp  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "creps explore needs aiohttp: pip install 'creps[explore]', or pip install aiohttp"
        ) from error
    from ..checkpoints import BUILTINS, load_builtin, load_generator
    from ..network import Generator
    from .guard import is_site
    from .host import Generators

    if args.builtin and args.builtin not in BUILTINS:
        raise ValueError(f"there is no built-in generator {args.builtin!r}; there are {list(BUILTINS)}")
    if not 0 <= args.port < 1 << 16:
        raise ValueError(f"--port must be from 1 to 65535, or 0 for a free one, not {args.port}")
    for name in args.allow_origin:
        if not is_site(name):
            raise ValueError(
                f"write --allow-origin as studio.example or https://studio.example, without a path, not {quoted(name)}"
            )
    device = device_of(args.device)

    def on_device(load: partial[Generator]) -> Generator:
        return load().to(device)

    loaders = {f"builtin: {name}": partial(on_device, partial(load_builtin, name)) for name in BUILTINS}
    first = f"builtin: {args.builtin or next(iter(BUILTINS))}"
    if args.checkpoint:
        load = partial(load_generator, args.checkpoint, args.weights)
        load()  # says now what is wrong with the file
        loaders[args.checkpoint.name] = partial(on_device, load)
        first = args.checkpoint.name
    loaders = {first: loaders.pop(first), **loaders}
    args.out.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(Generators(loaders), args.out.resolve(), args))


EXPLORE_COMMAND = Command("explore", "fly through a generator in the browser", _add_arguments, _run)


async def _serve(generators: Generators, folder: Path, args: argparse.Namespace) -> None:
    from .standalone import build_app, new_token, serve

    token, host = new_token(), args.host.strip("[]")
    allowed = [*args.allow_origin, host]
    everywhere = host in ("0.0.0.0", "::", "")
    if host not in ("127.0.0.1", "::1", "localhost"):
        allowed += [socket.gethostname(), f"{socket.gethostname()}.local"]
    async with serve(build_app(generators, folder, token, allowed), host, args.port) as port:
        name = "127.0.0.1" if everywhere else f"[{host}]" if ":" in host else host
        address = f"http://{name}:{port}/{token}/"
        log.info("explore at %s", address)
        if everywhere:
            log.info("from other machines: http://%s:%d/%s/, or by this machine's address", allowed[-2], port, token)
        for origin in args.allow_origin:
            log.info("behind a proxy: %s/%s/", origin if "://" in origin else f"https://{origin}", token)
        log.info("pictures are saved in %s; Ctrl-C ends", folder)
        if not args.no_browser:
            await asyncio.get_running_loop().run_in_executor(None, webbrowser.open, address)
        await asyncio.Event().wait()
