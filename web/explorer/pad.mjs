// The pad: a square in which the latent moves along two directions from its middle, and a slider per direction.

import { clamp } from "./scene.mjs";
import { button, el } from "./dom.mjs";
import { contextOf } from "./viewport.mjs";

/** @import {Explorer} from "./explorer.mjs" */
/** @import {Walk} from "./scene.mjs" */
/** @import {Pair} from "./view.mjs" */

const FINE = 0.05, COARSE = 0.5; // steps, in units of the pad
const TRAIL = 90; // positions that are drawn
const EDGE = 7; // pixels between the range and the edge
const SNAP = 0.03; // share of the range around 0 that counts as 0
const AXES = /** @type {const} */ (["x", "y", "z"]);
/** @type {Record<Walk["kind"], number>} largest offset on the pad, by kind of directions */
export const REACH = { random: 3, SeFa: 4, PCA: 3, Named: 4, seeds: 1.25, linked: 4 };

export class Pad {
    /** @param {Explorer} explorer */
    constructor(explorer) {
        this.explorer = explorer;
        /** @type {Pair[]} */
        this.trail = [];
        this.held = false; // whether a pointer is down
        this.canvas = el("canvas", {
            class: "pad-field", tabindex: 0, role: "slider", "aria-roledescription": "two-dimensional slider",
            "aria-label": "Walk through the latents. Arrow keys walk, with shift in large steps; Home returns",
        });
        this.text = el("output", { class: "pad-position", "aria-hidden": "true" });
        this.ends = { x: el("span", { class: "pad-end right" }), y: el("span", { class: "pad-end top" }) };
        this.dice = button("dice", "New directions", () => explorer.rollDirections(), "G", { class: "icon small" });
        this.back = button("middle", "Back to the middle", () => this.home(), "", { class: "icon small" });
        this.sliders = AXES.map((axis, i) => el("input", {
            type: "range", class: "pad-slider", step: 0.01, "aria-label": `Direction ${i + 1}`, title: `Direction ${i + 1}`,
            oninput: (/** @type {InputEvent} */ event) => this.slide(axis, this.sliders[i].valueAsNumber, event.timeStamp),
            ondblclick: () => this.slide(axis, 0),
        }));
        this.names = this.sliders.map(() => el("span", { class: "pad-name", hidden: true }));
        this.element = el("div", { class: "pad" },
            el("div", { class: "pad-box" }, this.canvas, this.ends.x, this.ends.y,
                this.stepButton("up", "A step up", 0, 1), this.stepButton("down", "A step down", 0, -1),
                this.stepButton("previous", "A step to the left", -1, 0),
                this.stepButton("next", "A step to the right", 1, 0)),
            el("div", { class: "pad-row" }, this.text, this.back, this.dice),
            ...this.sliders.flatMap((slider, i) => [this.names[i], slider]));
        this.listen();
        this.observer = new ResizeObserver(() => this.paint());
        this.observer.observe(this.canvas);
    }

    /** @param {"up" | "down" | "previous" | "next"} name @param {string} label @param {number} x @param {number} y */
    stepButton(name, label, x, y) {
        const act = (/** @type {MouseEvent} */ event) => this.step(x, y, event.shiftKey ? COARSE : FINE);
        return button(name, label, act, "", { class: `icon step ${name}` });
    }

    get walk() {
        return this.explorer.scene.walk;
    }

    get reach() {
        return REACH[this.walk.kind];
    }

    listen() {
        const { canvas } = this;
        canvas.addEventListener("pointerdown", (event) => {
            if (event.button > 0) return;
            canvas.focus(/** @type {FocusOptions} */ ({ preventScroll: true, focusVisible: false }));
            canvas.setPointerCapture(event.pointerId);
            this.held = true;
            this.follow(event);
        });
        canvas.addEventListener("pointermove", (event) => this.held && this.follow(event));
        for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) {
            canvas.addEventListener(type, () => (this.held = false));
        }
        canvas.addEventListener("dblclick", () => this.home());
        canvas.addEventListener("keydown", (event) => this.onKeyDown(event));
    }

    /** Move to the pointer. @param {PointerEvent} event */
    follow(event) {
        const box = this.canvas.getBoundingClientRect(), edge = 0.5 - EDGE / this.canvas.clientWidth;
        const across = clamp((event.clientX - box.left) / box.width - 0.5, -edge, edge) / edge;
        const up = clamp(0.5 - (event.clientY - box.top) / box.height, -edge, edge) / edge;
        const snap = (/** @type {number} */ value) => (Math.abs(value) < SNAP ? 0 : value);
        this.set(snap(across) * this.reach, snap(up) * this.reach, event.timeStamp);
    }

    /** @param {KeyboardEvent} event */
    onKeyDown(event) {
        if (event.ctrlKey || event.metaKey || event.altKey) return;
        /** @type {Record<string, Pair>} */
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
        if (event.key === "Home") this.home();
        else if (event.key in steps) this.step(...steps[event.key], event.shiftKey ? COARSE : FINE);
        else return;
        event.preventDefault();
        event.stopPropagation();
    }

    home() {
        this.walk.z = 0;
        this.set(0, 0);
    }

    /** Move along one direction. @param {typeof AXES[number]} axis @param {number} value @param {number} [time] */
    slide(axis, value, time) {
        const snapped = Math.abs(value) < SNAP * this.reach ? 0 : value;
        this.walk[axis] = clamp(snapped, -this.reach, this.reach);
        this.explorer.onWalked(time);
    }

    /** Whether there is a direction after the pair. */
    get hasThird() {
        /** @type {{own: number} & Record<string, number>} */
        const counts = this.explorer.generator?.directions ?? { own: 3 };
        const { walk } = this;
        if (walk.kind === "random") return counts.own > 2;
        return walk.kind !== "seeds" && 2 * walk.number + 2 < (counts[walk.kind] ?? counts.own);
    }

    /** @param {number} x @param {number} y @param {number} size */
    step(x, y, size) {
        const round = (/** @type {number} */ value) => Math.round(value * 1000) / 1000;
        this.set(round(this.walk.x + x * size), round(this.walk.y + y * size));
    }

    /** @param {number} x @param {number} y @param {number} [time] of the event */
    set(x, y, time) {
        const { walk, reach } = this;
        [walk.x, walk.y] = [clamp(x, -reach, reach), clamp(y, -reach, reach)];
        this.explorer.onWalked(time);
    }

    /** Show the position of the scene's walk. */
    show() {
        const { walk, reach, hasThird } = this, { generator } = this.explorer, last = this.trail.at(-1);
        if (!last || last[0] !== walk.x || last[1] !== walk.y) this.trail.push([walk.x, walk.y]);
        this.trail = this.trail.slice(-TRAIL);
        if (generator && !hasThird && walk.kind !== "linked") walk.z = 0; // linked directions may follow
        for (const [i, axis] of AXES.entries()) {
            const slider = this.sliders[i];
            [slider.min, slider.max] = [String(-reach), String(reach)];
            slider.value = String(walk[axis]);
            slider.hidden = i === 2 && !hasThird;
            const title = walk.kind === "Named" ? generator?.names?.[2 * walk.number + i] ?? "" : "";
            this.names[i].textContent = title;
            this.names[i].hidden = !title || slider.hidden;
        }
        const offsets = hasThird ? [walk.x, walk.y, walk.z] : [walk.x, walk.y];
        const signed = (/** @type {number} */ value) => `${value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(2)}`;
        this.text.textContent = offsets.map(signed).join(", ");
        this.canvas.setAttribute("aria-valuetext", `${walk.x.toFixed(2)} across, ${walk.y.toFixed(2)} up`);
        this.canvas.setAttribute("aria-valuenow", walk.x.toFixed(2));
        this.canvas.setAttribute("aria-valuemin", String(-reach));
        this.canvas.setAttribute("aria-valuemax", String(reach));
        const seeds = walk.kind === "seeds";
        this.ends.x.textContent = seeds ? String(walk.seeds[0]) : "";
        this.ends.y.textContent = seeds ? String(walk.seeds[1]) : "";
        this.paint();
    }

    clearTrail() {
        this.trail = [];
    }

    paint() {
        const { canvas, reach } = this, css = canvas.clientWidth;
        if (!css) return;
        const unit = Math.min(devicePixelRatio * 1.5, 3), size = Math.round(css * unit); // device pixels per CSS pixel
        if (canvas.width !== size) canvas.width = canvas.height = size;
        const context = contextOf(canvas), middle = size / 2, radius = middle - EDGE * unit;
        /** @param {Pair} position @returns {Pair} */
        const at = ([x, y]) => [middle + clamp(x / reach, -1, 1) * radius, middle - clamp(y / reach, -1, 1) * radius];
        const accent = getComputedStyle(canvas).getPropertyValue("--accent");
        context.clearRect(0, 0, size, size);
        paintGrid(context, middle, radius, unit);
        context.strokeStyle = accent;
        context.lineCap = "round";
        context.lineWidth = 2 * unit;
        for (let i = 1; i < this.trail.length; i++) {
            context.globalAlpha = 0.55 * (i / this.trail.length) ** 2;
            line(context, at(this.trail[i - 1]), at(this.trail[i]));
        }
        const [x, y] = at([this.walk.x, this.walk.y]);
        context.globalAlpha = 0.22;
        context.fillStyle = accent;
        context.fill(disc(x, y, 11 * unit));
        context.globalAlpha = 1;
        context.fillStyle = "#fff";
        context.fill(disc(x, y, 5.5 * unit));
        context.stroke(disc(x, y, 5.5 * unit));
    }

    close() {
        this.observer.disconnect();
    }
}

/**
 * Three rings and a cross.
 * @param {CanvasRenderingContext2D} context
 * @param {number} middle
 * @param {number} radius
 * @param {number} width of lines
 */
function paintGrid(context, middle, radius, width) {
    context.globalAlpha = 1;
    context.lineWidth = width;
    context.strokeStyle = "rgb(255 255 255 / 0.13)";
    for (let ring = 1; ring <= 3; ring++) context.stroke(disc(middle, middle, (radius * ring) / 3));
    line(context, [middle, 0], [middle, 2 * middle]);
    line(context, [0, middle], [2 * middle, middle]);
}

/** @param {CanvasRenderingContext2D} context @param {Pair} from @param {Pair} to */
function line(context, from, to) {
    context.beginPath();
    context.moveTo(...from);
    context.lineTo(...to);
    context.stroke();
}

/** @param {number} x @param {number} y @param {number} radius */
function disc(x, y, radius) {
    const path = new Path2D();
    path.arc(x, y, radius, 0, 2 * Math.PI);
    return path;
}
