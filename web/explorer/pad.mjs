// The pad: a square in which the latent walks along two directions, from its middle; and a slider for each of three.

import { clamp, REACH } from "./scene.mjs";
import { button, el } from "./dom.mjs";

const FINE = 0.05, COARSE = 0.5; // steps, in units of the pad
const TRAIL = 90; // places that are remembered

export class Pad {
    /** @param {object} owner: `scene` with its `walk`, and walked(time) for every change by hand. */
    constructor(owner) {
        this.owner = owner;
        this.trail = [];
        this.canvas = el("canvas", {
            class: "pad-field", tabindex: 0, role: "slider", "aria-roledescription": "two-dimensional slider",
            "aria-label": "Walk through the latents. Arrow keys walk, with shift in large steps; Home returns",
        });
        this.text = el("output", { class: "pad-place", "aria-hidden": "true" });
        this.ends = { x: el("span", { class: "pad-end right" }), y: el("span", { class: "pad-end top" }) };
        this.dice = button("dice", "New directions", () => owner.roll(), "G", { class: "icon small" });
        this.back = button("middle", "Back to the middle", () => this.home(), "", { class: "icon small" });
        const step = (name, label, x, y) =>
            button(name, label, (event) => this.step(x, y, event.shiftKey ? COARSE : FINE), "", { class: `icon step ${name}` });
        this.sliders = ["x", "y", "z"].map((name, i) => el("input", {
            type: "range", class: "pad-slider", step: 0.01, "aria-label": `Direction ${i + 1}`, title: `Direction ${i + 1}`,
            oninput: (event) => this.slide(name, event.target.valueAsNumber, event.timeStamp),
            ondblclick: () => this.slide(name, 0),
        }));
        this.names = this.sliders.map(() => el("span", { class: "pad-name", hidden: true }));
        this.element = el("div", { class: "pad" },
            el("div", { class: "pad-box" }, this.canvas, this.ends.x, this.ends.y,
                step("up", "A step up", 0, 1), step("down", "A step down", 0, -1),
                step("previous", "A step to the left", -1, 0), step("next", "A step to the right", 1, 0)),
            el("div", { class: "pad-row" }, this.text, this.back, this.dice),
            ...this.sliders.flatMap((slider, i) => [this.names[i], slider]));
        this.listen();
        this.observer = new ResizeObserver(() => this.paint());
        this.observer.observe(this.canvas);
    }

    get reach() {
        return REACH[this.owner.scene.walk.kind];
    }

    listen() {
        const { canvas } = this, on = (type, act) => canvas.addEventListener(type, act);
        const follow = (event) => {
            const box = canvas.getBoundingClientRect(), edge = 0.5 - 7 / canvas.clientWidth;
            const across = clamp((event.clientX - box.left) / box.width - 0.5, -edge, edge) / edge;
            const up = clamp(0.5 - (event.clientY - box.top) / box.height, -edge, edge) / edge;
            const near = (value) => (Math.abs(value) < 0.03 ? 0 : value); // the start is easy to find again
            this.set(near(across) * this.reach, near(up) * this.reach, event.timeStamp);
        };
        on("pointerdown", (event) => {
            if (event.button > 0) return;
            canvas.focus({ preventScroll: true, focusVisible: false });
            canvas.setPointerCapture(event.pointerId);
            this.held = true;
            follow(event);
        });
        on("pointermove", (event) => this.held && follow(event));
        for (const type of ["pointerup", "pointercancel", "lostpointercapture"]) on(type, () => (this.held = false));
        on("dblclick", () => this.home());
        on("keydown", (event) => {
            if (event.ctrlKey || event.metaKey || event.altKey) return;
            const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
            if (event.key === "Home") this.home();
            else if (event.key in steps) this.step(...steps[event.key], event.shiftKey ? COARSE : FINE);
            else return;
            event.preventDefault();
            event.stopPropagation();
        });
    }

    home() {
        this.owner.scene.walk.z = 0;
        this.set(0, 0);
    }

    /** Along one direction. */
    slide(name, value, time) {
        const near = Math.abs(value) < 0.03 * this.reach ? 0 : value;
        this.owner.scene.walk[name] = clamp(near, -this.reach, this.reach);
        this.owner.walked(time);
    }

    /** Whether there is a direction after the pair. */
    get third() {
        const { scene: { walk }, about } = this.owner, counts = about?.directions ?? { own: 3 };
        if (walk.kind === "random") return counts.own > 2;
        return walk.kind !== "seeds" && 2 * walk.number + 2 < (counts[walk.kind] ?? counts.own);
    }

    step(x, y, size) {
        const { walk } = this.owner.scene, snap = (value) => Math.round(value * 1000) / 1000;
        this.set(snap(walk.x + x * size), snap(walk.y + y * size));
    }

    set(x, y, time) {
        const { walk } = this.owner.scene;
        [walk.x, walk.y] = [clamp(x, -this.reach, this.reach), clamp(y, -this.reach, this.reach)];
        this.owner.walked(time);
    }

    /** Show where the scene's walk stands. */
    show() {
        const { walk } = this.owner.scene, last = this.trail.at(-1);
        if (!last || last[0] !== walk.x || last[1] !== walk.y) this.trail.push([walk.x, walk.y]);
        this.trail = this.trail.slice(-TRAIL);
        if (this.owner.about && !this.third && walk.kind !== "linked") walk.z = 0; // linked directions may be on their way
        for (const [i, name] of ["x", "y", "z"].entries()) {
            const slider = this.sliders[i];
            [slider.min, slider.max] = [-this.reach, this.reach];
            slider.value = walk[name];
            slider.hidden = i === 2 && !this.third;
            const title = walk.kind === "Named" ? this.owner.about?.names?.[2 * walk.number + i] ?? "" : "";
            this.names[i].textContent = title;
            this.names[i].hidden = !title || slider.hidden;
        }
        const places = this.third ? [walk.x, walk.y, walk.z] : [walk.x, walk.y];
        const text = places.map((value) => `${value < 0 ? "\u2212" : ""}${Math.abs(value).toFixed(2)}`).join(", ");
        this.text.textContent = text;
        this.canvas.setAttribute("aria-valuetext", `${walk.x.toFixed(2)} across, ${walk.y.toFixed(2)} up`);
        this.canvas.setAttribute("aria-valuenow", walk.x.toFixed(2));
        this.canvas.setAttribute("aria-valuemin", -this.reach);
        this.canvas.setAttribute("aria-valuemax", this.reach);
        const seeds = walk.kind === "seeds";
        this.ends.x.textContent = seeds ? walk.seeds[0] : "";
        this.ends.y.textContent = seeds ? walk.seeds[1] : "";
        this.paint();
    }

    forget() {
        this.trail = [];
    }

    paint() {
        const { canvas, reach } = this, css = canvas.clientWidth;
        if (!css) return;
        const ratio = Math.min(devicePixelRatio * 1.5, 3), size = Math.round(css * ratio), unit = ratio;
        if (canvas.width !== size) canvas.width = canvas.height = size;
        const context = canvas.getContext("2d"), middle = size / 2, radius = middle - 7 * unit;
        const at = ([x, y]) => [middle + (clamp(x / reach, -1, 1) * radius), middle - clamp(y / reach, -1, 1) * radius];
        const accent = getComputedStyle(canvas).getPropertyValue("--accent");
        context.clearRect(0, 0, size, size);
        context.lineWidth = unit;
        context.strokeStyle = "rgb(255 255 255 / 0.13)";
        for (let ring = 1; ring <= 3; ring++) {
            context.beginPath();
            context.arc(middle, middle, (radius * ring) / 3, 0, 2 * Math.PI);
            context.stroke();
        }
        context.beginPath();
        context.moveTo(middle, 0);
        context.lineTo(middle, size);
        context.moveTo(0, middle);
        context.lineTo(size, middle);
        context.stroke();
        context.lineCap = "round";
        context.lineWidth = 2 * unit;
        context.strokeStyle = accent;
        for (let i = 1; i < this.trail.length; i++) {
            context.globalAlpha = 0.55 * (i / this.trail.length) ** 2;
            context.beginPath();
            context.moveTo(...at(this.trail[i - 1]));
            context.lineTo(...at(this.trail[i]));
            context.stroke();
        }
        context.globalAlpha = 1;
        const { walk } = this.owner.scene, place = at([walk.x, walk.y]);
        context.beginPath();
        context.arc(...place, 11 * unit, 0, 2 * Math.PI);
        context.globalAlpha = 0.22;
        context.fillStyle = accent;
        context.fill();
        context.globalAlpha = 1;
        context.beginPath();
        context.arc(...place, 5.5 * unit, 0, 2 * Math.PI);
        context.fillStyle = "#fff";
        context.fill();
        context.lineWidth = 2 * unit;
        context.stroke();
    }

    close() {
        this.observer.disconnect();
    }
}
