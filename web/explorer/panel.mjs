// The panel: seed, truncation, what the pad moves, the size of the final picture.

import { LAYERS, LIMITS } from "./scene.mjs";
import { button, el, numberField, select, show } from "./dom.mjs";

const SIZES = [
    ["512x512", "Square 512"], ["1024x1024", "Square 1024"], ["2048x2048", "Square 2048"], ["4096x4096", "Square 4096"],
    ["1536x864", "Wide 1536"], ["1920x1080", "Full HD"], ["3840x2160", "4K"], ["7680x4320", "8K"],
    ["1080x1920", "Portrait"], ["1080x1350", "Portrait 4:5"], ["2520x1080", "Cinema 21:9"],
];
const WALKS = [
    ["random", "Random"], ["SeFa", "SeFa"], ["PCA", "PCA"], ["Named", "Named"], ["seeds", "Two seeds"], ["linked", "Linked"],
];

export class Panel {
    /**
     * @param {object} owner: `scene`, `sources`, `about` (the generator), and the functions seed(step or null),
     *   changed() after a change of the scene, walkChanged(), sized(), chosen(source).
     */
    constructor(owner) {
        this.owner = owner;
        const scene = () => owner.scene;
        this.source = select("Generator", [], (value) => owner.chosen(value), { class: "source" });
        this.seed = numberField("Seed", {
            min: 0, max: LIMITS.seed, class: "seed",
            onchange: (value) => {
                scene().seed = Math.round(value);
                owner.changed();
            },
        });
        this.psi = el("input", {
            type: "range", min: LIMITS.psi[0], max: LIMITS.psi[1], step: 0.01, "aria-label": "Truncation",
            oninput: (event) => {
                const value = this.psi.valueAsNumber;
                scene().psi = Math.abs(value - 1) < 0.025 ? 1 : value;
                owner.changed(event.timeStamp);
            },
            ondblclick: () => {
                scene().psi = 1;
                owner.changed();
            },
        });
        this.psiText = el("output", { class: "value" });
        this.label = numberField("Class; -1 goes by the seed", {
            min: -1, max: 65535, class: "narrow",
            onchange: (value) => {
                scene().label = Math.round(value);
                owner.changed();
            },
        });
        this.labelGroup = el("label", { class: "group" }, el("span", { class: "name" }, "class"), this.label);
        this.kind = select("Directions of the pad", WALKS, (value) => {
            Object.assign(scene().walk, { kind: value, number: 0, x: 0, y: 0, z: 0 });
            owner.walkChanged();
        });
        this.number = numberField("Which directions", {
            min: 0, max: 2 ** 31, class: "narrow",
            onchange: (value) => {
                scene().walk.number = Math.round(value);
                owner.walkChanged();
            },
        });
        this.seeds = [0, 1].map((i) => numberField(i ? "Seed at the upper end of the pad" : "Seed at the right end of the pad", {
            min: 0, max: LIMITS.seed, class: "side",
            onchange: (value) => {
                scene().walk.seeds[i] = Math.round(value);
                owner.walkChanged();
            },
        }));
        this.layers = el("div", { class: "segments", role: "radiogroup", "aria-label": "Which styles the pad moves" },
            ...LAYERS.map((name) => el("button", {
                type: "button", role: "radio", title: `The pad moves ${name === "all" ? "all" : `the ${name}`} styles`,
                onclick: () => {
                    scene().walk.layers = name;
                    owner.changed();
                },
            }, name)));
        const side = (name, label) => numberField(label, {
            min: 1, max: LIMITS.side, class: "side",
            onchange: (value) => {
                scene()[name] = Math.round(value);
                owner.sized();
            },
        });
        [this.width, this.height] = [side("width", "Width of the final picture"), side("height", "Height of the final picture")];
        this.size = select("Size of the final picture", [["", "Size\u2026"], ...SIZES], (value) => {
            [scene().width, scene().height] = value.split("x").map(Number);
            owner.sized();
        });
        this.element = el("div", { class: "panel", role: "toolbar", "aria-label": "What is shown" },
            this.source,
            el("div", { class: "group" }, el("span", { class: "name" }, "seed"),
                button("previous", "Previous seed", () => owner.seed(-1), "P"), this.seed,
                button("next", "Next seed", () => owner.seed(1), "N"),
                button("dice", "Any seed", () => owner.seed(null), "X")),
            el("label", { class: "group psi", title: "Truncation: 1 is the full variety, 0 the average picture" },
                el("span", { class: "name" }, "truncation"),
                el("span", { class: "short", "aria-hidden": "true" }, "\u03c8"), this.psi, this.psiText),
            this.labelGroup,
            el("div", { class: "group" }, el("span", { class: "name" }, "walk"), this.kind, this.number, ...this.seeds,
                this.layers),
            el("div", { class: "group size" }, el("span", { class: "name" }, "picture"), this.width,
                el("span", { class: "times", "aria-hidden": "true" }, "\u00d7"), this.height, this.size));
    }

    show() {
        const { scene, about, sources, source } = this.owner;
        const names = sources.length > 1 ? sources : [];
        if (this.source.options.length !== names.length || this.names !== names.join()) {
            this.source.replaceChildren(...names.map((name) => el("option", { value: name }, name.replace("builtin: ", ""))));
            this.names = names.join();
        }
        this.source.hidden = !names.length || this.owner.fixedSource;
        if (names.length) this.source.value = source;
        show(this.seed, scene.seed);
        show(this.psi, scene.psi);
        this.psiText.textContent = scene.psi.toFixed(2);
        this.labelGroup.hidden = !about?.classes;
        show(this.label, scene.label);
        this.kind.value = scene.walk.kind;
        const two = scene.walk.kind === "seeds";
        this.number.hidden = two;
        show(this.number, scene.walk.number);
        this.seeds.forEach((field, i) => {
            field.hidden = !two;
            show(field, scene.walk.seeds[i]);
        });
        this.kind.querySelector("[value=linked]").hidden = !about?.linked && scene.walk.kind !== "linked";
        for (const segment of this.layers.children) {
            segment.setAttribute("aria-checked", String(segment.textContent === scene.walk.layers));
        }
        show(this.width, scene.width);
        show(this.height, scene.height);
        const size = `${scene.width}x${scene.height}`;
        this.size.value = SIZES.some(([value]) => value === size) ? size : "";
    }
}
