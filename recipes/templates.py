"""The templates: nodes, values and layout.  python recipes/templates.py  writes workflows/ and workflows/api/.

The notes beside them are in templates.md. Thumbnails, and the pictures of help pages and README, are made of the
templates by recipes/pictures.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from template_graph import ROOT, Graph, Node, Output

PICTURES = "alpenglow"
"""The built-in generator of templates, thumbnails, help pages and README."""
DETAIL = "textures"
"""The same where the camera goes far away or turns, which a landscape is not made for."""
TRAINED = "alpine"
"""The same where a generator has to be a trained one: for projection and fine-tuning."""

FOLDER = ROOT / "workflows"
NOTES = ROOT / "recipes" / "templates.md"
OFFICIAL = "creps-ffhq-512x512.pkl"
UPSCALER = "RealESRGAN_x4plus.safetensors"
UPSCALER_URL = f"https://huggingface.co/Comfy-Org/Real-ESRGAN_repackaged/resolve/main/{UPSCALER}"


@dataclass(frozen=True)
class Template:
    """A workflow under Templates. `build` adds nodes to a graph, and returns those whose pictures are the thumbnail."""

    name: str
    build: Callable[[Graph], list[Node]]

    def graph(self) -> tuple[Graph, list[Node]]:
        """The graph, and the nodes of its thumbnail."""
        graph = Graph(self.note())
        return graph, self.build(graph)

    def note(self) -> str:
        """What stands beside the graph, from templates.md: one line a paragraph, as the page wants it."""
        sections = re.split(r"^## (.+)\n", NOTES.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = dict(zip(sections[1::2], sections[2::2], strict=True))[self.name].strip()
        heading, intro, tries, *more = [re.sub(r"\n +|\n(?!\d\. )", " ", part) for part in text.split("\n\n")]
        large = [f"### {line}" for line in [intro, *tries.split("\n")]]  # plain text is tiny in notes
        names = [template.name for template in TEMPLATES]
        following = names[(names.index(self.name) + 1) % len(names)]
        return "\n\n".join([heading, *large, *more, f"Next: **{following}**"])


TEMPLATES: list[Template] = []


def template(name: str) -> Callable[[Callable[[Graph], list[Node]]], Callable[[Graph], list[Node]]]:
    """Add a function as `Template.build`."""

    def add(build: Callable[[Graph], list[Node]]) -> Callable[[Graph], list[Node]]:
        TEMPLATES.append(Template(name, build))
        return build

    return add


def load(graph: Graph, name: str = PICTURES) -> Node:
    """A loader of a built-in generator, or of a file."""
    return graph.add("CREPS_LoadGenerator", checkpoint=name if "." in name else f"builtin: {name}")


def save(
    graph: Graph, picture: Node | Output, prefix: str, title: str = "", size: tuple[int, int] = (340, 330)
) -> Node:
    """A node that shows a picture and saves it."""
    return graph.add("SaveImage", title, size=size, images=picture, filename_prefix=f"CREPS/{prefix}")


def film(graph: Graph, frames: Node, prefix: str) -> tuple[Node, Node]:
    """Frames to a file."""
    video = graph.add("CreateVideo", images=frames, fps=24)
    saved = graph.add("SaveVideo", size=(360, 480), video=video, filename_prefix=f"CREPS/{prefix}")
    return video, saved


@template("00 Explore")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    scene = {
        "seed": 3,
        "psi": 1,
        "label": -1,
        "walk": {"kind": "Named", "number": 0, "seeds": [1, 2], "layers": "all", "x": 0, "y": 0, "z": 0},
        "view": {"x": 0.5, "y": 0.5, "zoom": 1, "rotation": 0},
        "width": 1536,
        "height": 864,
        "keys": [],
        "fps": 24,
        "easing": "ease in and out",
        "closed": False,
    }
    explorer = graph.add("CREPS_Explorer", model=model, scene=scene, size=(640, 760))
    render = graph.add(
        "CREPS_Render",
        model=model,
        latent=explorer,
        view=explorer.out("view"),
        width=explorer.out("width"),
        height=explorer.out("height"),
        size=(320, 0),
    )
    saved = save(graph, render, "explored", size=(320, 302))
    graph.lay([explorer], [render, saved])
    model.position = (0, 470)
    return [render]


@template("01 First picture")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=3, seed_then="increment")
    render = graph.add("CREPS_Render", model=model, latent=latent, width=1536, height=864, fit="extend")
    saved = save(graph, render, "first", size=(560, 370))
    graph.lay([model, latent], [render], [saved])
    return [render]


@template("02 One latent at three sizes")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=8)
    columns = []
    for title, name, side, window in (
        ("Small: 128 x 128", "128", 128, {}),
        ("Large: 1024 x 1024", "1024", 1024, {}),
        ("A part, five times closer", "window", 1024, {"top": 0.56, "left": 0.18, "bottom": 0.76, "right": 0.38}),
    ):
        render = graph.add("CREPS_Render", title, model=model, latent=latent, **window, width=side, height=side)
        columns.append([save(graph, render, f"sizes {name}", title, size=(250, 300)), render])
    graph.lay([model, latent], *columns)
    return [columns[1][1], columns[0][1], columns[2][1]]


@template("03 Any aspect and crop")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=8)
    view = graph.add("CREPS_View", "Closer, turned", zoom=1.3, rotation=30.0)
    warp = graph.add("CREPS_WarpView", "Through a lens", view=view, warp="swirl", amount=0.6)
    columns = []
    for title, name, sides, options in (
        ("Panorama, cropped", "panorama crop", (1536, 512), {"fit": "crop"}),
        ("Panorama, extended", "panorama extend", (1536, 512), {"fit": "extend"}),
        ("Turned and swirled", "swirl", (640, 960), {"view": warp}),
    ):
        render = graph.add(
            "CREPS_Render", title, model=model, latent=latent, **options, width=sides[0], height=sides[1]
        )
        columns.append([save(graph, render, name, title, size=(250, 300)), render])
    graph.lay([model, latent, view, warp], *columns)
    return [column[1] for column in columns]


@template("04 Interpolation to video")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    keys = graph.add("CREPS_SampleSeeds", "Key pictures", model=model, seeds="3, 16, 22")
    way = graph.add("CREPS_InterpolateLatents", model=model, latent=keys, frames=16, easing="even")
    frames = graph.add("CREPS_Render", "Frames", model=model, latent=way, width=448, height=256, fit="extend")
    video, saved = film(graph, frames, "interpolation")
    graph.lay([model, keys, way], [frames, video], [saved])
    return [frames]


@template("05 Endless zoom to video")
def _(graph: Graph) -> list[Node]:
    model = load(graph, DETAIL)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=9)
    first = graph.add("CREPS_View", "Start: far away", zoom=0.3)
    last = graph.add("CREPS_View", "End: close, turned", zoom=10.0, center_x=0.52, center_y=0.43, rotation=90.0)
    path = graph.add("CREPS_CameraPath", views=[first, last], frames=48, closed=True)
    frames = graph.add("CREPS_RenderPath", model=model, latent=latent, path=path, width=256, height=256)
    video, saved = film(graph, frames, "endless zoom")
    graph.lay([model, latent], [first, last, path], [frames], [video, saved])
    return [frames]


@template("06 Style mixing sheet")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    rows = graph.add("CREPS_SampleSeeds", "Rows", model=model, seeds="3, 11, 14, 48")
    columns = graph.add("CREPS_SampleSeeds", "Columns", model=model, seeds="6, 8, 11, 18, 9")
    mix = graph.add("CREPS_MixStyles", latent_a=rows, latent_b=columns)
    sheet = graph.add("CREPS_ContactSheet", model=model, latent=mix)
    saved = save(graph, sheet, "style mixing", size=(480, 480))
    graph.lay([model, rows, columns], [mix, sheet], [saved])
    return [sheet]


@template("07 Editing directions")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleSeeds", model=model, seeds="14")
    found = graph.add("CREPS_FindDirections", model=model, method="Named", count=17)
    strip = graph.add("CREPS_DirectionStrip", latent=latent, directions=found, indices="0, 1, 3, 8, 12, 16")
    sheet = graph.add("CREPS_ContactSheet", model=model, latent=strip, side=128, supersample=2)
    edited = graph.add("CREPS_EditLatents", latent=latent, directions=found, index=16, strength=1.5)
    render = graph.add("CREPS_Render", model=model, latent=edited, width=640, height=640)
    sheets = save(graph, sheet, "directions", "All directions", size=(380, 350))
    graph.lay(
        [model, latent, found],
        [strip, sheet],
        [edited, render],
        [sheets, save(graph, render, "edited", "Edited", size=(380, 380))],
    )
    return [sheet]


def comparison(graph: Graph, native: Node, images: list[Node], names: str, prefix: str) -> list[Node]:
    """The end of both comparisons."""
    compared = graph.add(
        "CREPS_CompareUpscaling", native=native, images=images, names=names, size=(360, 0), places=3, zoom=4
    )
    numbers = graph.add("PreviewAny", "The numbers", size=(360, 120), source=compared.out("report"))
    return [compared, save(graph, compared, prefix, "The sheet", size=(360, 302)), numbers]


def scaled(graph: Graph, small: Node, method: str) -> Node:
    """A small picture scaled up by core."""
    return graph.add(
        "ImageScale", f"Scale up: {method}", collapsed=True, image=small, upscale_method=method, width=1024, height=1024
    )


def native_and_small(graph: Graph, factor: int) -> tuple[list[Node], Node, Node]:
    """The beginning of both comparisons: model and latent, a native render, and one that is to be scaled up."""
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=3)
    native = graph.add("CREPS_Render", "Native, 1024 x 1024", model=model, latent=latent, width=1024, height=1024)
    small = graph.add(
        "CREPS_RenderForUpscaling",
        f"Small, {factor} times fewer pixels a side",
        size=(250, 0),
        model=model,
        latent=latent,
        width=1024,
        height=1024,
        factor=factor,
    )
    return [model, latent], native, small


@template("08 Generation with upscaling comparison")
def _(graph: Graph) -> list[Node]:
    first, native, small = native_and_small(graph, 8)
    methods = [scaled(graph, small, method) for method in ("bilinear", "bicubic", "lanczos")]
    end = comparison(graph, native, methods, "bilinear\nbicubic\nLanczos", "comparison")
    graph.lay(first, [native], [small, *methods], end)
    return [end[0]]


@template("09 Comparison with an upscale model")
def _(graph: Graph) -> list[Node]:
    first, native, small = native_and_small(graph, 4)
    models = [{"name": UPSCALER, "url": UPSCALER_URL, "directory": "upscale_models"}]
    upscaler = graph.add("UpscaleModelLoader", model_name=UPSCALER, properties={"models": models})
    trained = graph.add("ImageUpscaleWithModel", "Scale up: model", upscale_model=upscaler, image=small, size=(250, 0))
    usual = scaled(graph, small, "lanczos")
    end = comparison(graph, native, [usual, trained], "Lanczos\nupscale model", "comparison with a model")
    graph.lay([*first, upscaler], [native], [small, usual, trained], end)
    return [end[0]]


@template("10 Official checkpoint")
def _(graph: Graph) -> list[Node]:
    model = load(graph, OFFICIAL)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=2, truncation_psi=0.7)
    render = graph.add("CREPS_Render", model=model, latent=latent, width=1024, height=1024)
    saved = save(graph, render, "official", size=(500, 560))
    graph.lay([model, latent], [render], [saved])
    return [render]


@template("11 Project a photo")
def _(graph: Graph) -> list[Node]:
    model = load(graph, TRAINED)
    latent = graph.add("CREPS_SampleLatents", "Some latent", model=model, seed=4000, truncation_psi=0.8)
    photo = graph.add(
        "CREPS_Render", "Stands in for a photo", collapsed=True, model=model, latent=latent, width=480, height=320
    )
    size = graph.add("GetImageSize", "Size of the photo", image=photo)
    projected = graph.add(
        "CREPS_ProjectImage", model=model, image=photo, space="ws", steps=100, side=64, candidates=64, starts=2
    )
    render = graph.add(
        "CREPS_Render",
        "Render as large as the photo",
        model=model,
        latent=projected,
        width=size.out("width"),
        height=size.out("height"),
    )
    shown = graph.add("PreviewImage", "The photo", images=photo, size=(330, 270))
    saved = save(graph, render, "projected", "The answer", size=(330, 290))
    graph.lay([model, latent, photo, size], [projected], [render], [shown, saved])
    return [photo, render]


@template("12 Very large picture")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=3)
    large = graph.add("CREPS_RenderToFile", model=model, latent=latent, size=(360, 0), width=6144, height=6144)
    path = graph.add("PreviewAny", "Where it is", size=(360, 150), source=large.out("path"))
    graph.lay([model, latent], [large], [path])
    return [large]


@template("13 Picture app")
def _(graph: Graph) -> list[Node]:
    model = load(graph)
    latent = graph.add("CREPS_SampleLatents", model=model, seed=3)
    render = graph.add("CREPS_Render", model=model, latent=latent, width=1536, height=864, fit="extend")
    saved = save(graph, render, "app", size=(560, 370))
    graph.lay([model, latent], [render], [saved])
    fields = [(latent, "seed"), (render, "width"), (render, "height")]
    graph.extra = {
        "linearMode": True,
        "linearData": {"inputs": [[str(node.id), name] for node, name in fields], "outputs": [str(saved.id)]},
    }
    return [render]


@template("14 Fine-tune on your pictures")
def _(graph: Graph) -> list[Node]:
    model = load(graph, TRAINED)
    seeds = graph.add("CREPS_SampleSeeds", "The 40 pictures to learn from", model=model, seeds="100-139")
    drawn = graph.add("CREPS_Render", "Draw them", collapsed=True, model=model, latent=seeds, width=64, height=64)
    light = graph.add("EmptyImage", "Light to see them in", collapsed=True, color=0xFF8C3C, width=64, height=64)
    lit = graph.add(
        "ImageBlend",
        "... in another palette",
        collapsed=True,
        image1=drawn,
        image2=light,
        blend_factor=1.0,
        blend_mode="multiply",
    )
    trained = graph.add(
        "CREPS_TrainGenerator",
        model=model,
        images=lit,
        run_name="",
        size=(250, 0),
        pictures=480,
        learning_rate=0.001,
        augment="none",
    )
    kept = graph.add("CREPS_SaveGenerator", model=trained, filename_prefix="my generator", size=(290, 0))
    losses = graph.add("LossGraphNode", loss=trained.out("losses"), filename_prefix="CREPS/loss", size=(290, 340))
    samples = graph.add("PreviewImage", "Samples", images=trained.out("samples"), size=(290, 280))
    four = graph.add("CREPS_SampleLatents", "Four seeds", model=model, seed=0, batch_size=4)
    same = graph.add("CREPS_SampleLatents", "The same four seeds", collapsed=True, model=trained, seed=0, batch_size=4)
    before = graph.add("CREPS_ContactSheet", "Before", model=model, latent=four, size=(290, 0))
    after = graph.add("CREPS_ContactSheet", "After", model=trained, latent=same, size=(290, 0))
    graph.lay([model, seeds, drawn, light, lit, four], [trained], [before, same, after], [samples, kept, losses])
    return [before, after]


@template("15 Evaluate a generator")
def _(graph: Graph) -> list[Node]:
    model = load(graph, TRAINED)
    evaluated = graph.add("CREPS_EvaluateGenerator", model=model, size=(400, 0))
    saved = save(graph, evaluated.out("plot"), "evaluation", "The plot", size=(450, 400))
    graph.lay([model], [evaluated], [saved])
    return [evaluated]


def main() -> None:
    """Write them all."""
    for one in TEMPLATES:
        graph, _ = one.graph()
        for folder, content in ((FOLDER, graph.workflow()), (FOLDER / "api", graph.prompt())):
            (folder / f"{one.name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
