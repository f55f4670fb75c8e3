"""The pictures that show what the pack does, made of the templates and of small graphs like them in a real ComfyUI:

    COMFYUI_DIR=~/ComfyUI python recipes/pictures.py [thumbnails] [help] [readme]

thumbnails beside the templates, one picture per help page in web/docs, and those of the README in docs. Which generator
they show is said in recipes/templates.py. See tests/host/comfy_host.py for where ComfyUI comes from.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from template_graph import ROOT, Graph, Node
from templates import DETAIL, FOLDER, PICTURES, TEMPLATES, TRAINED, load

sys.path.append(str(ROOT / "tests" / "host"))
from comfy_host import NO_HOST, ComfyClient, ComfyHost, find_comfyui

DOCS = ROOT / "web" / "docs"
README = ROOT / "docs"
THUMBNAIL = 400
HELP_WIDTH, HELP_ROOM, HELP_BYTES = 480, 270, 20_000
_NEEDS_FILES = {"09 Comparison with an upscale model", "10 Official checkpoint"}  # whose pictures are kept as they are
_INK, _PAPER = (232, 233, 237), (17, 18, 21)

Builder = Callable[[Graph], Sequence[Node]]


def run(client: ComfyClient, graph: Graph, nodes: Sequence[Node]) -> list[list[Image.Image]]:
    """Run a graph; the pictures of each of these nodes.

    Raises:
        RuntimeError: it fails; says why.
    """
    seen = [graph.add("PreviewImage", images=node.out(picture_of(node))) for node in nodes]
    history = client.run(graph.prompt())
    kind, message = history["status"]["messages"][-1]
    if kind != "execution_success":
        raise RuntimeError(f"{kind}: {message.get('exception_message')}")
    outputs = (history["outputs"][str(node.id)]["images"] for node in seen)
    return [[Image.open(io.BytesIO(client.view(file))).convert("RGB") for file in files] for files in outputs]


def picture_of(node: Node) -> str:
    """The output that has its picture: a preview, or the first image."""
    outputs = dict(zip(node.info["output_name"], node.info["output"], strict=True))
    return "preview" if "preview" in outputs else next(name for name, kind in outputs.items() if kind == "IMAGE")


def lighter(graph: Graph) -> None:
    """Ask for less than a template does: pictures are the same at every size, and of a film a few frames are shown."""
    for node in graph.nodes:
        values = node.values
        sides = [values[name] for name in ("width", "height") if name in values]
        if node.type in ("CREPS_Render", "CREPS_RenderPath", "CREPS_RenderToFile") and len(sides) == 2:
            scale = min(1.0, 480 / max(sides))
            values |= {"width": round(sides[0] * scale), "height": round(sides[1] * scale)}
        if "frames" in values:
            values["frames"] = max(2, values["frames"] // 8)


def some(pictures: Sequence[Image.Image], most: int) -> list[Image.Image]:
    """At most so many of them, evenly."""
    count = min(most, len(pictures))
    return [pictures[i * len(pictures) // count] for i in range(count)]


def covering(picture: Image.Image, width: int, height: int) -> Image.Image:
    """The picture, scaled and cut to a size; wide and high ones from their upper left corner, as sheets begin there."""
    scale = max(width / picture.width, height / picture.height)
    size = max(width, round(picture.width * scale)), max(height, round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    left = 0 if picture.width > 1.2 * width or picture.height > 1.2 * height else (picture.width - width) // 2
    return picture.crop((left, 0, left + width, height))


def thumbnail(shown: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """A square of up to four pictures: one for all, two side by side, three and four in quarters, the first wide."""
    pictures = some(shown[0], 4) if len(shown) == 1 else [batch[0] for batch in shown][:4]
    sheet, half = Image.new("RGB", (THUMBNAIL, THUMBNAIL), _PAPER), THUMBNAIL // 2
    places = {
        1: [(0, 0, 2, 2)],
        2: [(0, 0, 1, 2), (1, 0, 1, 2)],
        3: [(0, 0, 2, 1), (0, 1, 1, 1), (1, 1, 1, 1)],
        4: [(0, 0, 1, 1), (1, 0, 1, 1), (0, 1, 1, 1), (1, 1, 1, 1)],
    }[len(pictures)]
    for picture, (x, y, across, down) in zip(pictures, places, strict=True):
        sheet.paste(covering(picture, across * half, down * half), (x * half, y * half))
    return sheet


def row(pictures: Sequence[Image.Image], width: int, room: int) -> Image.Image:
    """Pictures beside each other, as high as each other, at most `width` wide and `room` high."""
    gap = 6 * (len(pictures) - 1)
    height = min(room, int((width - gap) / sum(picture.width / picture.height for picture in pictures)))
    scaled = [
        p.resize((max(1, round(p.width * height / p.height)), height), Image.Resampling.LANCZOS) for p in pictures
    ]
    sheet = Image.new("RGB", (sum(picture.width for picture in scaled) + gap, height), "white")
    x = 0
    for picture in scaled:
        sheet.paste(picture, (x, 0))
        x += picture.width + 6
    return sheet


def write_jpeg(picture: Image.Image, file: Path, most: int, quality: int = 88) -> None:
    """As good as it gets in so many bytes."""
    while True:
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=quality, optimize=True, progressive=True)
        if content.tell() <= most or quality <= 40:
            file.write_bytes(content.getvalue())
            return
        quality -= 4


# Help pages: graphs whose pictures say what a node does.


def seeds(graph: Graph, text: str, model: Node | None = None, **options: object) -> Node:
    """Latents of seeds, of the usual generator."""
    return graph.add("CREPS_SampleSeeds", model=model or load(graph), seeds=text, **options)


def sheet(graph: Graph, latent: Node, columns: int = 0, side: int = 120, model: Node | None = None) -> Node:
    """A contact sheet."""
    model = model or load(graph)
    return graph.add("CREPS_ContactSheet", model=model, latent=latent, columns=columns, side=side, supersample=2)


def picture(graph: Graph, width: int = 480, height: int = 270, generator: str = PICTURES, **options: object) -> Node:
    """A render of one latent."""
    model = load(graph, generator)
    options.setdefault("latent", graph.add("CREPS_SampleLatents", model=model, seed=9 if generator == DETAIL else 3))
    options.setdefault("fit", "extend")
    return graph.add("CREPS_Render", model=model, width=width, height=height, **options)


def frames(graph: Graph, latent: Node) -> list[Node]:
    return [sheet(graph, latent, columns=6, side=90)]


def directions(graph: Graph) -> tuple[Node, Node]:
    latent = seeds(graph, "14")
    return latent, graph.add("CREPS_FindDirections", model=load(graph), method="Named", count=17)


def strip(graph: Graph) -> list[Node]:
    latent, found = directions(graph)
    return [
        sheet(graph, graph.add("CREPS_DirectionStrip", latent=latent, directions=found, indices="0, 5, 16"), side=96)
    ]


def edited(graph: Graph) -> list[Node]:
    latent, found = directions(graph)
    both = [
        graph.add("CREPS_EditLatents", latent=latent, directions=found, index=5, strength=s) for s in (-2.0, 0.0, 2.0)
    ]
    return [picture(graph, 300, 300, latent=one) for one in both]


def flight(graph: Graph) -> list[Node]:
    keys = [graph.add("CREPS_View"), graph.add("CREPS_View", zoom=12.0, center_x=0.52, center_y=0.43, rotation=90.0)]
    path = graph.add("CREPS_CameraPath", views=keys, frames=8)
    model = load(graph, DETAIL)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=9)
    return [graph.add("CREPS_RenderPath", model=model, latent=latent, path=path, width=200, height=200)]


def compared(graph: Graph) -> list[Node]:
    native = picture(graph, 1024, 1024)
    model, latent = native.links["model"].node, native.links["latent"].node
    small = graph.add("CREPS_RenderForUpscaling", model=model, latent=latent, factor=8)
    large = graph.add("ImageScale", image=small, upscale_method="lanczos", width=1024, height=1024)
    return [graph.add("CREPS_CompareUpscaling", native=native, images=[large], names="Lanczos", places=2)]


def small_and_large(graph: Graph) -> list[Node]:
    native = picture(graph, 512, 512)
    model, latent = native.links["model"].node, native.links["latent"].node
    small = graph.add("CREPS_RenderForUpscaling", model=model, latent=latent, width=512, height=512, factor=16)
    return [graph.add("ImageScale", image=small, upscale_method="nearest-exact", width=512, height=512), native]


def sizes(graph: Graph) -> list[Node]:
    tiny = [picture(graph, side, side) for side in (16, 48, 480)]
    return [graph.add("ImageScale", image=one, upscale_method="nearest-exact", width=480, height=480) for one in tiny]


def projected(graph: Graph) -> list[Node]:
    model = load(graph, TRAINED)
    photo = picture(graph, 300, 300, TRAINED, latent=seeds(graph, "4000", model, truncation_psi=0.8))
    found = graph.add("CREPS_ProjectImage", model=model, image=photo, steps=100, side=64, candidates=64, starts=2)
    return [photo, picture(graph, 300, 300, TRAINED, latent=found)]


def tuned(graph: Graph) -> list[Node]:
    return of_template(graph, "14 ")


def evaluated(graph: Graph) -> list[Node]:
    return of_template(graph, "15 ")


def of_template(graph: Graph, number: str) -> list[Node]:
    (template,) = (one for one in TEMPLATES if one.name.startswith(number))
    return template.build(graph)


def averaged(graph: Graph) -> list[Node]:
    two = [seeds(graph, "8"), seeds(graph, "3")]
    mean = graph.add("CREPS_CombineLatents", latents=two, how="average")
    return [picture(graph, 300, 300, latent=one) for one in (two[0], mean, two[1])]


def truncated(graph: Graph) -> list[Node]:
    latent = seeds(graph, "3")
    moved = [graph.add("CREPS_TruncateLatents", model=load(graph), latent=latent, psi=p) for p in (0.0, 0.5, 1.0, 1.5)]
    return [picture(graph, 300, 300, latent=one) for one in moved]


def selected(graph: Graph) -> list[Node]:
    return [sheet(graph, graph.add("CREPS_SelectLatents", latent=seeds(graph, "0-7"), indices="2, 5, 7"), columns=3)]


def mixed(graph: Graph) -> list[Node]:
    mix = graph.add("CREPS_MixStyles", latent_a=seeds(graph, "3, 14"), latent_b=seeds(graph, "6, 8, 11, 18"))
    return [sheet(graph, mix, side=96)]


def between(graph: Graph) -> list[Node]:
    model = load(graph)
    return frames(graph, graph.add("CREPS_InterpolateLatents", model=model, latent=seeds(graph, "3, 16"), frames=6))


def walked(graph: Graph) -> list[Node]:
    return frames(graph, graph.add("CREPS_RandomWalk", model=load(graph), seed=4, frames=12, smoothness=1.5))


def views(graph: Graph) -> list[Node]:
    options = ({}, {"zoom": 3.0, "center_x": 0.6}, {"rotation": 30.0, "zoom": 1.3})
    return [picture(graph, 300, 300, DETAIL, view=graph.add("CREPS_View", **one)) for one in options]


def warps(graph: Graph) -> list[Node]:
    lenses = (("swirl", 0.7), ("bulge", 0.8), ("tunnel", 0.3))
    made = [graph.add("CREPS_WarpView", warp=warp, amount=amount) for warp, amount in lenses]
    return [picture(graph, 300, 300, DETAIL, view=one) for one in made]


def window(graph: Graph) -> list[Node]:
    return [picture(graph), picture(graph, 270, 270, top=0.3, left=0.4, bottom=0.6, right=0.7)]


def overview(graph: Graph) -> list[Node]:
    return [sheet(graph, seeds(graph, "0-9"), columns=5)]


HELP: dict[str, Builder] = {
    "BlendGenerators": tuned,
    "CameraPath": flight,
    "CombineLatents": averaged,
    "CompareUpscaling": compared,
    "ContactSheet": overview,
    "DirectionStrip": strip,
    "EditLatents": edited,
    "Explorer": lambda graph: [picture(graph)],
    "FindDirections": strip,
    "InterpolateLatents": between,
    "LoadDirections": strip,
    "LoadFavourite": lambda graph: [picture(graph, 300, 300)],
    "LoadGenerator": lambda graph: [picture(graph, 300, 300), picture(graph, 300, 300, DETAIL)],
    "LoadLatents": selected,
    "MixStyles": mixed,
    "ProjectImage": projected,
    "RandomWalk": walked,
    "Render": window,
    "RenderForUpscaling": small_and_large,
    "RenderPath": flight,
    "RenderToFile": lambda graph: [picture(graph, 480, 480)],
    "SampleLatents": lambda graph: [sheet(graph, seeds(graph, "3-6"), columns=4)],
    "SampleSeeds": lambda graph: [sheet(graph, seeds(graph, "3, 5, 8, 13"), columns=4)],
    "SaveDirections": strip,
    "SaveFavourite": lambda graph: [picture(graph, 300, 300)],
    "SaveGenerator": tuned,
    "SaveLatents": selected,
    "ScaleConsistency": sizes,
    "SelectLatents": selected,
    "TrainGenerator": tuned,
    "EvaluateGenerator": evaluated,
    "TruncateLatents": truncated,
    "View": views,
    "WarpView": warps,
}
"""By node id without CREPS_: what its help page shows."""


def make_thumbnails(client: ComfyClient) -> None:
    """Beside the templates."""
    for template in TEMPLATES:
        if template.name not in _NEEDS_FILES:
            graph, shown = template.graph()
            if not any(node.type == "CREPS_CompareUpscaling" for node in graph.nodes):
                lighter(graph)
            write_jpeg(thumbnail(run(client, graph, shown)), FOLDER / f"{template.name}.jpg", 60_000)


def make_help(client: ComfyClient) -> None:
    """In web/docs, each below 20 kB."""
    made: dict[Builder, Image.Image] = {}
    slow = (compared, projected, tuned, evaluated)  # last: the rest is there in a minute
    for name, build in sorted(HELP.items(), key=lambda item: item[1] in slow):
        if build not in made:
            graph = Graph()
            batches = run(client, graph, build(graph))
            made[build] = row([one for batch in batches for one in some(batch, 4)], HELP_WIDTH, HELP_ROOM)
        write_jpeg(made[build], DOCS / f"CREPS_{name}.jpg", HELP_BYTES)


def make_readme(client: ComfyClient) -> None:
    """The same latent at three sizes, and a sheet of seeds."""
    graph, side, part = Graph(), 480, (0.56, 0.18, 0.76, 0.38)
    edges = dict(zip(("top", "left", "bottom", "right"), part, strict=True))
    nodes = [
        picture(graph, 96, 96),
        picture(graph, side, side),
        picture(graph, side, side, **edges),
    ]
    small, whole, close = (batch[0] for batch in run(client, graph, nodes))
    top, left, bottom, right = (round(edge * side) for edge in part)
    ImageDraw.Draw(whole).rectangle((left, top, right, bottom), outline="white", width=2)
    shown = Image.new("RGB", (3 * side + 24, side + 34), "white")
    draw, font = ImageDraw.Draw(shown), ImageFont.load_default(17)
    labels = ("96 x 96 (enlarged)", f"{side} x {side}", "the window, 5 times closer")
    pictures = (small.resize((side, side), Image.Resampling.NEAREST), whole, close)
    for i, (one, label) in enumerate(zip(pictures, labels, strict=True)):
        shown.paste(one, (i * (side + 12), 0))
        draw.text((i * (side + 12) + 4, side + 8), label, (70, 70, 70), font)
    write_jpeg(shown, README / "three_sizes.jpg", 200_000)

    graph = Graph()
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=0, batch_size=64)
    (pictures,) = run(client, graph, [graph.add("CREPS_Render", model=model, latent=latent, width=256, height=256)])
    shown = Image.new("RGB", (1024, 1024))
    for i, one in enumerate(pictures):
        shown.paste(one.resize((128, 128), Image.Resampling.LANCZOS), (i % 8 * 128, i // 8 * 128))
    write_jpeg(shown, README / f"{PICTURES}.jpg", 300_000)


PARTS = {"thumbnails": make_thumbnails, "help": make_help, "readme": make_readme}


def main() -> None:
    """Make some of them, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], help="which pictures; without any, all")
    parts = parser.parse_args().parts or PARTS
    comfyui = find_comfyui()
    if comfyui is None:
        parser.error(NO_HOST)
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyHost(comfyui, pack=ROOT, base=Path(folder) / "comfyui") as host,
        ComfyClient(host.address) as client,
    ):
        for part in parts:
            PARTS[part](client)


if __name__ == "__main__":
    main()
