// The panel: seed, truncation, directions of the pad, size of the final image.

import { LAYERS, LIMITS, WALKS } from "./constants.mjs";
import { button, el, numberField, select, show } from "./dom.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {Walk} from "./scene.mjs" */

const PSI_RANGE = [-1, 1.5]; // of the slider; a scene may lie beyond
const PSI_SNAP = 0.025; // around 1
const SIZES = /** @type {const} */ ([
    ["512x512", "Square 512"], ["1024x1024", "Square 1024"], ["2048x2048", "Square 2048"], ["4096x4096", "Square 4096"],
    ["1536x864", "Wide 1536"], ["1920x1080", "Full HD"], ["3840x2160", "4K"], ["7680x4320", "8K"],
    ["1080x1920", "Portrait"], ["1080x1350", "Portrait 4:5"], ["2520x1080", "Cinema 21:9"],
]);
/** @type {Partial<Record<Walk["kind"], string>>} names on screen, where they differ */
const WALK_TITLES = { random: "Random", seeds: "Two seeds", linked: "Linked" };

export class Panel {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        this.names = ""; // of the generators that are listed
        /** @type {HTMLSelectElement} */
        this.source = select("Generator", [], (value) => explorer.selectSource(value), { class: "source" });
        this.seed = this.integerField("Seed", LIMITS.seed, "seed", (value) => {
            this.scene.seed = value;
            explorer.onSceneChanged();
        });
        this.psi = this.psiSlider();
        this.psiText = el("output", { class: "value" });
        this.label = this.integerField("Class; -1 goes by the seed", LIMITS.label, "narrow", (value) => {
            this.scene.label = value;
            explorer.onSceneChanged();
        });
        this.labelGroup = el("label", { class: "group" }, el("span", { class: "name" }, "class"), this.label);
        const kinds = WALKS.map((kind) => /** @type {const} */ ([kind, WALK_TITLES[kind] ?? kind]));
        this.kind = select("Directions of the pad", kinds, (kind) => {
            Object.assign(this.scene.walk, { kind, number: 0, x: 0, y: 0, z: 0 });
            explorer.onWalkChanged();
        });
        this.number = this.integerField("Which directions", LIMITS.number, "narrow", (value) => {
            this.scene.walk.number = value;
            explorer.onWalkChanged();
        });
        this.seeds = ["right", "upper"].map((end, i) =>
            this.integerField(`Seed at the ${end} end of the pad`, LIMITS.seed, "side", (value) => {
                this.scene.walk.seeds[i] = value;
                explorer.onWalkChanged();
            }));
        this.layers = this.layerButtons();
        this.width = this.sideField("width", "Width of the final picture");
        this.height = this.sideField("height", "Height of the final picture");
        this.size = select("Size of the final picture", [["", "Size\u2026"], ...SIZES], (value) => {
            [this.scene.width, this.scene.height] = value.split("x").map(Number);
            explorer.onSizeChanged();
        });
        this.element = this.build();
    }

    get scene() {
        return this.explorer.scene;
    }

    /**
     * @param {string} label
     * @param {readonly [number, number]} limits
     * @param {string} style class of the element
     * @param {(value: number) => void} onchange
     */
    integerField(label, [min, max], style, onchange) {
        return numberField(label, { min, max, class: style, onchange: (value) => onchange(Math.round(value)) });
    }

    /** @param {"width" | "height"} name @param {string} label */
    sideField(name, label) {
        return this.integerField(label, LIMITS.side, "side", (value) => {
            this.scene[name] = value;
            this.explorer.onSizeChanged();
        });
    }

    psiSlider() {
        const slider = el("input", {
            type: "range", min: PSI_RANGE[0], max: PSI_RANGE[1], step: 0.01, "aria-label": "Truncation",
            oninput: (/** @type {Event} */ event) => {
                const value = slider.valueAsNumber;
                this.scene.psi = Math.abs(value - 1) < PSI_SNAP ? 1 : value;
                this.explorer.onSceneChanged(event.timeStamp);
            },
            ondblclick: () => {
                this.scene.psi = 1;
                this.explorer.onSceneChanged();
            },
        });
        return slider;
    }

    layerButtons() {
        return el("div", { class: "segments", role: "radiogroup", "aria-label": "Which styles the pad moves" },
            ...LAYERS.map((name) => el("button", {
                type: "button", role: "radio", title: `The pad moves ${name === "all" ? "all" : `the ${name}`} styles`,
                onclick: () => {
                    this.scene.walk.layers = name;
                    this.explorer.onSceneChanged();
                },
            }, name)));
    }

    build() {
        const { explorer } = this, name = (/** @type {string} */ text) => el("span", { class: "name" }, text);
        return el("div", { class: "panel", role: "toolbar", "aria-label": "What is shown" },
            this.source,
            el("div", { class: "group" }, name("seed"),
                button("previous", "Previous seed", () => explorer.stepSeed(-1), "P"), this.seed,
                button("next", "Next seed", () => explorer.stepSeed(1), "N"),
                button("dice", "Any seed", () => explorer.stepSeed(null), "X")),
            el("label", { class: "group psi", title: "Truncation: 1 is the full variety, 0 the average picture" },
                name("truncation"), el("span", { class: "short", "aria-hidden": "true" }, "\u03c8"), this.psi, this.psiText),
            this.labelGroup,
            el("div", { class: "group" }, name("walk"), this.kind, this.number, ...this.seeds, this.layers),
            el("div", { class: "group size" }, name("picture"), this.width,
                el("span", { class: "times", "aria-hidden": "true" }, "\u00d7"), this.height, this.size));
    }

    show() {
        const { scene, explorer: { generator } } = this, two = scene.walk.kind === "seeds";
        this.showSources();
        show(this.seed, scene.seed);
        show(this.psi, scene.psi);
        this.psiText.textContent = scene.psi.toFixed(2);
        this.labelGroup.hidden = !generator?.classes;
        show(this.label, scene.label);
        this.kind.value = scene.walk.kind;
        this.number.hidden = two;
        show(this.number, scene.walk.number);
        this.seeds.forEach((field, i) => {
            field.hidden = !two;
            show(field, scene.walk.seeds[i]);
        });
        this.kind.options[WALKS.indexOf("linked")].hidden = !generator?.linked && scene.walk.kind !== "linked";
        for (const segment of this.layers.children) {
            segment.setAttribute("aria-checked", String(segment.textContent === scene.walk.layers));
        }
        show(this.width, scene.width);
        show(this.height, scene.height);
        const size = `${scene.width}x${scene.height}`;
        this.size.value = SIZES.some(([value]) => value === size) ? size : "";
    }

    showSources() {
        const { sources, source, fixedSource } = this.explorer, names = sources.length > 1 ? sources : [];
        if (this.names !== names.join()) {
            const option = (/** @type {string} */ value) => el("option", { value }, value.replace("builtin: ", ""));
            this.source.replaceChildren(...names.map(option));
            this.names = names.join();
        }
        this.source.hidden = !names.length || fixedSource;
        if (names.length) this.source.value = source;
    }
}
